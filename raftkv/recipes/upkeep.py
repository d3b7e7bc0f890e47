"""`Upkeep`: keeps something up that the cluster gives for a time, and says as soon as that is not sure any more.

It is *sure* until `ttl_s` after the last request that renewed it was sent, by this process's own clock: the nodes count
from when they got it, which is later. When that time comes without another answer, or a node says that it is lost,
`lost` is set at once. `is_sure` looks at the clock itself: right after a pause it knows what no task has had the time
to say. Clocks of other speeds, or a leader's that leaps, are beyond that: tokens are not (see `Turns`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from raftkv.errors import RaftKVError, Rejected

RENEWED_AT = 3
"""So many times within its time it is renewed: two may fail."""


class Upkeep:
    """Renews something in a task of its own. It may be started again when it was stopped."""

    def __init__(self, ttl_s: float, renew: Callable[[], Awaitable[object]], refused: type[Rejected]) -> None:
        """`renew` raises `refused` when it is lost; what else it raises is borne as long as there is time."""
        self.lost = asyncio.Event()
        """Set when it is not sure any more, though nobody has ended it."""
        self._ttl_s = ttl_s
        self._renew = renew
        self._refused = refused
        self._sure_until = 0.0
        self._task: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._when_lost: list[Callable[[], None]] = []

    def on_lost(self, callback: Callable[[], None]) -> None:
        """Have `callback` called on the client's loop when it is lost."""
        self._when_lost.append(callback)

    @staticmethod
    def now() -> float:
        """The time by which it goes."""
        return asyncio.get_running_loop().time()

    @property
    def is_sure(self) -> bool:
        """Whether it is there, as far as this process can know."""
        return not self.lost.is_set() and self.now() < self._sure_until

    def start(self, asked_at: float) -> None:
        """Keep up what was asked for then."""
        self._renewed(asked_at)
        self._task = asyncio.get_running_loop().create_task(self._keep_up())

    def _renewed(self, asked_at: float) -> None:
        self._sure_until = asked_at + self._ttl_s
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_at(self._sure_until, self.lose)

    async def _keep_up(self) -> None:
        try:
            await self._renew_again_and_again()
        except asyncio.CancelledError:
            if self._task is not None:  # not by `stop`: the loop ends, or the client, and nobody renews it any more
                self.lose()
            raise

    async def _renew_again_and_again(self) -> None:
        pause_s = self._ttl_s / RENEWED_AT
        while not self.lost.is_set():
            await asyncio.sleep(pause_s)
            asked_at = self.now()
            try:
                await self._renew()
            except self._refused:
                self.lose()
            except RaftKVError:
                pause_s = self._ttl_s / RENEWED_AT / 10  # the timer ends it when it is not sure any more
            else:
                pause_s = self._ttl_s / RENEWED_AT
                if not self.lost.is_set():
                    self._renewed(asked_at)

    def lose(self) -> None:
        """It is not sure any more."""
        if self.lost.is_set():
            return
        self.lost.set()
        self.stop()
        for callback in self._when_lost:
            callback()

    def stop(self) -> None:
        """Keep it up no longer."""
        for each in (self._task, self._timer):
            if each is not None and each is not asyncio.current_task():
                each.cancel()
        self._task = self._timer = None
