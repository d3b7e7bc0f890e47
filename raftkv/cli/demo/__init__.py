"""`raftkv demo`: real processes, real faults, and a count of every acknowledged write at the end."""

from raftkv.cli.demo.command import demo

__all__ = ["demo"]
