"""The key-value machine's clients: limits checked before anything is sent, results typed."""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import Any, TypeVar, cast

from raftkv.client import BlockingClient, Client, StaleRead
from raftkv.kv.faces import AwaitedReads, BlockingReads, KeyValueRequest, both, range_request
from raftkv.kv.machine import KeyValue
from raftkv.kv.model import (
    Condition,
    Item,
    Operation,
    Page,
    Stamp,
    TransactionResult,
    check_increment,
    check_key,
    check_transaction,
    check_value,
)
from raftkv.kv.views import BlockingKeyValueView, KeyValueView
from raftkv.machine import prefix_end

T = TypeVar("T")


class _Calls:
    """The calls of both clients; they have the queries of `Reads` as well."""

    @both
    def put(self, key: bytes, value: bytes, *, deadline_s: float | None = None) -> KeyValueRequest[Stamp]:
        """Set `key`; returns its new stamp."""
        check_key(key)
        check_value(value)
        return KeyValueRequest("put", (key, value), deadline_s)

    @both
    def delete(self, key: bytes, *, deadline_s: float | None = None) -> KeyValueRequest[bool]:
        """Delete `key`; returns whether it was there."""
        check_key(key)
        return KeyValueRequest("delete", (key,), deadline_s)

    @both
    def compare_and_set(
        self, key: bytes, expected: bytes | None, value: bytes | None, *, deadline_s: float | None = None
    ) -> KeyValueRequest[bool]:
        """Set `key` to `value` if it is `expected`; None stands for "not there". Returns whether it was done."""
        check_key(key)
        if value is not None:
            check_value(value)
        return KeyValueRequest("compare_and_set", (key, expected, value), deadline_s)

    @both
    def increment(self, key: bytes, by: int = 1, *, deadline_s: float | None = None) -> KeyValueRequest[int]:
        """Add to the counter at `key`, which starts at 0; returns its new value."""
        check_key(key)
        check_increment(by)
        return KeyValueRequest("increment", (key, by), deadline_s)

    @both
    def transact(
        self,
        conditions: Sequence[Condition],
        then: Sequence[Operation],
        otherwise: Sequence[Operation] = (),
        *,
        deadline_s: float | None = None,
    ) -> KeyValueRequest[TransactionResult]:
        """Do `then` if all `conditions` hold, else `otherwise`; all of it or nothing."""
        check_transaction(conditions, then, otherwise)
        return KeyValueRequest("transact", (list(conditions), list(then), list(otherwise)), deadline_s)

    @both
    def get_stale(self, key: bytes, *, deadline_s: float | None = None) -> KeyValueRequest[StaleRead[Item | None]]:
        """The item at `key` at some earlier index, from any node."""
        check_key(key)
        return KeyValueRequest("get", (key,), deadline_s, is_stale=True)

    @both
    def range_stale(
        self,
        start: bytes = b"",
        end: bytes | None = None,
        *,
        limit: int = 100,
        reverse: bool = False,
        deadline_s: float | None = None,
    ) -> KeyValueRequest[StaleRead[Page]]:
        """The same as `range` at some earlier index, from any node."""
        asked = range_request(start, end, limit, reverse, deadline_s)
        return KeyValueRequest(asked.name, asked.args, deadline_s, is_stale=True)

    @both
    def prefix(
        self, prefix: bytes, *, after: bytes | None = None, limit: int = 100, deadline_s: float | None = None
    ) -> KeyValueRequest[Page]:
        """Items whose keys begin with `prefix`; `after` is the `next` of the page before."""
        start = prefix if after is None else after
        return range_request(start, prefix_end(prefix), limit, False, deadline_s)


class KeyValueClient(_Calls, AwaitedReads):
    """A client of `KeyValue` for asyncio.

    ```python
    async with KeyValueClient(["127.0.0.1:7001"]) as kv:
        await kv.put(b"apple", b"3")
    ```

    Settings and errors are those of `Client`; a key, value, page or transaction that is too large
    raises `LimitExceeded`. Each call may have its own deadline, in seconds. When a command returns, its
    effect is durable on a majority of the nodes. Queries are linearizable, except those named `_stale`.
    """

    def __init__(self, addresses: Sequence[str], **settings: Any) -> None:
        self._client = Client(KeyValue, addresses, **settings)

    async def __aenter__(self) -> KeyValueClient:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the session and the connections."""
        await self._client.close()

    def at_one_index(self) -> KeyValueView:
        """Reads that all see the state at one index: `async with kv.at_one_index() as view`."""
        return KeyValueView(self._client)

    async def _perform(self, request: KeyValueRequest[T]) -> T:
        client = self._client
        seconds = client.options.deadline_s if request.deadline_s is None else request.deadline_s
        invoke = client.invoke_stale if request.is_stale else client.invoke
        return cast(T, await invoke(client.method(request.name), request.args, {}, seconds))


class BlockingKeyValueClient(_Calls, BlockingReads):
    """A client of `KeyValue` for code without asyncio, usable from any number of threads.

    ```python
    with BlockingKeyValueClient(["127.0.0.1:7001"]) as kv:
        kv.put(b"apple", b"3")
    ```

    Calls and errors are those of `KeyValueClient`, settings those of `BlockingClient`.
    """

    def __init__(self, addresses: Sequence[str], **settings: Any) -> None:
        self._client = BlockingClient(KeyValue, addresses, **settings)

    def __enter__(self) -> BlockingKeyValueClient:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the session and the connections."""
        self._client.close()

    def at_one_index(self) -> BlockingKeyValueView:
        """Reads that all see the state at one index: `with kv.at_one_index() as view`."""
        return BlockingKeyValueView(self._client)

    def _perform(self, request: KeyValueRequest[T]) -> T:
        client = self._client
        seconds = client.options.deadline_s if request.deadline_s is None else request.deadline_s
        invoke = client.invoke_stale if request.is_stale else client.invoke
        return cast(T, invoke(client.method(request.name), request.args, {}, seconds))
