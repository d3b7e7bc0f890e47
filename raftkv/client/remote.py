"""A state machine's methods as they are called from afar: to be awaited, or blocking."""

from __future__ import annotations

from collections.abc import Awaitable, Mapping
from typing import Any, Generic, Protocol, TypeVar

from raftkv.client.options import ClientOptions
from raftkv.client.reads import StaleRead
from raftkv.machine import Method, StateMachine

M = TypeVar("M", bound=StateMachine)
R_co = TypeVar("R_co", covariant=True)
"""What a call returns: the result, or something to await that gives it."""
S_co = TypeVar("S_co", covariant=True)
"""The same of a stale query."""


class Caller(Protocol[R_co, S_co]):
    """The client, as far as the methods of its machine use it."""

    @property
    def machine(self) -> type[StateMachine]:
        """Whose methods these are."""

    @property
    def options(self) -> ClientOptions:
        """Where calls have their deadline from that name none."""

    @property
    def methods(self) -> Mapping[str, Method]:
        """Commands and queries by name."""

    def method(self, name: str) -> Method:
        """The command or query of this name; raises `UnknownMethod`."""

    def invoke(self, method: Method, args: tuple[Any, ...], kwargs: dict[str, Any], deadline_s: float) -> R_co:
        """Call a command or query."""

    def invoke_stale(self, method: Method, args: tuple[Any, ...], kwargs: dict[str, Any], deadline_s: float) -> S_co:
        """Ask a query of whatever node is at hand."""


class RemoteMethod(Generic[R_co, S_co]):
    """A command or query, to be called like a function; a client for asyncio returns what can be awaited."""

    __slots__ = ("_caller", "_deadline_s", "_method")

    def __init__(self, caller: Caller[R_co, S_co], method: Method, deadline_s: float) -> None:
        self._caller = caller
        self._method = method
        self._deadline_s = deadline_s

    def __call__(self, *args: Any, **kwargs: Any) -> R_co:
        return self._caller.invoke(self._method, args, kwargs, self._deadline_s)

    def __repr__(self) -> str:
        return f"<remote {self._method.describe()}>"

    def within(self, deadline_s: float) -> RemoteMethod[R_co, S_co]:
        """The same method with a deadline of its own, in seconds."""
        return type(self)(self._caller, self._method, deadline_s)


class RemoteQuery(RemoteMethod[R_co, S_co]):
    """A query, which may also be asked of a node that is behind."""

    __slots__ = ()

    def stale(self, *args: Any, **kwargs: Any) -> S_co:
        """The value at some earlier index, from any node, without asking the leader: `StaleRead(value, index)`."""
        return self._caller.invoke_stale(self._method, args, kwargs, self._deadline_s)


class _Methods(Generic[M, R_co, S_co]):
    """The commands and queries of a machine, as attributes."""

    def __init__(self, caller: Caller[R_co, S_co]) -> None:
        self._caller = caller

    def __getattr__(self, name: str) -> RemoteQuery[R_co, S_co]:
        # Typed as the richer of the two; a command has no `stale`, and says so when asked for it.
        method = self._caller.method(name)
        kind = RemoteQuery if method.is_query else RemoteMethod
        remote = kind(self._caller, method, self._caller.options.deadline_s)
        setattr(self, name, remote)  # found without this function from now on
        return remote  # type: ignore[return-value]

    def __dir__(self) -> list[str]:
        return sorted(self._caller.methods)

    def __repr__(self) -> str:
        return f"<remote {self._caller.machine.__name__}>"


class Remote(_Methods[M, Awaitable[Any], Awaitable[StaleRead[Any]]]):
    """The commands and queries of a machine, as attributes whose calls are awaited."""


class BlockingRemote(_Methods[M, Any, StaleRead[Any]]):
    """The commands and queries of a machine, as attributes that return when the answer is there."""

    def __repr__(self) -> str:
        return f"<remote {self._caller.machine.__name__}, blocking>"
