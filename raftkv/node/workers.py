"""Threads and clocks, as a node uses them: the interfaces, and the real ones."""

from __future__ import annotations

import asyncio
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, ParamSpec, TypeVar

from raftkv.errors import RaftKVError

_MONOTONIC = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)

P = ParamSpec("P")
T = TypeVar("T")


class Worker(ABC):
    """Runs blocking calls one after the other, in the order in which they were given."""

    @abstractmethod
    def run(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> asyncio.Future[T]:
        """Run `work` after everything given before; the future gets its result or exception.

        Called on the event loop's thread. The work itself must not touch the loop, or what belongs to it.
        """

    @property
    def is_idle(self) -> bool:
        """Whether all that was given is done, and `run_here` may be called: never for a kind that does not say."""
        return False

    def run_here(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> bool:
        """Run `work` on the caller's thread, the event loop's; only while this worker `is_idle`.

        Raises what it raises. Returns whether it was done: in a simulation the power may go out in the midst of it, and
        then nothing may follow.
        """
        assert self.is_idle, f"{self} has work under way, or does none but its own"
        work(*args, **kwargs)
        return True

    @abstractmethod
    async def close(self) -> None:
        """Wait for the work that was given, and take no more."""


class ThreadWorker(Worker):
    """A worker with one thread of its own, so that a slow disk delays only the work that waits for it.

    An executor links its futures to the loop's by three callbacks and two locks, which is half of the cost of handing
    over a small write. This thread sets the loop's futures directly.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._work: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._given = self._done = 0
        self._closed = False

    def run(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> asyncio.Future[T]:
        if self._closed:
            raise RuntimeError(f"the worker {self._name} is closed")
        if self._thread is None:
            # A daemon thread: a process that ends without closing its workers must not hang. To the disk it is a crash.
            self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
            self._thread.start()
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        self._given += 1
        self._work.put(lambda: _perform(loop, future, work, args, kwargs))
        return future

    def _run(self) -> None:
        while (work := self._work.get()) is not None:
            work()
            del work  # or its result would live until the next piece comes
            self._done += 1  # by this thread only; `_given` by the loop's

    @property
    def is_idle(self) -> bool:
        return self._done == self._given

    async def close(self) -> None:
        self._closed = True
        self._work.put(None)
        if self._thread is not None:
            await asyncio.get_running_loop().run_in_executor(None, self._thread.join)


def _perform(
    loop: asyncio.AbstractEventLoop,
    future: asyncio.Future[T],
    work: Callable[..., T],
    args: tuple[object, ...],
    kwargs: dict[str, object],
) -> None:
    """On the worker's thread: work, and tell the loop."""
    try:
        result = work(*args, **kwargs)
    except BaseException as exc:  # noqa: BLE001 (whoever waits for the future is told)
        _tell(loop, _fail, future, exc)
    else:
        _tell(loop, _succeed, future, result)


def _tell(loop: asyncio.AbstractEventLoop, tell: Callable[..., None], *args: object) -> None:
    try:
        loop.call_soon_threadsafe(tell, *args)
    except RuntimeError:
        if not loop.is_closed():
            raise  # else there is nobody left to tell


def settle(future: asyncio.Future[T], result: T | RaftKVError) -> None:
    """Give a result, or an error in its place, to whoever waits for it; nothing happens when nobody does any more."""
    if isinstance(result, RaftKVError):
        _fail(future, result)
    else:
        _succeed(future, result)


def _succeed(future: asyncio.Future[T], result: T) -> None:
    if not future.done():
        future.set_result(result)


def _fail(future: asyncio.Future[T], error: BaseException) -> None:
    if not future.done():
        future.set_exception(error)


def monotonic_clock_ms() -> int:
    """Milliseconds of a clock that can't be set. If the system has one, it goes on while the machine sleeps."""
    return time.clock_gettime_ns(_MONOTONIC) // 1_000_000


def wall_clock_ms() -> int:
    """Milliseconds since the epoch, from the system's clock, which may be wrong."""
    return time.time_ns() // 1_000_000


def error_of(future: asyncio.Future[Any]) -> BaseException | None:
    """The exception of finished work; None if there is none, or if the work was cancelled.

    Call this before anything else: asyncio warns of an exception that was never asked for.
    """
    return None if future.cancelled() else future.exception()
