"""Faults of a world: of its network, disks and clocks, and mistakes of people."""
