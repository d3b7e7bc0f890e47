"""Views of the key-value machine: reads that all see the state at one index."""

from __future__ import annotations

from types import TracebackType
from typing import TypeVar, cast

from raftkv.client import BlockingClient, Client
from raftkv.client.view import View
from raftkv.kv.faces import AwaitedReads, BlockingReads, KeyValueRequest
from raftkv.kv.machine import KeyValue
from raftkv.model import Index

T = TypeVar("T")


class KeyValueView(AwaitedReads):
    """What `KeyValueClient.at_one_index` gives: reads that all see the state at `index`.

    Reads raise `ViewExpired` when the node has dropped the view: after a change of leaders, a restart, half a minute
    without a read, or very many writes. Then open another view, and read everything again.
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

    async def _perform(self, request: KeyValueRequest[T]) -> T:
        client = self._client
        seconds = client.options.deadline_s if request.deadline_s is None else request.deadline_s
        return cast(T, await self._opened.invoke(client.method(request.name), request.args, {}, seconds))


class BlockingKeyValueView(BlockingReads):
    """What `BlockingKeyValueClient.at_one_index` gives; see `KeyValueView`."""

    def __init__(self, client: BlockingClient[KeyValue]) -> None:
        self._client = client
        self._view = KeyValueView(client.inner)

    def __enter__(self) -> BlockingKeyValueView:
        self._client.run(self._view.__aenter__())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._client.run(self._view.__aexit__(kind, error, trace))

    @property
    def index(self) -> Index:
        """The log index that it stands for."""
        return self._view.index

    def _perform(self, request: KeyValueRequest[T]) -> T:
        return self._client.run(self._view._perform(request))
