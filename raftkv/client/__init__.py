"""Clients of a cluster: for asyncio, for threads, for operators."""

from raftkv.client.admin import Admin
from raftkv.client.blocking import BlockingClient
from raftkv.client.blocking_admin import BlockingAdmin
from raftkv.client.client import Client
from raftkv.client.dial import Dial
from raftkv.client.options import ClientOptions
from raftkv.client.reads import Read, StaleRead
from raftkv.client.watching import BlockingWatch, Watch
from raftkv.machine import UnknownMethod

__all__ = [
    "Admin",
    "BlockingAdmin",
    "BlockingClient",
    "BlockingWatch",
    "Client",
    "ClientOptions",
    "Dial",
    "Read",
    "StaleRead",
    "UnknownMethod",
    "Watch",
]
