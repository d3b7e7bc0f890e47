"""Clients that remember what they were told, and look for it afterwards: nothing lost, nothing applied twice.

Each worker counts in a session of its own and writes keys of its own. At the end every acknowledged write must be
there, and every counter must be what its worker was told, or more by the commands whose outcome nobody knows.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence

from raftkv.errors import Indeterminate, NotAccepted, SessionExpired
from raftkv.kv import KeyValueClient

DEADLINE_S = 15.0


class Witness:
    """Workers in a thread of their own, from `start` to `stop`."""

    def __init__(self, addresses: Sequence[str], workers: int = 4, pause_s: float = 0.02) -> None:
        self._addresses = list(addresses)
        self._workers = workers
        self._pause_s = pause_s
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.counts = [0] * workers
        self.unknown = [0] * workers
        self.refused = 0
        self.written: dict[bytes, bytes] = {}

    def start(self) -> None:
        """Begin to write."""
        self._thread.start()

    def stop(self) -> list[str]:
        """End, and look for everything; returns what is missing or wrong."""
        self._stopping.set()
        self._thread.join()
        return asyncio.run(self._verify())

    def _run(self) -> None:
        async def work() -> None:
            await asyncio.gather(*[self._work(number) for number in range(self._workers)])

        asyncio.run(work())

    async def _work(self, number: int) -> None:
        step = 0
        async with KeyValueClient(self._addresses, deadline_s=DEADLINE_S) as kv:
            while not self._stopping.is_set():
                step += 1
                key, value = b"w%d-%d" % (number, step), b"%d" % step * 20
                try:
                    await kv.put(key, value)
                    self.written[key] = value
                    self.counts[number] = max(self.counts[number], await kv.increment(b"count-%d" % number))
                except (Indeterminate, SessionExpired):
                    self.unknown[number] += 1
                except NotAccepted:
                    self.refused += 1
                await asyncio.sleep(self._pause_s)

    async def _verify(self) -> list[str]:
        problems = []
        async with KeyValueClient(self._addresses, deadline_s=2 * DEADLINE_S) as kv:
            for key, value in self.written.items():
                item = await kv.get(key)
                if item is None or item.value != value:
                    problems.append(f"{key!r} was acknowledged and is {item}")
            for number, count in enumerate(self.counts):
                item = await kv.get(b"count-%d" % number)
                found = int(item.value) if item is not None else 0
                if not count <= found <= count + self.unknown[number]:
                    problems.append(
                        f"counter {number} is {found}: {count} acknowledged, {self.unknown[number]} unknown"
                    )
        return problems
