"""The client for code without asyncio: the same calls, blocking, from any number of threads."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine, Sequence
from concurrent.futures import Future
from types import TracebackType
from typing import Any, Generic, TypeVar

from raftkv.client.client import Client
from raftkv.client.options import ClientOptions
from raftkv.client.reads import StaleRead
from raftkv.client.remote import BlockingRemote
from raftkv.errors import Unavailable
from raftkv.forks import leave, let_go_of_loop, tell_of_fork
from raftkv.machine import Method, StateMachine

M = TypeVar("M", bound=StateMachine)
T = TypeVar("T")


class BlockingClient(Generic[M]):
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
        except BaseException:
            future.cancel()  # KeyboardInterrupt: nobody waits any more
            raise

    def method(self, name: str) -> Method:
        """The command or query of this name; raises `UnknownMethod`."""
        return self._client.method(name)

    @property
    def inner(self) -> Client[M]:
        """The client that does the work, for coroutines that `run` runs."""
        return self._client

    @property
    def methods(self) -> dict[str, Method]:
        return self._client.methods

    def call(self, name: str, /, *args: Any, **kwargs: Any) -> Any:
        """Call a command or query by name, with the default deadline."""
        return self.run(self._client.call(name, *args, **kwargs))

    def invoke(self, method: Method, args: tuple[Any, ...], kwargs: dict[str, Any], deadline_s: float) -> Any:
        """Call a command or query; the methods of `remote` end here."""
        return self.run(self._client.invoke(method, args, kwargs, deadline_s))

    def invoke_stale(
        self, method: Method, args: tuple[Any, ...], kwargs: dict[str, Any], deadline_s: float
    ) -> StaleRead[Any]:
        """Ask any node a stale query."""
        return self.run(self._client.invoke_stale(method, args, kwargs, deadline_s))

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
        # All calls have their errors by now; let their coroutines finish.
        left = asyncio.all_tasks(loop)
        if left:
            loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
        loop.close()
