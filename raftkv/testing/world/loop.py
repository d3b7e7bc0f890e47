"""An asyncio event loop whose time is virtual: it jumps to the next timer, and nothing ever waits."""

from __future__ import annotations

import asyncio
import heapq
from asyncio import base_events
from collections import deque
from collections.abc import Callable, Coroutine
from contextvars import Context, ContextVar, copy_context
from typing import Any, TypeVar, TypeVarTuple

import msgspec

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


PROCESS: ContextVar[object] = ContextVar("raftkv_process", default=None)
"""Whose callbacks and timers these are; every context inherits it from the one that it was made in."""


class Deadlock(RuntimeError):
    """Nothing is due any more in this world, and `main` has not ended."""


async def elapse(seconds: float) -> None:
    """Let virtual time pass. Only on a `SimLoop`: on any other loop this would be a real wait."""
    assert isinstance(asyncio.get_running_loop(), SimLoop), "time passes by itself here: wait for a condition instead"
    await asyncio.sleep(seconds)


RESOLUTION_S = 1e-9
"""Times that are nearer to each other than this are the same."""


class Timer(msgspec.Struct):
    """A callback and its time. It has only what asyncio needs of a handle, because millions are made."""

    at: float
    callback: Callable[..., object]
    args: tuple[Any, ...]
    context: Context
    is_cancelled: bool = False

    def cancel(self) -> None:
        """Don't call it any more. It stays in the queue until its time has come."""
        self.is_cancelled = True
        self.callback, self.args = _nothing, ()

    def cancelled(self) -> bool:
        return self.is_cancelled

    def when(self) -> float:
        return self.at


def _nothing() -> None:
    """The callback of a cancelled timer."""


class SimLoop(base_events.BaseEventLoop):
    """A real asyncio loop (tasks, futures, timers) in virtual time, without threads, sockets or signals.

    Callbacks run in the order in which they became due, ties in the order in which they were made, so
    a program that draws its randomness from a seed runs the same way every time.
    """

    _ready: deque[Timer]
    _scheduled: list[tuple[float, int, Timer]]
    _stopping: bool

    def __init__(self) -> None:
        super().__init__()
        self._now = 0.0
        self._selector = None
        self._made = 0  # timers so far: of two for the same time, the one that was made first is first
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
        """Let time pass without running anything, as when the whole machine is stopped."""
        self._now += max(0.0, seconds)

    def freeze(self, process: object) -> None:
        """Stop `process` until `thaw`: its callbacks and timers pile up."""
        self._frozen.setdefault(process, [])

    def thaw(self, process: object) -> None:
        """Let `process` go on: all callbacks that it has missed run at once, in the order in which they were due."""
        self._ready.extend(self._frozen.pop(process, []))

    def call_soon(self, callback: Callable[..., object], *args: Any, context: Context | None = None) -> Timer:  # type: ignore[override]
        """Call it in the next turn."""
        call = Timer(self._now, callback, args, copy_context() if context is None else context)
        self._ready.append(call)
        return call

    def call_at(  # type: ignore[override]
        self, when: float, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> Timer:
        """Call it in the turn in which `when` has come."""
        call = Timer(when, callback, args, copy_context() if context is None else context)
        self._made += 1
        heapq.heappush(self._scheduled, (when, self._made, call))
        return call

    def call_later(  # type: ignore[override]
        self, delay: float, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> Timer:
        """Call it when `delay` seconds have passed."""
        when = self._now + delay
        call = Timer(when, callback, args, copy_context() if context is None else context)
        self._made += 1
        heapq.heappush(self._scheduled, (when, self._made, call))
        return call

    def _run_once(self) -> None:
        """Turns as `asyncio` does them, without asking an operating system for what there can't be."""
        ready, scheduled, frozen = self._ready, self._scheduled, self._frozen
        while True:
            if not ready and not self._stopping:
                while scheduled and scheduled[0][2].is_cancelled:
                    heapq.heappop(scheduled)
                if not scheduled:
                    raise Deadlock("every task waits for another, and no timer is set")
                if scheduled[0][0] > self._now:
                    self._now = scheduled[0][0]
            due = self._now + RESOLUTION_S
            while scheduled and scheduled[0][0] < due:
                ready.append(heapq.heappop(scheduled)[2])
            for _ in range(len(ready)):
                call = ready.popleft()
                if call.is_cancelled:
                    continue
                if frozen and (held := frozen.get(call.context.get(PROCESS))) is not None:
                    held.append(call)
                    continue
                try:
                    call.context.run(call.callback, *call.args)
                except (SystemExit, KeyboardInterrupt):
                    raise
                except BaseException as exc:  # noqa: BLE001 (it belongs to whoever looks at `failures`)
                    self.call_exception_handler({"message": f"Exception in {call!r}", "exception": exc})
            if self.observer is not None:
                self.observer()
            if self._stopping:
                return

    def _process_events(self, event_list: list[Any]) -> None:
        """Does nothing: there is no selector with events."""

    def _write_to_self(self) -> None:
        """Does nothing: there is no other thread that could have to wake the loop."""

    def run_in_executor(self, executor: Any, func: Callable[[*Ts], T], *args: *Ts) -> asyncio.Future[T]:
        """Raises, because threads would leave the order of events to chance."""
        raise RuntimeError("a simulated world has no threads: give the work to a Worker")

    def run(self, main: Coroutine[Any, Any, T]) -> T:
        """Run `main` to its end, then cancel what is left, in frozen processes too, and close the loop."""
        asyncio.set_event_loop(self)
        try:
            return self.run_until_complete(main)
        finally:
            for process in list(self._frozen):
                self.thaw(process)  # else its tasks never hear that they are cancelled, and the others go on for ever
            left = [task for task in asyncio.all_tasks(self) if not task.done()]
            for task in left:
                task.cancel()
            if left:
                self.run_until_complete(asyncio.gather(*left, return_exceptions=True))
            asyncio.set_event_loop(None)
            self.close()
