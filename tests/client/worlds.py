"""Runs a client against scripted servers in virtual time."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from typing import Any

from raftkv.client import Client, ClientOptions
from raftkv.kv import KeyValue
from raftkv.testing.world.loop import SimLoop
from tests.client.cluster import FakeCluster


def run_world(story: Callable[[FakeCluster, Client[KeyValue]], Awaitable[None]], **settings: Any) -> None:
    """Tell `story` with a fresh cluster and client; nothing may fail behind its back."""
    loop = SimLoop()

    async def main() -> None:
        cluster = FakeCluster()
        client = make_client(cluster, **settings)
        try:
            await story(cluster, client)
        finally:
            await client.close()

    loop.run(main())
    assert loop.failures == []


def make_client(cluster: FakeCluster, **settings: Any) -> Client[KeyValue]:
    """A client of all the cluster's addresses; `settings` are fields of `ClientOptions`."""
    options = ClientOptions(**settings)
    return Client(KeyValue, cluster.addresses, options=options, dial=cluster.network.dial, chance=random.Random(1))
