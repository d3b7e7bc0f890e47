"""The client-facing side of a node."""

from raftkv.listener.entrance import Entrance, bind
from raftkv.listener.interface import Service
from raftkv.listener.limits import ClientLimits, ServerStats
from raftkv.listener.listener import Listener
from raftkv.machine import CommandDone, QueryDone

__all__ = ["ClientLimits", "CommandDone", "Entrance", "Listener", "QueryDone", "ServerStats", "Service", "bind"]
