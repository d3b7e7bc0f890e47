"""The core's ticks. They follow the clock, even when the event loop is late."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from raftkv.node.body import Body


class Ticks:
    """Counts ticks from `begin` on: by a timer, and by `count` for a caller that needs the time right now."""

    def __init__(self, body: Body, tick: Callable[[int], None], ticked: Callable[[], None]) -> None:
        """`tick` gets the number of ticks that have passed; `ticked` is called each time that the timer has fired."""
        self._body = body
        self._tick = tick
        self._ticked = ticked
        self._tick_s = body.config.tick_ms / 1000
        self._counted_to = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def begin(self) -> None:
        """Count from now on."""
        self._counted_to = asyncio.get_running_loop().time()
        self._look()

    def stop(self) -> None:
        """Count no more."""
        if self._timer is not None:
            self._timer.cancel()

    def _look(self) -> None:
        if self._body.has_ended:
            return
        self.count()
        self._timer = asyncio.get_running_loop().call_at(self._counted_to + self._tick_s, self._look)
        self._ticked()

    def count(self) -> None:
        """Count the ticks that have passed; after a long pause, no more than an election time-out has."""
        passed = asyncio.get_running_loop().time() - self._counted_to
        due = int(passed / self._tick_s + 1e-6)  # a timer may fire too early by a rounding error
        if due > 0:
            self._counted_to += due * self._tick_s
            self._tick(min(due, self._body.raft.config.election_ticks))
