"""The client-facing side of a node."""

import typing

from raftkv.lazy import exports as _exports

if typing.TYPE_CHECKING:
    from raftkv.listener.entrance import Entrance, bind
    from raftkv.listener.interface import Service
    from raftkv.listener.limits import ClientLimits, ServerStats
    from raftkv.listener.listener import Listener
    from raftkv.machine import CommandDone, QueryDone
else:
    __getattr__, __dir__ = _exports(
        __name__,
        {
            "raftkv.listener.entrance": "Entrance bind",
            "raftkv.listener.interface": "Service",
            "raftkv.listener.limits": "ClientLimits ServerStats",
            "raftkv.listener.listener": "Listener",
            "raftkv.machine": "CommandDone QueryDone",
        },
    )

__all__ = ["ClientLimits", "CommandDone", "Entrance", "Listener", "QueryDone", "ServerStats", "Service", "bind"]
