"""Calls that name a method as its class has it, `client.call(Inventory.receive, "apple", 3)`, and so have types."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, Concatenate, Generic, ParamSpec, Protocol, TypeVar, TypeVarTuple, overload

from raftkv.client.reads import Read, StaleRead
from raftkv.machine import Component, Method, StateMachine

M = TypeVar("M", bound=StateMachine)
C = TypeVar("C", bound=Component)
"""A component, which may be a part of the machine: whether it is, type checkers can't tell; the call can."""
P = ParamSpec("P")
R = TypeVar("R")
Ts = TypeVarTuple("Ts")


class AsyncPath(Protocol):
    """What calls of a client for asyncio go through."""

    def method(self, asked: object) -> Method:
        """The command or query that is meant; raises `UnknownMethod`."""

    async def invoke(self, method: Method, args: tuple[Any, ...], kwargs: dict[str, Any], deadline_s: float) -> Any:
        """Call a command or query."""

    async def invoke_read(
        self, method: Method, args: tuple[Any, ...], kwargs: dict[str, Any], deadline_s: float
    ) -> Read[Any]:
        """Ask a linearizable query, and at which index."""

    async def invoke_stale(
        self, method: Method, args: tuple[Any, ...], kwargs: dict[str, Any], deadline_s: float
    ) -> StaleRead[Any]:
        """Ask any node a stale query."""

    async def invoke_wait(
        self,
        method: Method,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        until: Callable[[Any], object],
        timeout_s: float,
    ) -> Any:
        """Ask a query until `until` holds for its result."""


class BlockingPath(Protocol):
    """What calls of a blocking client go through."""

    def method(self, asked: object) -> Method:
        """The command or query that is meant; raises `UnknownMethod`."""

    def invoke(self, method: Method, args: tuple[Any, ...], kwargs: dict[str, Any], deadline_s: float) -> Any:
        """Call a command or query."""

    def invoke_read(
        self, method: Method, args: tuple[Any, ...], kwargs: dict[str, Any], deadline_s: float
    ) -> Read[Any]:
        """Ask a linearizable query, and at which index."""

    def invoke_stale(
        self, method: Method, args: tuple[Any, ...], kwargs: dict[str, Any], deadline_s: float
    ) -> StaleRead[Any]:
        """Ask any node a stale query."""

    def invoke_wait(
        self,
        method: Method,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        until: Callable[[Any], object],
        timeout_s: float,
    ) -> Any:
        """Ask a query until `until` holds for its result."""


