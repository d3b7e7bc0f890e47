"""When those who wait have waited for long enough: one timer for all whose time is over at about the same moment."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable
from itertools import islice
from typing import Generic, TypeVar

STEP_S = 0.01
"""Those whose time is over within so long end together, at its end."""
OVER_AT_ONCE = 64
"""Of those, so many in one turn of the loop: ten thousand may have begun to wait at the same moment."""

W = TypeVar("W", bound=Hashable)


class Deadlines(Generic[W]):
    """Calls `over` with each one whose time is over, in the order in which they began to wait.

    Invariant: there is a timer for each step in which somebody's time is over, and no other.
    """

    def __init__(self, over: Callable[[W], None]) -> None:
        """`over` must not raise."""
        self._over = over
        self._loop = asyncio.get_running_loop()
        self._steps: dict[int, dict[W, None]] = {}
        self._timers: dict[int, asyncio.Handle] = {}

    def add(self, waiting: W, wait_s: float) -> int:
        """Let `waiting` wait for so long; returns what `drop` needs. `over` is not called before this returns."""
        step = int((self._loop.time() + wait_s) / STEP_S) + 1
        same = self._steps.get(step)
        if same is None:
            same = self._steps[step] = {}
            self._timers[step] = self._loop.call_at(step * STEP_S, self._end, step)
        same[waiting] = None
        return step

    def drop(self, waiting: W, step: int) -> None:
        """It waits no longer. Nothing happens when its time is over."""
        same = self._steps.get(step)
        if same is None or waiting not in same:
            return
        del same[waiting]
        if not same:
            del self._steps[step]
            self._timers.pop(step).cancel()

    def _end(self, step: int) -> None:
        same = self._steps[step]
        for waiting in list(islice(same, OVER_AT_ONCE)):
            if waiting in same:  # nobody has dropped it in the meantime
                self._over(waiting)
                self.drop(waiting, step)
        if same:
            self._timers[step] = self._loop.call_soon(self._end, step)
