"""Queries over very many deleted keys, on real processes: nobody is deposed, each answer is an honest one (F79)."""

from __future__ import annotations

import asyncio
from pathlib import Path

from raftkv.client import Admin
from raftkv.errors import Busy, NotAccepted, TooMuchWork
from raftkv.kv import BlockingKeyValueClient, Delete, KeyValueClient, Operation, Put
from tests.forked import ForkedCluster

ROWS = 20_000
BATCH = 250
CALLERS = 8


async def fill(kv: KeyValueClient, *, deletes: bool) -> None:
    """Put so many rows, or delete them."""

    async def batch(first: int) -> None:
        keys = [b"row/%06d" % number for number in range(first, first + BATCH)]
        operations: list[Operation] = [Delete(key) if deletes else Put(key, b"x") for key in keys]
        await kv.transact([], operations)

    for start in range(0, ROWS, 8 * BATCH):
        await asyncio.gather(*(batch(first) for first in range(start, start + 8 * BATCH, BATCH)))


async def term(addresses: list[str]) -> int:
    """The leader's."""
    async with Admin(addresses) as admin:
        return int((await admin.status())["term"])


async def look(addresses: list[str], looks: int) -> tuple[int, int]:
    """Look for the first row that lives, page after page if need be: how often it was found, and typed ends."""
    found = ends = 0
    async with KeyValueClient(addresses, deadline_s=20) as kv:
        for _ in range(looks):
            start: bytes | None = b"row/"
            try:
                while start is not None:
                    page = await kv.range(start, None, limit=1)
                    start = None if page.items else page.next
                assert [item.key for item in page.items] == [b"row/last"]
                found += 1
            except (Busy, NotAccepted, TooMuchWork):
                ends += 1
    return found, ends


def test_very_many_deleted_keys_and_eight_callers_depose_nobody(tmp_path: Path) -> None:
    """F79: each caller finds the one row that lives behind them, or hears why not; writes go on, in the same term. Then
    everything is read at one index, by a client without a loop."""

    async def story(addresses: list[str]) -> None:
        async with KeyValueClient(addresses, deadline_s=30) as kv:
            await fill(kv, deletes=False)
            await kv.put(b"row/last", b"lives")
            await fill(kv, deletes=True)
            before = await term(addresses)
            looking = asyncio.gather(*(look(addresses, 3) for _ in range(CALLERS)))
            written = 0
            while not looking.done():
                await kv.put(b"written", b"%d" % written)
                written += 1
            results = await looking
            assert written > 0
            assert sum(found for found, _ in results) > 0
            assert sum(found + ends for found, ends in results) == 3 * CALLERS
            assert await term(addresses) == before

    with ForkedCluster(tmp_path, 3) as cluster:
        cluster.start_all()
        asyncio.run(story(cluster.addresses))
        with BlockingKeyValueClient(cluster.addresses) as kv, kv.at_one_index() as view:
            kv.put(b"row/new", b"")
            assert [item.key for item in view.items(b"row/", b"row0")] == [b"row/last"]
            assert view.get(b"row/new") is None
            assert view.range(b"row/").next is None
