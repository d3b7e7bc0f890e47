"""Clients of a cluster: for asyncio, for threads, for operators."""

from raftkv.client.admin import Admin
from raftkv.client.blocking import BlockingClient
from raftkv.client.client import Client
from raftkv.client.dial import Dial
from raftkv.client.methods import UnknownMethod
from raftkv.client.options import ClientOptions
from raftkv.client.reads import Read, StaleRead

__all__ = ["Admin", "BlockingClient", "Client", "ClientOptions", "Dial", "Read", "StaleRead", "UnknownMethod"]
