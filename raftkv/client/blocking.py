"""The client for code without asyncio: the same calls, blocking, from any number of threads."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import CancelledError, Future
from types import TracebackType
from typing import Any, TypeVar

from raftkv.client.calls import BlockingCalls, BlockingPath
from raftkv.client.client import Client
from raftkv.client.options import ClientOptions
from raftkv.client.reads import Read, StaleRead
from raftkv.client.remote import BlockingRemote
from raftkv.client.waiting import Wait
from raftkv.client.watching import BlockingWatch, BlockingWatches
from raftkv.errors import Unavailable
from raftkv.forks import leave, let_go_of_loop, tell_of_fork
from raftkv.history import Cursor
from raftkv.machine import Method, Source, StateMachine

M = TypeVar("M", bound=StateMachine)
T = TypeVar("T")

FINISH_S = 0.2
"""For the coroutines of calls that have their results; they have nothing to wait for."""


class BlockingClient(BlockingCalls[M], BlockingWatches):
    """A `Client` that runs on its own event loop, in its own thread.

    ```python
    with BlockingClient(Inventory, ["127.0.0.1:7001"]) as inventory:
        inventory.receive("apple", 3)
    ```

    Arguments, results and errors are those of `Client`. Calls of different threads share the connections. In a child
    made by fork (`multiprocessing`, a pre-forking server) it begins anew, with its own thread, connections and session;
    the parent's are not disturbed.
    """

    def __init__(self, machine: type[M], addresses: Sequence[str], **settings: Any) -> None:
        """`settings` are those of `Client`. Raises as `Client` does."""
        self._client = Client(machine, addresses, **settings)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()
        self._closed = False
        self.remote: BlockingRemote[M] = BlockingRemote(self)
        """The machine's methods."""
        tell_of_fork(self)

    def after_fork(self) -> None:
        """In a child there is no thread, and a lock that was held at the fork is never released: make new ones."""
        if self._loop is not None:
            let_go_of_loop(self._loop)
            leave(self._loop, self._thread)
        self._loop = self._thread = None
        self._lock = threading.Lock()

    @property
    def machine(self) -> type[M]:
        return self._client.machine

    @property
    def options(self) -> ClientOptions:
        return self._client.options

    def __enter__(self) -> BlockingRemote[M]:
        return self.remote

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _submit(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        """Begin `work` on the loop; the first call starts the thread."""
        # The lock keeps this before the work that `close` begins, which ends all that came earlier.
        with self._lock:
            if self._closed:
                work.close()
                raise Unavailable("the client is closed")
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                # A daemon thread, so that a program can end without closing its client.
                self._thread = threading.Thread(target=_serve, args=(self._loop,), name="raftkv-client", daemon=True)
                self._thread.start()
            return asyncio.run_coroutine_threadsafe(work, self._loop)

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine of the client on its loop and wait for it."""
        future = self._submit(work)
        try:
            return future.result()
        except CancelledError:
            raise Unavailable("the client was closed") from None  # by another thread, as the caller's waits here
        except BaseException:
            future.cancel()  # KeyboardInterrupt: nobody waits any more
            raise

    def _way(self) -> tuple[BlockingPath, float]:
        return self, self.options.deadline_s

    def method(self, asked: object) -> Method:
        """The command or query of this name, or whose function this is; raises `UnknownMethod`."""
        return self._client.method(asked)

    @property
    def inner(self) -> Client[M]:
        """The client that does the work, for coroutines that `run` runs."""
        return self._client

    @property
    def methods(self) -> dict[str, Method]:
        return self._client.methods

    def invoke(self, method: Method, args: tuple[Any, ...], kwargs: dict[str, Any], deadline_s: float) -> Any:
        """Call a command or query; the methods of `remote` end here."""
        return self.run(self._client.invoke(method, args, kwargs, deadline_s))

    def invoke_read(
        self, method: Method, args: tuple[Any, ...], kwargs: dict[str, Any], deadline_s: float
    ) -> Read[Any]:
        """Ask a linearizable query; returns its result and the index it was read at."""
        return self.run(self._client.invoke_read(method, args, kwargs, deadline_s))

    def invoke_stale(
        self, method: Method, args: tuple[Any, ...], kwargs: dict[str, Any], deadline_s: float
    ) -> StaleRead[Any]:
        """Ask any node a stale query."""
        return self.run(self._client.invoke_stale(method, args, kwargs, deadline_s))

    def invoke_wait(
        self,
        method: Method,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        until: Callable[[Any], object],
        timeout_s: float,
    ) -> Any:
        """Ask a query until `until`, which is called on this thread, holds for its result."""
        wait = self.run(self._begin_wait(method, args, kwargs, timeout_s))
        while not until(result := self.run(wait.next())):
            pass
        return result

    def _blocking_watch(self, source: Source, after: Cursor | None, wanted: dict[str, Any]) -> BlockingWatch[Any, Any]:
        return BlockingWatch(self._client._pages_of(source, after, wanted), self.run)

    async def _begin_wait(
        self, method: Method, args: tuple[Any, ...], kwargs: dict[str, Any], timeout_s: float
    ) -> Wait:
        return self._client.wait(method, args, kwargs, timeout_s)

    def close(self) -> None:
        """Close the session and the connections, and end the thread. Calls that still wait fail."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            loop, thread = self._loop, self._thread
        if loop is None or thread is None:
            return
        asyncio.run_coroutine_threadsafe(self._client.close(), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()


def _serve(loop: asyncio.AbstractEventLoop) -> None:
    asyncio.set_event_loop(loop)
    try:
        loop.run_forever()
    finally:
        loop.run_until_complete(_let_end())
        loop.close()


async def _let_end() -> None:
    """All calls have their errors by now: let their coroutines finish. What else runs on the loop, as what keeps up a
    lock, would wait for its next time, so it is cancelled."""
    left = asyncio.all_tasks() - {asyncio.current_task()}
    if left:
        _, waiting = await asyncio.wait(left, timeout=FINISH_S)
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
