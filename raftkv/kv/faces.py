"""One declaration of a call, two faces of it: to be awaited, or blocking."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from functools import wraps
from types import MethodType
from typing import Any, Concatenate, Generic, ParamSpec, TypeVar, overload

import msgspec

from raftkv.kv.model import Item, Page, check_bound, check_key, check_page

P = ParamSpec("P")
T = TypeVar("T")


class KeyValueRequest(msgspec.Struct, Generic[T], frozen=True, gc=False):
    """A request to the machine: a method, its arguments, and the deadline in seconds (None: the client's default)."""

    name: str
    args: tuple[Any, ...]
    deadline_s: float | None
    is_stale: bool = False


class Awaited(ABC):
    """A client or view whose calls are awaited."""

    @abstractmethod
    async def _perform(self, request: KeyValueRequest[T]) -> T: ...


class Blocking(ABC):
    """A client or view whose calls block until the answer is there."""

    @abstractmethod
    def _perform(self, request: KeyValueRequest[T]) -> T: ...


class both(Generic[P, T]):  # noqa: N801 (a decorator)
    """A decorator for a function that turns a call's arguments into a `KeyValueRequest`, or raises for wrong ones.

    It becomes a method that sends the request: a coroutine function on an `Awaited` object, a plain function on a
    `Blocking` one. Both have the signature and the docstring of the declaration.
    """

    def __init__(self, declared: Callable[Concatenate[Any, P], KeyValueRequest[T]]) -> None:
        @wraps(declared)
        async def awaited(self: Awaited, *args: P.args, **kwargs: P.kwargs) -> T:
            return await self._perform(declared(self, *args, **kwargs))

        @wraps(declared)
        def blocking(self: Blocking, *args: P.args, **kwargs: P.kwargs) -> T:
            return self._perform(declared(self, *args, **kwargs))

        result = str(declared.__annotations__["return"]).removeprefix("KeyValueRequest[").removesuffix("]")
        signature = inspect.signature(declared).replace(return_annotation=result)
        for face in (awaited, blocking):
            face.__signature__ = signature  # type: ignore[union-attr]
        self._awaited, self._blocking = awaited, blocking
        self.__doc__ = declared.__doc__

    @overload
    def __get__(self, on: Awaited, owner: Any) -> Callable[P, Coroutine[Any, Any, T]]: ...
    @overload
    def __get__(self, on: Blocking, owner: Any) -> Callable[P, T]: ...
    @overload
    def __get__(self, on: None, owner: Any) -> Callable[..., Any]: ...
    def __get__(self, on: Awaited | Blocking | None, owner: Any) -> Callable[..., Any]:
        face = self._awaited if issubclass(owner, Awaited) else self._blocking
        return face if on is None else MethodType(face, on)


class Reads:
    """The queries that clients and views share. A client's are linearizable, a view's read the state at its index."""

    @both
    def get(self, key: bytes, *, deadline_s: float | None = None) -> KeyValueRequest[Item | None]:
        """The item at `key`, or None."""
        check_key(key)
        return KeyValueRequest("get", (key,), deadline_s)

    @both
    def range(
        self,
        start: bytes = b"",
        end: bytes | None = None,
        *,
        limit: int = 100,
        reverse: bool = False,
        deadline_s: float | None = None,
    ) -> KeyValueRequest[Page]:
        """Items with `start` ≤ key < `end`, up to `limit`, from the end when `reverse`.

        A page may have fewer items, even none, when there was too much to read. The range is complete only when `next`
        is None.
        """
        return range_request(start, end, limit, reverse, deadline_s)


def range_request(
    start: bytes, end: bytes | None, limit: int, reverse: bool, deadline_s: float | None
) -> KeyValueRequest[Page]:
    """A page of a range. Raises `LimitExceeded`."""
    check_bound(start)
    check_bound(end)
    check_page(limit)
    return KeyValueRequest("range", (start, end, limit, reverse), deadline_s)


class AwaitedReads(Reads, Awaited):
    """The queries of a client or view for asyncio."""

    async def items(
        self, start: bytes = b"", end: bytes | None = None, *, page: int = 500, deadline_s: float | None = None
    ) -> AsyncIterator[Item]:
        """All items of a range. A client reads each page at an index of its own, a view all at its index."""
        following: bytes | None = start
        while following is not None:
            found = await self.range(following, end, limit=page, deadline_s=deadline_s)
            for item in found.items:
                yield item
            following = found.next


class BlockingReads(Reads, Blocking):
    """The queries of a blocking client or view."""

    def items(
        self, start: bytes = b"", end: bytes | None = None, *, page: int = 500, deadline_s: float | None = None
    ) -> Iterator[Item]:
        """All items of a range. A client reads each page at an index of its own, a view all at its index."""
        following: bytes | None = start
        while following is not None:
            found = self.range(following, end, limit=page, deadline_s=deadline_s)
            yield from found.items
            following = found.next
