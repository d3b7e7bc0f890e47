"""Coroutines that wait for something about a node to become true."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeAlias

from raftkv.errors import NodeStopped, Unavailable
from raftkv.node.body import Body

Until: TypeAlias = Callable[[Callable[[], bool], float, str], Awaitable[None]]
"""`Waiters.until`: a condition, a deadline in seconds, and the text of the `Unavailable` that it raises then."""


class Waiters:
    """Conditions that are checked at every tick, each with the future of the coroutine that waits for it."""

    def __init__(self, body: Body) -> None:
        self._body = body
        self._waiting: list[tuple[Callable[[], bool], asyncio.Future[None]]] = []
        self._looks = 0

    async def until(self, condition: Callable[[], bool], deadline_s: float, what: str) -> None:
        """Wait until `condition` holds. Raises `Unavailable` with `what` after `deadline_s` seconds, or the error that
        has stopped the node."""
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
        """Wait until the conditions are checked the next time."""
        looks = self._looks
        await self.until(lambda: self._looks > looks, 60, "no tick")

    def look(self) -> None:
        """Wake the coroutines whose condition holds now; if the node has ended, wake all of them with an error."""
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
