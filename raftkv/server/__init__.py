"""A node with everything around it: inside another program, or as a process of its own."""

from raftkv.server.server import Listen, Server
from raftkv.server.tls import Tls

__all__ = ["Listen", "Server", "Tls"]
