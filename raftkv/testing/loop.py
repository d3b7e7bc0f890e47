"""An asyncio event loop whose time is virtual: it jumps to the next timer, and nothing ever waits."""

from __future__ import annotations

import asyncio
from asyncio import base_events
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar, TypeVarTuple

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


class _NoSelector:
    """Stands where an event loop asks the operating system to wait; waiting is adding to a number."""

    def __init__(self, loop: SimLoop) -> None:
        self._loop = loop

    def select(self, timeout: float | None) -> list[Any]:
        if timeout is None:
            raise Deadlock("every task waits for another, and no timer is set")
        self._loop.advance(timeout)
        return []

    def close(self) -> None:
        """Nothing is open."""


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

    def __init__(self) -> None:
        super().__init__()
        self._now = 0.0
        self._selector = _NoSelector(self)
        self._clock_resolution = 1e-9
        self.failures: list[dict[str, Any]] = []
        """What tasks and callbacks raised with nobody to catch it."""
        self.observer: Callable[[], None] | None = None
        """Called after each turn in which something was done; it must change nothing."""
        self.set_exception_handler(lambda _loop, context: self.failures.append(context))

    def time(self) -> float:
        """Virtual seconds since the loop was made."""
        return self._now

    def advance(self, seconds: float) -> None:
        self._now += max(0.0, seconds)

    def _run_once(self) -> None:
        super()._run_once()  # type: ignore[misc]
        if self.observer is not None:
            self.observer()

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
