"""Writers that write without a pause, and the ledger of their acknowledged writes."""

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
    """All writes that were acknowledged, and all whose outcome is unknown.

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
        """How many writes were acknowledged, of keys and of counters."""
        return len(self.acknowledged) + sum(self.increments)

    @property
    def unknown_count(self) -> int:
        return len(self.unknown) + sum(self.unknown_increments)

    def note(self, started: float) -> None:
        """Note that a write was acknowledged that was sent at `started`."""
        self.newest_started = max(self.newest_started, started)
        self._news.set()

    async def acknowledged_after(self, moment: float) -> float:
        """Wait until a write is acknowledged that was sent after `moment`; returns when that was."""
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
    """Tasks that share one client. Each sends its next write as soon as the last one is answered."""

    def __init__(self, addresses: Sequence[str], ledger: Ledger, *, value_bytes: int, deadline_s: float) -> None:
        self._client = KeyValueClient(addresses, options=ClientOptions(deadline_s=deadline_s))
        self._ledger = ledger
        self._value_bytes = value_bytes
        self._stopping = False
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Start one writer for each counter of the ledger."""
        loop = asyncio.get_running_loop()
        self._tasks = [loop.create_task(self._run(number)) for number in range(len(self._ledger.increments))]

    async def stop(self) -> None:
        """Let each writer finish its present write, then close the session. Raises a failed writer's error."""
        self._stopping = True
        try:
            await asyncio.gather(*self._tasks)
        finally:
            await self._client.close()

    async def cancel(self) -> None:
        """End all writers at once."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._client.close()

    def check(self) -> None:
        """Raises the error of a writer that has failed, if there is one."""
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
    """The key of a writer's counter, which does not begin with `PREFIX`."""
    return b"demo-counter/%02d" % number
