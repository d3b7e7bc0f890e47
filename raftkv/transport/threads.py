"""Work that may hang for ever, in threads that nothing waits for: neither the loop, nor the end of the process."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class DaemonThreads(Generic[T]):
    """Runs calls, each in a thread of its own, at most `threads_max` at once; those beyond wait for their turn.

    The event loop's own executor won't do: asyncio waits for its threads when the loop ends, and a few calls that
    hang would keep everybody else's from beginning.
    """

    def __init__(self, name: str, threads_max: int) -> None:
        self._name = name
        self._threads_max = threads_max
        self._running = 0
        self._waiting: deque[tuple[Callable[[], T], asyncio.Future[T]]] = deque()

    def run(self, call: Callable[[], T]) -> asyncio.Future[T]:
        """What `call` returns or raises. To cancel the future does not stop the call; the thread ends with it."""
        done: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        # An error for which nothing waits any more must not be reported as never retrieved.
        done.add_done_callback(lambda future: future.cancelled() or future.exception())
        self._waiting.append((call, done))
        self._begin()
        return done

    def _begin(self) -> None:
        while self._waiting and self._running < self._threads_max:
            call, done = self._waiting.popleft()
            if done.done():
                continue
            self._running += 1
            args = (asyncio.get_running_loop(), call, done)
            threading.Thread(target=self._work, args=args, name=self._name, daemon=True).start()

    def _work(self, loop: asyncio.AbstractEventLoop, call: Callable[[], T], done: asyncio.Future[T]) -> None:
        result: T | Exception
        try:
            result = call()
        except Exception as exc:  # noqa: BLE001 - it is handed to the waiter
            result = exc
        try:
            loop.call_soon_threadsafe(self._end, done, result)
        except RuntimeError:  # the loop is closed, and nothing waits
            return

    def _end(self, done: asyncio.Future[T], result: T | Exception) -> None:
        self._running -= 1
        if not done.done():
            if isinstance(result, Exception):
                done.set_exception(result)
            else:
                done.set_result(result)
        self._begin()
