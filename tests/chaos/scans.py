"""Very many callers who read everything, and very many deleted keys before what they look for, beside the load."""

from __future__ import annotations

import random
from statistics import fmean

from raftkv.kv import Delete, KeyValueClient, Operation, Put
from tests.chaos.fault import RealFault
from tests.chaos.generators import Readers
from tests.chaos.readers import PREFIX, PagesRead
from tests.chaos.slowness import CROWDED, running, slowness
from tests.chaos.stage import ChaosStage

BATCH = 250
CALLERS = 32
PAGES_MIN = 50
"""Answered pages until it counts."""


class Scanned(RealFault):
    """Callers page through rows and deleted rows, some of them at one index. None of it may depose the leader.

    On a machine that others use too it may be deposed for want of a core, which shows nothing about reads.
    """

    kind = "scans of everything"
    rows = "F79"

    def __init__(self, dice: random.Random) -> None:
        self._batches = dice.randint(8, 40)
        self._kept = dice.choice([0.0, 0.1, 0.5])
        """The part of rows that is not deleted again."""
        self._readers: Readers | None = None
        self._term = 0
        self._crowd: list[float] = []
        self.told = PagesRead()

    async def inject(self, stage: ChaosStage) -> None:
        addresses = stage.cluster.addresses
        async with KeyValueClient(addresses, deadline_s=60) as kv:
            for batch in range(self._batches):
                keys = [PREFIX + b"%08d" % number for number in range(batch * BATCH, (batch + 1) * BATCH)]
                await kv.transact([], [Put(key, b"x" * 64) for key in keys])
                deleted: list[Operation] = [Delete(key) for key in keys[int(len(keys) * self._kept) :]]
                await kv.transact([], deleted)
        self._term = await self._term_of(stage)
        self._readers = readers = await Readers.start(addresses, CALLERS)

        async def have_read() -> bool | None:
            self._crowd.append(running())
            self.told = await readers.read()
            return self.told.pages >= PAGES_MIN or None

        await stage.until(have_read, f"{PAGES_MIN} pages for {CALLERS} callers")
        stage.met(self.kind)

    async def _term_of(self, stage: ChaosStage) -> int:
        status = await stage.status((await stage.leader()).node_id)
        assert status is not None, "the leader does not answer"
        return status.term

    async def heal(self, stage: ChaosStage) -> None:
        if self._readers is None:
            return
        await self._readers.vanish()
        stage.note(f"{self.told.pages} pages, {self.told.refused} refusals")
        is_deposed = await self._term_of(stage) != self._term
        if max(slowness(), fmean(self._crowd) / CROWDED) > 1:
            stage.note(f"the machine is shared: that the leader was deposed is {is_deposed}, and not judged")
        else:
            assert not is_deposed, "the leader was deposed while everybody read"

    def describe(self) -> str:
        return f"{self.kind}: {CALLERS} callers, {self._batches * BATCH} rows, {self._kept:.0%} of them left"
