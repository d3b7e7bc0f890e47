"""The key-value machine at one index: everything, page by page, as it was at that moment."""

from __future__ import annotations

from collections.abc import AsyncIterator, Coroutine, Iterator
from types import TracebackType
from typing import Any, TypeVar, cast

from raftkv.client import BlockingClient, Client
from raftkv.client.view import View
from raftkv.kv.machine import KeyValue
from raftkv.kv.model import Item, Page, check_bound, check_key, check_page
from raftkv.model import Index

T = TypeVar("T")


class KeyValueView:
    """What `KeyValueClient.at_one_index` gives: reads that all see the state at `index`.

    They raise `ViewExpired` when the node holds it no more: after a change of leaders, a restart, half a minute without
    a read or very many writes. Then whatever was read is to be read again, from another view.
    """

    def __init__(self, client: Client[KeyValue]) -> None:
        self._client = client
        self._view: View | None = None

    async def __aenter__(self) -> KeyValueView:
        self._view = await self._client.open_view()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._opened.close()

    @property
    def _opened(self) -> View:
        if self._view is None:
            raise RuntimeError("a view is used as a context manager: async with kv.at_one_index() as view")
        return self._view

    @property
    def index(self) -> Index:
        """The log index that it stands for."""
        return self._opened.index

    async def _ask(self, name: str, deadline_s: float | None, *args: Any) -> Any:
        client = self._client
        seconds = client.options.deadline_s if deadline_s is None else deadline_s
        return await self._opened.invoke(client.method(name), args, {}, seconds)

    async def get(self, key: bytes, *, deadline_s: float | None = None) -> Item | None:
        """The item at `key`, or None."""
        check_key(key)
        return cast("Item | None", await self._ask("get", deadline_s, key))

    async def range(
        self,
        start: bytes = b"",
        end: bytes | None = None,
        *,
        limit: int = 100,
        reverse: bool = False,
        deadline_s: float | None = None,
    ) -> Page:
        """As `KeyValueClient.range`; all pages are of one state."""
        check_bound(start)
        check_bound(end)
        check_page(limit)
        return cast(Page, await self._ask("range", deadline_s, start, end, limit, reverse))

    async def items(
        self, start: bytes = b"", end: bytes | None = None, *, page: int = 500, deadline_s: float | None = None
    ) -> AsyncIterator[Item]:
        """All items of a range, as they were at `index`."""
        following: bytes | None = start
        while following is not None:
            found = await self.range(following, end, limit=page, deadline_s=deadline_s)
            for item in found.items:
                yield item
            following = found.next


class BlockingKeyValueView:
    """The same for `BlockingKeyValueClient`."""

    def __init__(self, client: BlockingClient[KeyValue]) -> None:
        self._client = client
        self._view = KeyValueView(client.inner)

    def __enter__(self) -> BlockingKeyValueView:
        self._run(self._view.__aenter__())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._run(self._view.__aexit__(kind, error, trace))

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        return self._client.run(work)

    @property
    def index(self) -> Index:
        """The log index that it stands for."""
        return self._view.index

    def get(self, key: bytes, *, deadline_s: float | None = None) -> Item | None:
        """The item at `key`, or None."""
        return self._run(self._view.get(key, deadline_s=deadline_s))

    def range(
        self,
        start: bytes = b"",
        end: bytes | None = None,
        *,
        limit: int = 100,
        reverse: bool = False,
        deadline_s: float | None = None,
    ) -> Page:
        """As `BlockingKeyValueClient.range`; all pages are of one state."""
        return self._run(self._view.range(start, end, limit=limit, reverse=reverse, deadline_s=deadline_s))

    def items(
        self, start: bytes = b"", end: bytes | None = None, *, page: int = 500, deadline_s: float | None = None
    ) -> Iterator[Item]:
        """All items of a range, as they were at `index`."""
        following: bytes | None = start
        while following is not None:
            found = self.range(following, end, limit=page, deadline_s=deadline_s)
            yield from found.items
            following = found.next
