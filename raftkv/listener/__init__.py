"""The client-facing side of a node."""

from raftkv.listener.limits import Limits, ServerStats
from raftkv.listener.listener import Listener
from raftkv.listener.port import CommandDone, QueryDone, Service

__all__ = ["CommandDone", "Limits", "Listener", "QueryDone", "ServerStats", "Service"]
