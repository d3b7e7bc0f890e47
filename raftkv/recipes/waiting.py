"""Waits until what a query says is another thing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from raftkv.client import Client
from raftkv.errors import Busy, TimedOut

OBSERVED_S = 10.0
"""One request of those who observe waits for so long, and then the next one."""

BUSY_PAUSE_S = 0.5
"""Before one asks again where nodes have as many who wait as they may have."""


async def until(client: Client[Any], query: Any, *args: Any, timeout_s: float, unlike: object = 0) -> Any:
    """The query's result as soon as it is another one than `unlike`; that one after `timeout_s`. Raises as a call."""
    try:
        return await client.poll(query, *args, unlike=unlike, timeout_s=timeout_s)
    except TimedOut:
        return unlike
    except Busy:
        await asyncio.sleep(min(BUSY_PAUSE_S, timeout_s))
        return await client.call(query, *args)


async def observed(client: Client[Any], query: Any, *args: Any) -> AsyncIterator[Any]:
    """What the query says, and then each other thing that it says; one that it said for a short time only may be left
    out. Raises as a call."""
    last = await client.call(query, *args)
    yield last
    while True:
        found = await until(client, query, *args, timeout_s=OBSERVED_S, unlike=last)
        if found != last:
            last = found
            yield last
