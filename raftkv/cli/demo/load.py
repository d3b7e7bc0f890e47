"""Writers that never rest, and the ledger of what was acknowledged to them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from raftkv.client import ClientOptions
from raftkv.errors import Indeterminate, NotAccepted, SessionExpired
from raftkv.kv import KeyValueClient

PREFIX = b"demo/"
COUNTER_EVERY = 10
"""Every so many writes a counter is incremented: what is applied twice shows in no other way."""


class Ledger:
    """Every write that was acknowledged, and every one whose outcome nobody knows.

    Invariant: a key is written once, so it is in at most one of `acknowledged` and `unknown`.
    """

    def __init__(self, writers: int) -> None:
        self.acknowledged: dict[bytes, bytes] = {}
        self.unknown: dict[bytes, bytes] = {}
        self.increments = [0] * writers
        self.unknown_increments = [0] * writers
        self.refused = 0
        """Certainly not done, so not in question."""
        self.newest_started = 0.0
        """When the request was sent that was acknowledged and sent last, in the loop's time."""
        self._news = asyncio.Event()

    @property
    def count(self) -> int:
        """Acknowledged writes of both kinds."""
        return len(self.acknowledged) + sum(self.increments)

    @property
    def unknown_count(self) -> int:
        return len(self.unknown) + sum(self.unknown_increments)

    def note(self, started: float) -> None:
        """Something that was sent at `started` was acknowledged."""
        self.newest_started = max(self.newest_started, started)
        self._news.set()

    async def acknowledged_after(self, moment: float) -> float:
        """Wait until something is acknowledged that was sent after `moment`; returns the time of it."""
        while self.newest_started <= moment:
            self._news.clear()
            await self._news.wait()
        return asyncio.get_running_loop().time()

    async def reach(self, count: int) -> None:
        """Wait until `count` writes are acknowledged."""
        while self.count < count:
            self._news.clear()
            await self._news.wait()


class Writers:
    """Tasks that write through one client, each its next write as soon as the one before is answered."""

    def __init__(self, addresses: Sequence[str], ledger: Ledger, *, value_bytes: int, deadline_s: float) -> None:
        self._client = KeyValueClient(addresses, options=ClientOptions(deadline_s=deadline_s))
        self._ledger = ledger
        self._value_bytes = value_bytes
        self._stopping = False
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Begin; there are as many writers as the ledger has counters."""
        loop = asyncio.get_running_loop()
        self._tasks = [loop.create_task(self._run(number)) for number in range(len(self._ledger.increments))]

    async def stop(self) -> None:
        """Let each finish the write it is at, then close the session. Raises what a writer failed with."""
        self._stopping = True
        try:
            await asyncio.gather(*self._tasks)
        finally:
            await self._client.close()

    async def cancel(self) -> None:
        """End at once; what was under way is of no interest any more."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._client.close()

    def check(self) -> None:
        """Raises what a writer failed with, if one has."""
        for task in self._tasks:
            if task.done():
                task.result()

    async def _run(self, number: int) -> None:
        loop = asyncio.get_running_loop()
        turn = 0
        while not self._stopping:
            turn += 1
            started = loop.time()
            if turn % COUNTER_EVERY == 0:
                await self._increment(number)
            else:
                await self._put(number, turn)
            self._ledger.note(started)

    async def _put(self, number: int, turn: int) -> None:
        ledger, key = self._ledger, PREFIX + b"%02d/%08d" % (number, turn)
        value = (key * (self._value_bytes // len(key) + 1))[: self._value_bytes]
        try:
            await self._client.put(key, value)
        except NotAccepted:
            ledger.refused += 1
        except (Indeterminate, SessionExpired):
            ledger.unknown[key] = value
        else:
            ledger.acknowledged[key] = value

    async def _increment(self, number: int) -> None:
        ledger = self._ledger
        try:
            await self._client.increment(counter_key(number))
        except NotAccepted:
            ledger.refused += 1
        except (Indeterminate, SessionExpired):
            ledger.unknown_increments[number] += 1
        else:
            ledger.increments[number] += 1


def counter_key(number: int) -> bytes:
    """The key of a writer's counter; outside of `PREFIX`."""
    return b"demo-counter/%02d" % number