class Calls(ABC, Generic[M]):
    """Calls to be awaited, each with the deadline of its client or of `within`.

    A method is named as its class has it, and then its arguments and its result have their types; or by its name as
    text, and then they have none. All raise as `Client` says, and `UnknownMethod` for what is no method of the machine.
    """

    @abstractmethod
    def _way(self) -> tuple[AsyncPath, float]:
        """Through what they go, and their deadline in seconds."""

    @overload
    async def call(self, method: Callable[Concatenate[M, P], R], /, *args: P.args, **kwargs: P.kwargs) -> R: ...
    @overload
    async def call(self, method: Callable[Concatenate[C, P], R], /, *args: P.args, **kwargs: P.kwargs) -> R: ...
    @overload
    async def call(self, method: str, /, *args: Any, **kwargs: Any) -> Any: ...
    async def call(self, method: Callable[..., Any] | str, /, *args: Any, **kwargs: Any) -> Any:
        """Call a command or query: `await client.call(Inventory.receive, "apple", 3)`."""
        path, deadline_s = self._way()
        return await path.invoke(path.method(method), args, kwargs, deadline_s)

    @overload
    async def read(self, query: Callable[Concatenate[M, P], R], /, *args: P.args, **kwargs: P.kwargs) -> Read[R]: ...
    @overload
    async def read(self, query: Callable[Concatenate[C, P], R], /, *args: P.args, **kwargs: P.kwargs) -> Read[R]: ...
    @overload
    async def read(self, query: str, /, *args: Any, **kwargs: Any) -> Read[Any]: ...
    async def read(self, query: Callable[..., Any] | str, /, *args: Any, **kwargs: Any) -> Read[Any]:
        """Ask a linearizable query; returns its result and the index it was read at."""
        path, deadline_s = self._way()
        return await path.invoke_read(path.method(query), args, kwargs, deadline_s)

    @overload
    async def stale(
        self, query: Callable[Concatenate[M, P], R], /, *args: P.args, **kwargs: P.kwargs
    ) -> StaleRead[R]: ...
    @overload
    async def stale(
        self, query: Callable[Concatenate[C, P], R], /, *args: P.args, **kwargs: P.kwargs
    ) -> StaleRead[R]: ...
    @overload
    async def stale(self, query: str, /, *args: Any, **kwargs: Any) -> StaleRead[Any]: ...
    async def stale(self, query: Callable[..., Any] | str, /, *args: Any, **kwargs: Any) -> StaleRead[Any]:
        """The value at some earlier index, from any node, without asking the leader."""
        path, deadline_s = self._way()
        return await path.invoke_stale(path.method(query), args, kwargs, deadline_s)

    @overload
    async def wait_until(
        self, query: Callable[[M, *Ts], R], /, *args: *Ts, until: Callable[[R], object], timeout_s: float | None = None
    ) -> R: ...
    @overload
    async def wait_until(
        self, query: Callable[[C, *Ts], R], /, *args: *Ts, until: Callable[[R], object], timeout_s: float | None = None
    ) -> R: ...
    @overload
    async def wait_until(
        self, query: str, /, *args: Any, until: Callable[[Any], object], timeout_s: float | None = None
    ) -> Any: ...
    async def wait_until(
        self, query: Any, /, *args: *Ts, until: Callable[[Any], object], timeout_s: float | None = None
    ) -> Any:
        """Wait until `until` holds for a query's result, and return that:
        `await client.wait_until(Inventory.on_hand, "apple", until=lambda count: count > 0, timeout_s=60)`.

        Nothing is asked in vain: the node answers when the result has changed. A state that lasted for less than some
        20 ms may be missed; a node asks a query that reads very much again once a second, no sooner. `until` must not
        block, as it is called on the event loop.
        Without `timeout_s` the deadline is that of other calls; behind it, `TimedOut` is raised.
        """
        path, deadline_s = self._way()
        given_s = deadline_s if timeout_s is None else timeout_s
        return await path.invoke_wait(path.method(query), args, {}, until, given_s)

    @overload
    async def poll(
        self, query: Callable[[M, *Ts], R], /, *args: *Ts, unlike: R, timeout_s: float | None = None
    ) -> R: ...
    @overload
    async def poll(
        self, query: Callable[[C, *Ts], R], /, *args: *Ts, unlike: R, timeout_s: float | None = None
    ) -> R: ...
    @overload
    async def poll(self, query: str, /, *args: Any, unlike: Any, timeout_s: float | None = None) -> Any: ...
    async def poll(self, query: Any, /, *args: *Ts, unlike: Any, timeout_s: float | None = None) -> Any:
        """Wait until a query's result is not equal to `unlike`, and return it, as `wait_until` does."""
        path, deadline_s = self._way()
        given_s = deadline_s if timeout_s is None else timeout_s
        return await path.invoke_wait(path.method(query), args, {}, lambda result: result != unlike, given_s)

    def within(self, deadline_s: float) -> Calls[M]:
        """The same calls with a deadline of their own, in seconds: `client.within(0.5).call(…)`."""
        return _Within(self._way()[0], deadline_s)


class _Within(Calls[M]):
    """Calls through a client, with another deadline than its own."""

    def __init__(self, path: AsyncPath, deadline_s: float) -> None:
        self._given = path, deadline_s

    def _way(self) -> tuple[AsyncPath, float]:
        return self._given


