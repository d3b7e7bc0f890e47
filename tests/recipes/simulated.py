"""Runs faces of recipes on a machine in memory, in virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Generic, TypeVar

from raftkv import BlockingClient, LocalMachine, Server, StateMachine, TimedOut, Unavailable
from raftkv.testing.world.loop import SimLoop

M = TypeVar("M", bound=StateMachine)


class MemoryClient(Generic[M]):
    """As a `Client`, as far as recipes use it. Several may be of one machine."""

    def __init__(self, machine: type[M], local: LocalMachine[M] | None = None) -> None:
        self.machine = machine
        self.local = LocalMachine(machine) if local is None else local
        self.start_ms = self.local.now_ms
        self.is_closed = False
        self.is_cut = False
        """Nothing arrives."""
        self.silence_s = 0.0
        """How long a call takes until that is known."""
        self.answer_s = 0.0
        """How long an answer is on its way."""

    def another(self) -> MemoryClient[M]:
        """Another process's client."""
        found = MemoryClient(self.machine, self.local)
        found.start_ms = self.start_ms
        return found

    def within(self, deadline_s: float) -> MemoryClient[M]:
        """Deadlines are never met here."""
        return self

    def pass_time(self) -> None:
        """Let the machine's time be that of the loop."""
        now_ms = self.start_ms + round(asyncio.get_running_loop().time() * 1000)
        self.local.advance((now_ms - self.local.now_ms) / 1000)

    async def call(self, method: Any, *args: Any) -> Any:
        """Call it now, and let others run."""
        await asyncio.sleep(0.001)
        if self.is_cut:
            await asyncio.sleep(self.silence_s)
            raise Unavailable("cut off")
        self.pass_time()
        result = self.local.call(method, *args)
        await asyncio.sleep(self.answer_s)
        return result

    def ends_s(self, name: str, token: int) -> float:
        """When a lock's hold ends, by the loop's time."""
        instance: Any = self.local._runner.instance
        return float(instance.held.ttl((name, token)) + (instance.now_ms - self.start_ms) / 1000)

    async def poll(self, query: Any, *args: Any, unlike: object, timeout_s: float) -> Any:
        """Asks again and again, which costs nothing here."""
        end = asyncio.get_running_loop().time() + timeout_s
        while (result := await self.call(query, *args)) == unlike:
            if asyncio.get_running_loop().time() >= end:
                raise TimedOut("it is as it was")
            await asyncio.sleep(0.01)
        return result


def run_story(story: Callable[[], Awaitable[None]]) -> None:
    """Run it to its end; nothing may fail behind its back."""
    loop = SimLoop()

    async def main() -> None:
        await story()

    loop.run(main())
    assert loop.failures == []


def run_in_thread(machine: type[M], directory: Path, story: Callable[[BlockingClient[M]], None]) -> None:
    """Run it in a thread, with a client of a real node."""

    def in_thread(address: str) -> None:
        with BlockingClient(machine, [address]) as client:
            story(client)

    async def main() -> None:
        async with Server(machine, data_dir=directory) as server:
            await asyncio.to_thread(in_thread, server.address)

    asyncio.run(main())
