"""An asyncio event loop whose time is virtual: it jumps to the next timer, and nothing ever waits."""

from __future__ import annotations

import asyncio
import heapq
from asyncio import base_events
from collections import deque
from collections.abc import Callable, Coroutine
from contextvars import ContextVar
from typing import Any, TypeVar, TypeVarTuple

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


PROCESS: ContextVar[object] = ContextVar("raftkv_process", default=None)
"""Whose callbacks and timers these are; every context inherits it from the one that it was made in."""


class Deadlock(RuntimeError):
    """Nothing can ever happen again in this world."""


async def elapse(seconds: float) -> None:
    """Let virtual time pass. Only on a `SimLoop`: on any other loop this would be a real wait."""
    assert isinstance(asyncio.get_running_loop(), SimLoop), "time passes by itself here: wait for a condition instead"
    await asyncio.sleep(seconds)


class SimLoop(base_events.BaseEventLoop):
    """A real asyncio loop (tasks, futures, timers) in virtual time, without threads, sockets or signals.

    Callbacks run in the order in which they became due, ties in the order in which they were made, so
    a program that draws its randomness from a seed runs the same way every time.
    """

    _ready: deque[Any]
    _scheduled: list[Any]
    _stopping: bool

    def __init__(self) -> None:
        super().__init__()
        self._now = 0.0
        self._selector = None
        self._clock_resolution = 1e-9
        self._frozen: dict[object, list[Any]] = {}
        self.failures: list[dict[str, Any]] = []
        """What tasks and callbacks raised with nobody to catch it."""
        self.observer: Callable[[], None] | None = None
        """Called after each turn in which something was done; it must change nothing."""
        self.set_exception_handler(lambda _loop, context: self.failures.append(context))

    def time(self) -> float:
        """Virtual seconds since the loop was made."""
        return self._now

    def advance(self, seconds: float) -> None:
        """Let time pass in which nobody does anything, as when the whole machine is stopped."""
        self._now += max(0.0, seconds)

    def freeze(self, process: object) -> None:
        """Run nothing of `process` until `thaw`: its callbacks and timers pile up, as of a process that is stopped."""
        self._frozen.setdefault(process, [])

    def thaw(self, process: object) -> None:
        """Let `process` go on: it does at once all that it has missed, in the order in which it was due."""
        self._ready.extend(self._frozen.pop(process, []))

    def _run_once(self) -> None:
        """One turn, as `asyncio` does it, without asking an operating system for what there can't be."""
        ready, scheduled = self._ready, self._scheduled
        while scheduled and scheduled[0]._cancelled:
            heapq.heappop(scheduled)._scheduled = False
        if not ready and not self._stopping:
            if not scheduled:
                raise Deadlock("every task waits for another, and no timer is set")
            self._now = max(self._now, scheduled[0]._when)
        due = self._now + self._clock_resolution
        while scheduled and scheduled[0]._when < due:
            handle = heapq.heappop(scheduled)
            handle._scheduled = False
            ready.append(handle)
        for _ in range(len(ready)):
            handle = ready.popleft()
            if handle._cancelled:
                continue
            if self._frozen and (held := self._frozen.get(handle._context.get(PROCESS))) is not None:
                held.append(handle)
            else:
                handle._run()
        if self.observer is not None:
            self.observer()

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        """It is dropped when its time has come."""

    def _process_events(self, event_list: list[Any]) -> None:
        """There are none."""

    def _write_to_self(self) -> None:
        """Nobody else's thread could be waiting to be woken."""

    def run_in_executor(self, executor: Any, func: Callable[[*Ts], T], *args: *Ts) -> asyncio.Future[T]:
        """Threads would make the order of things a matter of chance, so there are none here."""
        raise RuntimeError("a simulated world has no threads: give the work to a Worker")

    def run(self, main: Coroutine[Any, Any, T]) -> T:
        """Run `main` to its end, then cancel what is left and close the loop."""
        asyncio.set_event_loop(self)
        try:
            return self.run_until_complete(main)
        finally:
            left = [task for task in asyncio.all_tasks(self) if not task.done()]
            for task in left:
                task.cancel()
            if left:
                self.run_until_complete(asyncio.gather(*left, return_exceptions=True))
            asyncio.set_event_loop(None)
            self.close()
