"""What a node needs of the world besides files, state and network: threads and clocks."""

from __future__ import annotations

import asyncio
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, ParamSpec, TypeVar

_MONOTONIC = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)

P = ParamSpec("P")
T = TypeVar("T")


class Worker(ABC):
    """Runs blocking work, one piece after the other, in the order in which it was given."""

    @abstractmethod
    def run(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> asyncio.Future[T]:
        """Begin `work` after everything given before; the future has its result or exception.

        Called on the event loop's thread. The work itself must not touch anything of the loop.
        """

    @abstractmethod
    async def close(self) -> None:
        """Wait for what was given, and take no more."""


class ThreadWorker(Worker):
    """One thread of its own: a slow disk delays only what waits for it.

    An executor's futures are chained to the loop's by three callbacks and two locks, half of what it costs to hand
    over a small write; here the thread answers the loop at once.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._work: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._closed = False

    def run(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> asyncio.Future[T]:
        if self._closed:
            raise RuntimeError(f"the worker {self._name} is closed")
        if self._thread is None:
            # A daemon: a process that ends without closing its workers ends as a crash does, and does not hang.
            self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
            self._thread.start()
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        self._work.put(lambda: _perform(loop, future, work, args, kwargs))
        return future

    def _run(self) -> None:
        while (work := self._work.get()) is not None:
            work()
            del work  # or its result would live until the next piece comes

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


def _succeed(future: asyncio.Future[T], result: T) -> None:
    if not future.done():
        future.set_result(result)


def _fail(future: asyncio.Future[T], error: BaseException) -> None:
    if not future.done():
        future.set_exception(error)


def monotonic_clock_ms() -> int:
    """Milliseconds that nobody can set; where the system can tell, those count that a machine slept, too."""
    return time.clock_gettime_ns(_MONOTONIC) // 1_000_000


def wall_clock_ms() -> int:
    """Milliseconds since the epoch: what a leader stamps its entries with."""
    return time.time_ns() // 1_000_000


def error_of(future: asyncio.Future[Any]) -> BaseException | None:
    """What finished work raised; None also when it was cancelled. Asking is what makes it heard, so ask first."""
    return None if future.cancelled() else future.exception()
