"""Waits for a query's result to be another one: asks a node that answers when it is, and asks again until it suits."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias

import msgspec
import xxhash

from raftkv.client.call import Answer
from raftkv.errors import NotAccepted, Rejected, TimedOut
from raftkv.machine import Method, as_declared
from raftkv.wire import Poll

ROUND_S = 30.0
"""A node is asked again after so long without news: requests of clients that have gone end then, at the latest."""

_encoder = msgspec.msgpack.Encoder()

Ask: TypeAlias = Callable[[bytes, float], Awaitable[Answer]]
"""Sends an encoded `Poll`; the number is its deadline in seconds."""


class Wait:
    """The results of one query, each as soon as it is another one."""

    def __init__(self, ask: Ask, method: Method, values: bytes, timeout_s: float) -> None:
        """`values` are the encoded arguments; `timeout_s` counts from now."""
        self._ask = ask
        self._method = method
        self._query = method.query_payload(values)
        self._timeout_s = timeout_s
        self._end = asyncio.get_running_loop().time() + timeout_s
        self._known: int | None = None
        """The digest of the last result."""

    async def next(self) -> Any:
        """The result, at once; from the second time on, when it has changed.

        Raises as calls do, and `TimedOut` when there was a result, and no other one in time.
        """
        loop = asyncio.get_running_loop()
        error: NotAccepted | None = None
        while (left_s := self._end - loop.time()) > 0:
            round_s = min(left_s, ROUND_S)
            try:
                answer = await self._ask(_encoder.encode(Poll(self._query, self._known)), round_s)
            except Rejected as rejected:
                raise as_declared(rejected, self._method) from None
            except NotAccepted as exc:
                error = exc
                if loop.time() < self._end - left_s + round_s:
                    raise  # it was refused here and now, or the client was closed
            else:
                if answer.payload:
                    self._known = xxhash.xxh3_64_intdigest(answer.payload)
                    return self._method.decode_result(answer.payload)
        if self._known is None and error is not None:
            raise error
        raise TimedOut(
            f"{self._method.name} gave nothing within {self._timeout_s:g} s that would do"
            + (f" (at last: {error})" if error is not None else "")
        ) from error
