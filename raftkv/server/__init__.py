"""A node with everything around it: inside another program, or as a process of its own."""

from raftkv.server.server import Server

__all__ = ["Server"]
