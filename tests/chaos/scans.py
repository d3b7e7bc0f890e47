"""Very many callers who read everything, and very many deleted keys before what they look for, beside the load."""

from __future__ import annotations

import asyncio
import random

from raftkv.errors import Busy, NotAccepted, TooMuchWork, ViewExpired
from raftkv.kv import Delete, KeyValueClient, Operation, Put
from tests.chaos.fault import RealFault
from tests.chaos.stage import ChaosStage

BATCH = 250
CALLERS = 32
PAGES_MIN = 50
"""Answered pages until it counts."""


class Scanned(RealFault):
    """Callers page through rows and deleted rows, some of them at one index. None of it may depose the leader."""

    kind = "scans of everything"
    rows = "F79"

    def __init__(self, dice: random.Random) -> None:
        self._batches = dice.randint(8, 40)
        self._kept = dice.choice([0.0, 0.1, 0.5])
        """The part of rows that is not deleted again."""
        self._scans: list[asyncio.Task[None]] = []
        self._term = 0
        self.pages = 0
        self.refused = 0

    async def inject(self, stage: ChaosStage) -> None:
        addresses = stage.cluster.addresses
        async with KeyValueClient(addresses, deadline_s=60) as kv:
            for batch in range(self._batches):
                keys = [b"scanned/%08d" % number for number in range(batch * BATCH, (batch + 1) * BATCH)]
                await kv.transact([], [Put(key, b"x" * 64) for key in keys])
                deleted: list[Operation] = [Delete(key) for key in keys[int(len(keys) * self._kept) :]]
                await kv.transact([], deleted)
        self._term = await self._term_of(stage)
        self._scans = [asyncio.ensure_future(self._scan(addresses, number % 4 == 0)) for number in range(CALLERS)]
        await stage.until(self._have_read, f"{PAGES_MIN} pages for {CALLERS} callers")
        stage.met(self.kind)

    async def _have_read(self) -> bool | None:
        for scan in self._scans:
            if scan.done():
                scan.result()  # it ends only with an error that no client should see
        return self.pages >= PAGES_MIN or None

    async def _term_of(self, stage: ChaosStage) -> int:
        status = await stage.status((await stage.leader()).node_id)
        assert status is not None, "the leader does not answer"
        return status.term

    async def _scan(self, addresses: list[str], at_one_index: bool) -> None:
        """Page after page, until it is cancelled."""
        async with KeyValueClient(addresses, deadline_s=20) as kv:
            while True:
                try:
                    if at_one_index:
                        async with kv.at_one_index() as view:
                            async for _ in view.items(b"scanned/", page=1000):
                                pass
                        self.pages += 1
                        continue
                    start: bytes | None = b"scanned/"
                    while start is not None:
                        start = (await kv.range(start, None, limit=1000)).next
                        self.pages += 1
                except (Busy, NotAccepted, TooMuchWork, ViewExpired):
                    self.refused += 1

    async def heal(self, stage: ChaosStage) -> None:
        for scan in self._scans:
            scan.cancel()
        await asyncio.gather(*self._scans, return_exceptions=True)
        if self._term:
            stage.note(f"{self.pages} pages, {self.refused} refusals")
            assert await self._term_of(stage) == self._term, "the leader was deposed while everybody read"

    def describe(self) -> str:
        return f"{self.kind}: {CALLERS} callers, {self._batches * BATCH} rows, {self._kept:.0%} of them left"
