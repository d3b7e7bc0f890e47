"""The key-value machine's clients: limits checked before anything is sent, results typed."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from types import TracebackType
from typing import Any, cast

from raftkv.client import BlockingClient, Client, StaleRead
from raftkv.kv.machine import KeyValue
from raftkv.kv.model import (
    Condition,
    Item,
    Operation,
    Page,
    Stamp,
    TransactionResult,
    check_bound,
    check_increment,
    check_key,
    check_page,
    check_transaction,
    check_value,
)
from raftkv.kv.views import BlockingKeyValueView, KeyValueView
from raftkv.machine import prefix_end


class KeyValueClient:
    """A client of `KeyValue` for asyncio.

    ```python
    async with KeyValueClient(["127.0.0.1:7001"]) as kv:
        await kv.put(b"apple", b"3")
    ```

    Settings and errors are those of `Client`; a key, value, page or transaction that is too large
    raises `LimitExceeded`. Each call may have a deadline of its own, in seconds. What a command
    returned is durable on a majority of the nodes.
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

    async def _call(self, name: str, deadline_s: float | None, *args: Any) -> Any:
        client = self._client
        seconds = client.options.deadline_s if deadline_s is None else deadline_s
        return await client.invoke(client.method(name), args, {}, seconds)

    async def _stale(self, name: str, deadline_s: float | None, *args: Any) -> StaleRead[Any]:
        client = self._client
        seconds = client.options.deadline_s if deadline_s is None else deadline_s
        return await client.invoke_stale(client.method(name), args, {}, seconds)

    # ------------------------------------------------------------------------------ commands

    async def put(self, key: bytes, value: bytes, *, deadline_s: float | None = None) -> Stamp:
        """Set `key`; returns its new stamp."""
        check_key(key)
        check_value(value)
        return cast(Stamp, await self._call("put", deadline_s, key, value))

    async def delete(self, key: bytes, *, deadline_s: float | None = None) -> bool:
        """Delete `key`; returns whether it was there."""
        check_key(key)
        return cast(bool, await self._call("delete", deadline_s, key))

    async def compare_and_set(
        self, key: bytes, expected: bytes | None, value: bytes | None, *, deadline_s: float | None = None
    ) -> bool:
        """Set `key` to `value` if it is `expected`; None stands for "not there". Returns whether it was done."""
        check_key(key)
        if value is not None:
            check_value(value)
        return cast(bool, await self._call("compare_and_set", deadline_s, key, expected, value))

    async def increment(self, key: bytes, by: int = 1, *, deadline_s: float | None = None) -> int:
        """Add to the counter at `key`, which starts at 0; returns its new value."""
        check_key(key)
        check_increment(by)
        return cast(int, await self._call("increment", deadline_s, key, by))

    async def transact(
        self,
        conditions: Sequence[Condition],
        then: Sequence[Operation],
        otherwise: Sequence[Operation] = (),
        *,
        deadline_s: float | None = None,
    ) -> TransactionResult:
        """Do `then` if all `conditions` hold, else `otherwise`; all of it or nothing."""
        check_transaction(conditions, then, otherwise)
        args = (list(conditions), list(then), list(otherwise))
        return cast(TransactionResult, await self._call("transact", deadline_s, *args))

    # ------------------------------------------------------------------------------ queries

    async def get(self, key: bytes, *, deadline_s: float | None = None) -> Item | None:
        """The item at `key`, or None; linearizable."""
        check_key(key)
        return cast("Item | None", await self._call("get", deadline_s, key))

    async def get_stale(self, key: bytes, *, deadline_s: float | None = None) -> StaleRead[Item | None]:
        """The item at `key` at some earlier index, from any node."""
        check_key(key)
        return await self._stale("get", deadline_s, key)

    async def range(
        self,
        start: bytes = b"",
        end: bytes | None = None,
        *,
        limit: int = 100,
        reverse: bool = False,
        deadline_s: float | None = None,
    ) -> Page:
        """Items with `start` ≤ key < `end`, up to `limit`, from the end when `reverse`; linearizable.

        A page may hold fewer, even none, when there was too much to read: all is there only when `next` is None.
        """
        check_bound(start)
        check_bound(end)
        check_page(limit)
        return cast(Page, await self._call("range", deadline_s, start, end, limit, reverse))

    async def range_stale(
        self,
        start: bytes = b"",
        end: bytes | None = None,
        *,
        limit: int = 100,
        reverse: bool = False,
        deadline_s: float | None = None,
    ) -> StaleRead[Page]:
        """The same at some earlier index, from any node."""
        check_bound(start)
        check_bound(end)
        check_page(limit)
        return await self._stale("range", deadline_s, start, end, limit, reverse)

    def at_one_index(self) -> KeyValueView:
        """Reads that all see the state at one index: `async with kv.at_one_index() as view`."""
        return KeyValueView(self._client)

    async def prefix(
        self,
        prefix: bytes,
        *,
        after: bytes | None = None,
        limit: int = 100,
        deadline_s: float | None = None,
    ) -> Page:
        """Items whose keys begin with `prefix`; `after` is the `next` of the page before."""
        start = prefix if after is None else after
        return await self.range(start, prefix_end(prefix), limit=limit, deadline_s=deadline_s)

    async def items(
        self, start: bytes = b"", end: bytes | None = None, *, page: int = 500, deadline_s: float | None = None
    ) -> AsyncIterator[Item]:
        """All items of a range. Each page is read at an index of its own; see `at_one_index` for others."""
        following: bytes | None = start
        while following is not None:
            found = await self.range(following, end, limit=page, deadline_s=deadline_s)
            for item in found.items:
                yield item
            following = found.next


