"""Nodes as real processes of this host, for the demo and for tests."""
