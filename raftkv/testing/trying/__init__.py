"""Tests of applications: scripts of calls and faults, the worlds in which they run, shrinking, and saved failures."""