class BlockingCalls(ABC, Generic[M]):
    """The same as `Calls`, but each call returns when its answer is there."""

    @abstractmethod
    def _way(self) -> tuple[BlockingPath, float]:
        """Through what they go, and their deadline in seconds."""

    @overload
    def call(self, method: Callable[Concatenate[M, P], R], /, *args: P.args, **kwargs: P.kwargs) -> R: ...
    @overload
    def call(self, method: Callable[Concatenate[C, P], R], /, *args: P.args, **kwargs: P.kwargs) -> R: ...
    @overload
    def call(self, method: str, /, *args: Any, **kwargs: Any) -> Any: ...
    def call(self, method: Callable[..., Any] | str, /, *args: Any, **kwargs: Any) -> Any:
        """Call a command or query: `client.call(Inventory.receive, "apple", 3)`."""
        path, deadline_s = self._way()
        return path.invoke(path.method(method), args, kwargs, deadline_s)

    @overload
    def read(self, query: Callable[Concatenate[M, P], R], /, *args: P.args, **kwargs: P.kwargs) -> Read[R]: ...
    @overload
    def read(self, query: Callable[Concatenate[C, P], R], /, *args: P.args, **kwargs: P.kwargs) -> Read[R]: ...
    @overload
    def read(self, query: str, /, *args: Any, **kwargs: Any) -> Read[Any]: ...
    def read(self, query: Callable[..., Any] | str, /, *args: Any, **kwargs: Any) -> Read[Any]:
        """Ask a linearizable query; returns its result and the index it was read at."""
        path, deadline_s = self._way()
        return path.invoke_read(path.method(query), args, kwargs, deadline_s)

    @overload
    def stale(self, query: Callable[Concatenate[M, P], R], /, *args: P.args, **kwargs: P.kwargs) -> StaleRead[R]: ...
    @overload
    def stale(self, query: Callable[Concatenate[C, P], R], /, *args: P.args, **kwargs: P.kwargs) -> StaleRead[R]: ...
    @overload
    def stale(self, query: str, /, *args: Any, **kwargs: Any) -> StaleRead[Any]: ...
    def stale(self, query: Callable[..., Any] | str, /, *args: Any, **kwargs: Any) -> StaleRead[Any]:
        """The value at some earlier index, from any node, without asking the leader."""
        path, deadline_s = self._way()
        return path.invoke_stale(path.method(query), args, kwargs, deadline_s)

    @overload
    def wait_until(
        self, query: Callable[[M, *Ts], R], /, *args: *Ts, until: Callable[[R], object], timeout_s: float | None = None
    ) -> R: ...
    @overload
    def wait_until(
        self, query: Callable[[C, *Ts], R], /, *args: *Ts, until: Callable[[R], object], timeout_s: float | None = None
    ) -> R: ...
    @overload
    def wait_until(
        self, query: str, /, *args: Any, until: Callable[[Any], object], timeout_s: float | None = None
    ) -> Any: ...
    def wait_until(
        self, query: Any, /, *args: *Ts, until: Callable[[Any], object], timeout_s: float | None = None
    ) -> Any:
        """Wait until `until` holds for a query's result, and return that:
        `client.wait_until(Inventory.on_hand, "apple", until=lambda count: count > 0, timeout_s=60)`.

        Nothing is asked in vain: the node answers when the result has changed. A state that lasted for less than some
        20 ms may be missed; a node asks a query that reads very much again once a second, no sooner. `until` is
        called on the calling thread.
        Without `timeout_s` the deadline is that of other calls; behind it, `TimedOut` is raised.
        """
        path, deadline_s = self._way()
        given_s = deadline_s if timeout_s is None else timeout_s
        return path.invoke_wait(path.method(query), args, {}, until, given_s)

    @overload
    def poll(self, query: Callable[[M, *Ts], R], /, *args: *Ts, unlike: R, timeout_s: float | None = None) -> R: ...
    @overload
    def poll(self, query: Callable[[C, *Ts], R], /, *args: *Ts, unlike: R, timeout_s: float | None = None) -> R: ...
    @overload
    def poll(self, query: str, /, *args: Any, unlike: Any, timeout_s: float | None = None) -> Any: ...
    def poll(self, query: Any, /, *args: *Ts, unlike: Any, timeout_s: float | None = None) -> Any:
        """Wait until a query's result is not equal to `unlike`, and return it, as `wait_until` does."""
        path, deadline_s = self._way()
        given_s = deadline_s if timeout_s is None else timeout_s
        return path.invoke_wait(path.method(query), args, {}, lambda result: result != unlike, given_s)

    def within(self, deadline_s: float) -> BlockingCalls[M]:
        """The same calls with a deadline of their own, in seconds: `client.within(0.5).call(…)`."""
        return _BlockingWithin(self._way()[0], deadline_s)


class _BlockingWithin(BlockingCalls[M]):
    """Calls through a blocking client, with another deadline than its own."""

    def __init__(self, path: BlockingPath, deadline_s: float) -> None:
        self._given = path, deadline_s

    def _way(self) -> tuple[BlockingPath, float]:
        return self._given
