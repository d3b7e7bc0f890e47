"""Deterministic simulation of whole clusters, for raftkv's own tests and for applications'."""
