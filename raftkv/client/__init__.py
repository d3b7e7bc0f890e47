"""Clients of a cluster: for asyncio, for threads, for operators."""

import typing

from raftkv.lazy import exports as _exports

if typing.TYPE_CHECKING:
    from raftkv.client.admin import Admin
    from raftkv.client.blocking import BlockingClient
    from raftkv.client.blocking_admin import BlockingAdmin
    from raftkv.client.client import Client
    from raftkv.client.dial import Dial
    from raftkv.client.options import ClientOptions
    from raftkv.client.reads import Read, StaleRead
    from raftkv.client.remote import BlockingRemote, Remote
    from raftkv.client.watching import BlockingWatch, Watch
    from raftkv.machine import UnknownMethod
else:
    __getattr__, __dir__ = _exports(
        __name__,
        {
            "raftkv.client.admin": "Admin",
            "raftkv.client.blocking": "BlockingClient",
            "raftkv.client.blocking_admin": "BlockingAdmin",
            "raftkv.client.client": "Client",
            "raftkv.client.dial": "Dial",
            "raftkv.client.options": "ClientOptions",
            "raftkv.client.reads": "Read StaleRead",
            "raftkv.client.remote": "BlockingRemote Remote",
            "raftkv.client.watching": "BlockingWatch Watch",
            "raftkv.machine": "UnknownMethod",
        },
    )

__all__ = [
    "Admin",
    "BlockingAdmin",
    "BlockingClient",
    "BlockingRemote",
    "BlockingWatch",
    "Client",
    "ClientOptions",
    "Dial",
    "Read",
    "Remote",
    "StaleRead",
    "UnknownMethod",
    "Watch",
]