class BlockingKeyValueClient:
    """A client of `KeyValue` for code without asyncio, usable from any number of threads.

    ```python
    with BlockingKeyValueClient(["127.0.0.1:7001"]) as kv:
        kv.put(b"apple", b"3")
    ```

    Settings and errors are those of `BlockingClient`; a key, value, page or transaction that is too large
    raises `LimitExceeded`. Each call may have a deadline of its own, in seconds. What a command
    returned is durable on a majority of the nodes.
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

    def _call(self, name: str, deadline_s: float | None, *args: Any) -> Any:
        client = self._client
        seconds = client.options.deadline_s if deadline_s is None else deadline_s
        return client.invoke(client.method(name), args, {}, seconds)

    def _stale(self, name: str, deadline_s: float | None, *args: Any) -> StaleRead[Any]:
        client = self._client
        seconds = client.options.deadline_s if deadline_s is None else deadline_s
        return client.invoke_stale(client.method(name), args, {}, seconds)

    # ------------------------------------------------------------------------------ commands

    def put(self, key: bytes, value: bytes, *, deadline_s: float | None = None) -> Stamp:
        """Set `key`; returns its new stamp."""
        check_key(key)
        check_value(value)
        return cast(Stamp, self._call("put", deadline_s, key, value))

    def delete(self, key: bytes, *, deadline_s: float | None = None) -> bool:
        """Delete `key`; returns whether it was there."""
        check_key(key)
        return cast(bool, self._call("delete", deadline_s, key))

    def compare_and_set(
        self, key: bytes, expected: bytes | None, value: bytes | None, *, deadline_s: float | None = None
    ) -> bool:
        """Set `key` to `value` if it is `expected`; None stands for "not there". Returns whether it was done."""
        check_key(key)
        if value is not None:
            check_value(value)
        return cast(bool, self._call("compare_and_set", deadline_s, key, expected, value))

    def increment(self, key: bytes, by: int = 1, *, deadline_s: float | None = None) -> int:
        """Add to the counter at `key`, which starts at 0; returns its new value."""
        check_key(key)
        check_increment(by)
        return cast(int, self._call("increment", deadline_s, key, by))

    def transact(
        self,
        conditions: Sequence[Condition],
        then: Sequence[Operation],
        otherwise: Sequence[Operation] = (),
        *,
        deadline_s: float | None = None,
    ) -> TransactionResult:
        """Do `then` if all `conditions` hold, else `otherwise`; all of it or nothing."""
        check_transaction(conditions, then, otherwise)
        args = (list(conditions), list(then), list(otherwise))
        return cast(TransactionResult, self._call("transact", deadline_s, *args))

    # ------------------------------------------------------------------------------ queries

    def get(self, key: bytes, *, deadline_s: float | None = None) -> Item | None:
        """The item at `key`, or None; linearizable."""
        check_key(key)
        return cast("Item | None", self._call("get", deadline_s, key))

    def get_stale(self, key: bytes, *, deadline_s: float | None = None) -> StaleRead[Item | None]:
        """The item at `key` at some earlier index, from any node."""
        check_key(key)
        return self._stale("get", deadline_s, key)

    def range(
        self,
        start: bytes = b"",
        end: bytes | None = None,
        *,
        limit: int = 100,
        reverse: bool = False,
        deadline_s: float | None = None,
    ) -> Page:
        """Items with `start` ≤ key < `end`, up to `limit`, from the end when `reverse`; linearizable.

        A page may hold fewer, even none, when there was too much to read: all is there only when `next` is None.
        """
        check_bound(start)
        check_bound(end)
        check_page(limit)
        return cast(Page, self._call("range", deadline_s, start, end, limit, reverse))

    def range_stale(
        self,
        start: bytes = b"",
        end: bytes | None = None,
        *,
        limit: int = 100,
        reverse: bool = False,
        deadline_s: float | None = None,
    ) -> StaleRead[Page]:
        """The same at some earlier index, from any node."""
        check_bound(start)
        check_bound(end)
        check_page(limit)
        return self._stale("range", deadline_s, start, end, limit, reverse)

    def at_one_index(self) -> BlockingKeyValueView:
        """Reads that all see the state at one index: `with kv.at_one_index() as view`."""
        return BlockingKeyValueView(self._client)

    def prefix(
        self,
        prefix: bytes,
        *,
        after: bytes | None = None,
        limit: int = 100,
        deadline_s: float | None = None,
    ) -> Page:
        """Items whose keys begin with `prefix`; `after` is the `next` of the page before."""
        start = prefix if after is None else after
        return self.range(start, prefix_end(prefix), limit=limit, deadline_s=deadline_s)

    def items(
        self, start: bytes = b"", end: bytes | None = None, *, page: int = 500, deadline_s: float | None = None
    ) -> Iterator[Item]:
        """All items of a range. Each page is read at an index of its own; see `at_one_index` for others."""
        following: bytes | None = start
        while following is not None:
            found = self.range(following, end, limit=page, deadline_s=deadline_s)
            yield from found.items
            following = found.next
