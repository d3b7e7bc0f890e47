"""What a node needs of the world besides files, state and network: threads and clocks."""

from __future__ import annotations

import asyncio
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, ParamSpec, TypeVar

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
    """One thread of its own: a slow disk delays only what waits for it."""

    def __init__(self, name: str) -> None:
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix=name)

    def run(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> asyncio.Future[T]:
        loop = asyncio.get_running_loop()
        if kwargs:
            return loop.run_in_executor(self._executor, lambda: work(*args, **kwargs))
        return loop.run_in_executor(self._executor, work, *args)

    async def close(self) -> None:
        await asyncio.get_running_loop().run_in_executor(None, self._executor.shutdown)


def wall_clock_ms() -> int:
    """Milliseconds since the epoch: what a leader stamps its entries with."""
    return time.time_ns() // 1_000_000


def error_of(future: asyncio.Future[Any]) -> BaseException | None:
    """What finished work raised; None also when it was cancelled. Asking is what makes it heard, so ask first."""
    return None if future.cancelled() else future.exception()
