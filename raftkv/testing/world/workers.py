"""The threads of a simulated node: they do their work on the loop, and can hang or die with the power."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

from raftkv.node import Worker
from raftkv.node.pace import QUICK_S

P = ParamSpec("P")
T = TypeVar("T")

THREADS = LOG, BACKGROUND, TRANSFERS = 0, 1, 2
"""A node's threads that work on its disk: for its log, for its state and snapshots, and for snapshots of others."""

SCANS = 3
"""The thread of queries that read much; it works on no disk of its own."""


class Crash(BaseException):
    """The power goes out in the middle of an operation on the disk."""


class SimWorker(Worker):
    """Does work on the loop, one piece after the other. Each piece takes some virtual time."""

    def __init__(self, draw_s: Callable[[], float], on_crash: Callable[[], None]) -> None:
        self._draw_s = draw_s
        self._on_crash = on_crash
        self._queue: deque[tuple[asyncio.Future[Any], Callable[[], Any]]] = deque()
        self._busy = False
        self._dead = False
        self.is_working = False
        self.stalled = False
        """While set, nothing gets done: the disk hangs."""

    def run(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> asyncio.Future[T]:
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._queue.append((future, lambda: work(*args, **kwargs)))
        self._next()
        return future

    @property
    def is_idle(self) -> bool:
        """While the disk is slow it is not: on the loop no virtual time can pass, and the node would never notice."""
        return not self._busy and not self._queue and not self.stalled and self._draw_s() <= QUICK_S

    def run_here(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> bool:
        if self._dead:
            return False
        self.is_working = True
        try:
            work(*args, **kwargs)
        except Crash:
            self._on_crash()
            return False
        finally:
            self.is_working = False
        return True

    def _next(self) -> None:
        if not self._busy and self._queue and not self._dead:
            self._busy = True
            asyncio.get_running_loop().call_later(self._draw_s(), self._do)

    def _do(self) -> None:
        if self._dead:
            return
        if self.stalled:
            asyncio.get_running_loop().call_later(0.05, self._do)
            return
        future, work = self._queue.popleft()
        self._busy = False
        self.is_working = True
        try:
            result = work()
        except Crash:
            self._on_crash()
            return
        except Exception as exc:  # noqa: BLE001 (it belongs to whoever waits for the work)
            if not future.cancelled():
                future.set_exception(exc)
        else:
            if not future.cancelled():
                future.set_result(result)
        finally:
            self.is_working = False
        self._next()

    def die(self) -> None:
        """Drop all queued work for good."""
        self._dead = True
        self._queue.clear()

    async def close(self) -> None:
        while self._queue or self._busy:
            await self.run(lambda: None)
