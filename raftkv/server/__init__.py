"""The client-facing side of a node."""

from raftkv.server.limits import Limits, ServerStats
from raftkv.server.listener import Listener
from raftkv.server.port import CommandDone, QueryDone, Service

__all__ = ["CommandDone", "Limits", "Listener", "QueryDone", "ServerStats", "Service"]
