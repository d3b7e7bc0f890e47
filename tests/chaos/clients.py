"""Recorded clients at a stage: they work all the time, and what they saw is judged at the end."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from raftkv.client import Client, ClientOptions
from raftkv.processes.stage import POLL_S
from raftkv.testing.judging.history import History
from raftkv.worlds.workload import Clients, Workload
from tests.chaos.slowness import slowness
from tests.chaos.stage import DEADLINE_S

MACHINE = ("--machine", "raftkv.worlds.workload:Workload")
"""What nodes have to run."""


class Contradiction(AssertionError):
    """What clients saw can't be true of one machine: something was lost, applied twice, or read too old."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("\n".join(problems))
        self.count = len(problems)


class RecordedClients:
    """Clients that write down what they asked and heard, until `stop`."""

    def __init__(self, addresses: Sequence[str], seed: int) -> None:
        self._history = History()
        self._addresses = addresses
        self._clients = Clients(seed, self._history)
        self.undecided = 0
        """Keys of which it was not found out whether their history is linearizable: after `stop`."""

    @property
    def operations(self) -> int:
        """How many are in the histories: all but those that were certainly not done."""
        return len(self._history.operations)

    @property
    def unknown(self) -> int:
        """Of how many nobody knows whether they were done."""
        return self._clients.unknown

    @property
    def answered(self) -> int:
        """How many ended with a result."""
        return sum(operation.returned < math.inf for operation in self._history.operations)

    async def more(self, count: int, within_s: float = DEADLINE_S) -> None:
        """Wait until so many more have ended with a result, longer on a slow machine. Raises `AssertionError`."""
        loop, within_s = asyncio.get_running_loop(), within_s * slowness()
        wanted, end = self.answered + count, loop.time() + within_s
        while self.answered < wanted:
            assert loop.time() < end, f"{count} more operations: not within {within_s:.0f} s"
            await asyncio.sleep(POLL_S)

    async def run(self, count: int) -> None:
        """So many clients, until `stop`. Raises `AssertionError` for an end that no client should see."""
        # Who gives up a handshake that others are slow with, and begins another one, makes them slower still.
        options = ClientOptions(connect_timeout_s=slowness())
        clients = [Client(Workload, self._addresses, options=options) for _ in range(count)]
        await asyncio.gather(*[self._clients.act(client, number) for number, client in enumerate(clients)])

    async def stop(self, running: asyncio.Task[None]) -> None:
        """Let them end. Raises `Contradiction` with what the three checkers say against it, if they do."""
        self._clients.stopping = True
        await asyncio.wait_for(running, DEADLINE_S * slowness())
        client = Client(Workload, self._addresses)
        try:
            findings = self._clients.judge(await self._clients.read_lists(client))
        finally:
            await client.close()
        self.undecided = findings.undecided
        if findings.problems:
            raise Contradiction(findings.problems)


@asynccontextmanager
async def recorded(addresses: Sequence[str], *, clients: int = 6, seed: int = 1) -> AsyncIterator[RecordedClients]:
    """Recorded clients while something is done to a cluster, judged at the end."""
    found = RecordedClients(addresses, seed)
    running = asyncio.ensure_future(found.run(clients))
    try:
        yield found
        await found.stop(running)
    finally:
        running.cancel()
