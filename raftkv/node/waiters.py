"""Who waits for something about a node to become true."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeAlias

from raftkv.errors import NodeStopped, Unavailable
from raftkv.node.body import Body

Until: TypeAlias = Callable[[Callable[[], bool], float, str], Awaitable[None]]
"""Waits for a condition, for so many seconds, and says what it was; raises `Unavailable` (`Waiters.until`)."""


class Waiters:
    """Conditions that are looked at every tick, each with who waits for it."""

    def __init__(self, body: Body) -> None:
        self._body = body
        self._waiting: list[tuple[Callable[[], bool], asyncio.Future[None]]] = []
        self._looks = 0

    async def until(self, condition: Callable[[], bool], deadline_s: float, what: str) -> None:
        """Wait until `condition` holds. Raises `Unavailable` after `deadline_s` seconds, and what stops the node."""
        if condition():
            return
        if self._body.failure is not None:
            raise self._body.failure
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((condition, future))
        try:
            await asyncio.wait_for(future, deadline_s)
        except TimeoutError:
            raise Unavailable(f"{what}: not within {deadline_s:g} s") from None

    async def next_tick(self) -> None:
        """Wait until conditions are looked at the next time."""
        looks = self._looks
        await self.until(lambda: self._looks > looks, 60, "no tick")

    def look(self) -> None:
        """Wake those whose condition holds now, and everybody when the node has ended."""
        self._looks += 1
        if not self._waiting:
            return
        body = self._body
        waiting, self._waiting = self._waiting, []
        for condition, future in waiting:
            if future.done():
                continue
            if body.has_ended:
                future.set_exception(body.failure or NodeStopped("the node was asked to stop"))
            elif condition():
                future.set_result(None)
            else:
                self._waiting.append((condition, future))
