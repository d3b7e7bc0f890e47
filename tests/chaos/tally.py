"""A counter of one's own beside the recorded clients: what was acknowledged, against what it is in the end."""

from __future__ import annotations

import asyncio
import ssl as tls
from collections.abc import Sequence

from raftkv.client import Client, ClientOptions
from raftkv.errors import Indeterminate, RaftKVError
from raftkv.processes.stage import POLL_S
from raftkv.worlds.workload import Workload
from tests.chaos.slowness import slowness

SERVED_S = 20.0
"""By then whoever asks has to be served again, as in every round."""

PAUSE_S = 0.02


class Tally:
    """Who counts on and on, with a client that knows what it was told, until `stop`."""

    def __init__(self, key: bytes, client: Client[Workload]) -> None:
        self.key = key
        self._client = client
        self._numbers: list[int] = []
        self._unknown = 0
        self._served_at = asyncio.get_running_loop().time()
        self._pause_s = 0.0
        self._stopping = False
        self._task = asyncio.ensure_future(self._count())

    async def _count(self) -> None:
        while not self._stopping:
            try:
                self._numbers.append(await self._client.call("increment", self.key))
                self._pause_s, self._served_at = self.pause_s, asyncio.get_running_loop().time()
            except Indeterminate:
                self._unknown += 1
            except RaftKVError:
                pass  # certainly not done
            await asyncio.sleep(PAUSE_S)

    async def more(self, count: int, within_s: float = SERVED_S) -> None:
        """Wait until so many more were acknowledged, longer on a slow machine. Raises `AssertionError`."""
        loop, within_s = asyncio.get_running_loop(), within_s * slowness()
        wanted, end = len(self._numbers) + count, loop.time() + within_s
        while len(self._numbers) < wanted:
            if self._task.done():
                self._task.result()  # what went wrong in it
            assert loop.time() < end, f"{self.key!r}: {count} more were not counted within {within_s:.0f} s"
            await asyncio.sleep(POLL_S)

    @property
    def reached(self) -> int:
        """How far it has counted, as far as it was told."""
        return max(self._numbers, default=0)

    @property
    def pause_s(self) -> float:
        """How long it was not served for at most, up to now."""
        return max(self._pause_s, asyncio.get_running_loop().time() - self._served_at)

    def forget_pauses(self) -> None:
        """From now on only later pauses count."""
        self._pause_s, self._served_at = 0.0, asyncio.get_running_loop().time()

    @property
    def unknown(self) -> int:
        """How many of its increments nobody knows the end of."""
        return self._unknown

    async def end(self) -> None:
        """Count no more, and wait for the end of what is under way."""
        self._stopping = True
        await self._task

    async def close(self) -> None:
        """Count no more, whatever comes of what is under way."""
        self._task.cancel()
        await asyncio.wait([self._task])
        await self._client.close()

    async def stop(self, addresses: Sequence[str], ssl: tls.SSLContext | None = None) -> None:
        """End, and compare with what the nodes at `addresses` say. Raises `AssertionError`."""
        await self.end()
        check(self.key, self._numbers, self._unknown, await counted(self.key, addresses, ssl))


async def counted(key: bytes, addresses: Sequence[str], ssl: tls.SSLContext | None = None) -> int:
    """What the counter is now."""
    client = Client(Workload, addresses, options=ClientOptions(deadline_s=SERVED_S), ssl=ssl)
    try:
        item = await client.call("get", key)
        return int(item.value) if item is not None else 0
    finally:
        await client.close()


def check(key: bytes, numbers: Sequence[int], unknown: int, value: int) -> None:
    """Every acknowledged number came once, and nothing was lost or done twice. Raises `AssertionError`."""
    assert len(set(numbers)) == len(numbers), f"{key!r} was counted to the same number twice: {sorted(numbers)}"
    assert len(numbers) <= value <= len(numbers) + unknown, (
        f"{key!r} is {value}, though {len(numbers)} increments were acknowledged and {unknown} are unknown"
    )
    assert max(numbers, default=0) <= value, f"{key!r} is {value}, but somebody has counted to {max(numbers)}"
