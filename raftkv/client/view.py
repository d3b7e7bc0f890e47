"""A client's view: the state at one index, which a node holds, so that any number of queries see the same."""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias

import msgspec

from raftkv.client.call import Answer
from raftkv.errors import InvalidArgument, RaftKVError, Rejected
from raftkv.machine import Method, as_declared
from raftkv.model import Index
from raftkv.wire import RequestKind, ViewQuery

CLOSE_DEADLINE_S = 1.0

_encoder = msgspec.msgpack.Encoder()

Ask: TypeAlias = Callable[[RequestKind, bytes, float], Awaitable[Answer]]
"""Sends a request that does no harm when it is done twice; the number is its deadline in seconds."""


class View:
    """A view that `Client.open_view` has opened. `index` is the log index of its state.

    Only the node that opened the view holds it. After a change of leaders, a restart, half a minute without a query, or
    very many writes, queries raise `ViewExpired`: then open another view, and read everything again.
    """

    def __init__(self, ask: Ask, number: int, index: Index) -> None:
        self._ask = ask
        self._number = number
        self.index = index

    async def invoke(self, method: Method, args: tuple[Any, ...], kwargs: dict[str, Any], deadline_s: float) -> Any:
        """Run a query on the view. Raises as `Client` says, and `ViewExpired`."""
        if not method.is_query:
            raise InvalidArgument(f"{method.name} is a command: a view is only read")
        query = ViewQuery(self._number, method.query_payload(method.encode_args(args, kwargs)))
        try:
            answer = await self._ask(RequestKind.VIEW_QUERY, _encoder.encode(query), deadline_s)
        except Rejected as rejected:
            raise as_declared(rejected, method) from None
        if answer.index != self.index:
            raise RaftKVError(f"a view of index {self.index} was answered at index {answer.index}")
        return method.decode_result(answer.payload)

    async def close(self) -> None:
        """Tell the node to drop the view. If that fails, the node drops it by itself after a while."""
        with contextlib.suppress(RaftKVError):
            await self._ask(RequestKind.VIEW_CLOSE, _encoder.encode(self._number), CLOSE_DEADLINE_S)


async def open_view(ask: Ask, deadline_s: float) -> View:
    """Have the leader hold its state as it is now. Raises `Busy` when it holds too many views until the deadline."""
    answer = await ask(RequestKind.VIEW_OPEN, b"", deadline_s)
    return View(ask, msgspec.msgpack.decode(answer.payload, type=int), answer.index)
