"""The client-facing side of a node."""

from raftkv.listener.entrance import Entrance, bind
from raftkv.listener.interface import Service
from raftkv.listener.limits import Limits, ServerStats
from raftkv.listener.listener import Listener
from raftkv.machine import CommandDone, QueryDone

__all__ = ["CommandDone", "Entrance", "Limits", "Listener", "QueryDone", "ServerStats", "Service", "bind"]
