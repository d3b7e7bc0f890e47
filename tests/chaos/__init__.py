"""Faults on real processes: what is done to their links, ports, disks and selves, and what must come of it."""
