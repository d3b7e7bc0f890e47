"""A state machine's methods as they are called from afar: to be awaited, or blocking."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping
from typing import Any, Concatenate, Generic, ParamSpec, Protocol, Self, TypeVar, overload

from raftkv.client.options import ClientOptions
from raftkv.client.reads import StaleRead
from raftkv.machine import Component, Method, StateMachine, UnknownMethod, is_part

M = TypeVar("M", bound=StateMachine)
C = TypeVar("C", bound=Component)
P = ParamSpec("P")
"""The arguments of a method."""
T = TypeVar("T")
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

    def method(self, asked: object) -> Method:
        """The command or query that is meant; raises `UnknownMethod`."""

    def invoke(self, method: Method, args: tuple[Any, ...], kwargs: dict[str, Any], deadline_s: float) -> R_co:
        """Call a command or query."""

    def invoke_stale(self, method: Method, args: tuple[Any, ...], kwargs: dict[str, Any], deadline_s: float) -> S_co:
        """Ask a query of whatever node is at hand."""

    def invoke_wait(
        self,
        method: Method,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        until: Callable[[Any], object],
        timeout_s: float,
    ) -> R_co:
        """Ask a query until `until` holds for its result."""


class RemoteMethod(Generic[P, R_co, S_co]):
    """A command or query, to be called like a function; a client for asyncio returns what can be awaited."""

    __slots__ = ("_caller", "_deadline_s", "_method")

    def __init__(self, caller: Caller[R_co, S_co], method: Method, deadline_s: float) -> None:
        self._caller = caller
        self._method = method
        self._deadline_s = deadline_s

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R_co:
        return self._caller.invoke(self._method, args, kwargs, self._deadline_s)

    def __repr__(self) -> str:
        return f"<remote {self._method.describe()}>"

    def within(self, deadline_s: float) -> Self:
        """The same method with a deadline of its own, in seconds."""
        return type(self)(self._caller, self._method, deadline_s)


class RemoteQuery(RemoteMethod[P, R_co, S_co]):
    """A query, which may also be asked of a node that is behind."""

    __slots__ = ()

    def stale(self, *args: P.args, **kwargs: P.kwargs) -> S_co:
        """The value at some earlier index, from any node, without asking the leader: `StaleRead(value, index)`."""
        return self._caller.invoke_stale(self._method, args, kwargs, self._deadline_s)

    def until(self, suits: Callable[[Any], object], /, *args: P.args, **kwargs: P.kwargs) -> R_co:
        """Wait for a result that suits: `await inventory.on_hand.within(60).until(lambda count: count > 0, "apple")`;
        as `wait_until` of the client."""
        return self._caller.invoke_wait(self._method, args, kwargs, suits, self._deadline_s)


class _OwnCall(RemoteQuery[..., R_co, S_co]):
    """`call` of a machine that has such a method itself. No argument is a function, so it can't be mistaken."""

    __slots__ = ()

    def __call__(self, *args: Any, **kwargs: Any) -> R_co:
        if not args or not callable(args[0]):
            return super().__call__(*args, **kwargs)
        return self._caller.invoke(self._caller.method(args[0]), args[1:], kwargs, self._deadline_s)


class _Methods(Generic[M, R_co, S_co]):
    """The commands and queries of a machine, as attributes."""

    def __init__(self, caller: Caller[R_co, S_co]) -> None:
        self._caller = caller
        if (own := caller.methods.get("call")) is not None:
            vars(self)["call"] = _OwnCall(caller, own, caller.options.deadline_s)

    def _call(self, method: object, args: tuple[Any, ...], kwargs: dict[str, Any]) -> R_co:
        caller = self._caller
        return caller.invoke(caller.method(method), args, kwargs, caller.options.deadline_s)

    def __getattr__(self, name: str) -> RemoteQuery[..., R_co, S_co]:
        # Typed as the richer of the two; a command has no `stale`, and says so when asked for it.
        if is_part(self._caller.machine, name):
            setattr(self, name, _PartMethods(self, name))
            part: RemoteQuery[..., R_co, S_co] = vars(self)[name]
            return part
        method = self._method(name)
        kind: Any = RemoteQuery if method.is_query else RemoteMethod
        remote: RemoteQuery[..., R_co, S_co] = kind(self._caller, method, self._caller.options.deadline_s)
        setattr(self, name, remote)  # found without this function from now on
        return remote

    def _method(self, name: str) -> Method:
        """Raises `UnknownMethod`, which says where to find what the client has of this name."""
        try:
            return self._caller.method(name)
        except UnknownMethod as exc:
            own = type(self._caller)
            if name.startswith("_") or not hasattr(own, name):
                raise
            raise UnknownMethod(
                f"{exc}. `{name}` is the client's own: write `client = {own.__name__}(…)` before the `with client "
                f"as …`, and `client.{name}(…)` in it"
            ) from None

    def __dir__(self) -> list[str]:
        return sorted(self._caller.methods)

    def __repr__(self) -> str:
        return f"<remote {self._caller.machine.__name__}>"


def caller_of(remote: _Methods[M, R_co, S_co]) -> Caller[R_co, S_co]:
    """The client whose methods these are: what `async with Client(…) as app` gives, and who wants the client itself."""
    return remote._caller


class _PartMethods:
    """The commands and queries of a part of a machine, as attributes: `await app.locks.acquire(…)`."""

    def __init__(self, whole: _Methods[Any, Any, Any], name: str) -> None:
        self._whole = whole
        self._name = name

    def __getattr__(self, name: str) -> Any:
        return getattr(self._whole, f"{self._name}.{name}")

    def __dir__(self) -> list[str]:
        behind = f"{self._name}."
        return sorted({each.removeprefix(behind).partition(".")[0] for each in dir(self._whole) if behind in each})

    def __repr__(self) -> str:
        return f"{self._whole!r}.{self._name}"


class Remote(_Methods[M, Coroutine[Any, Any, Any], Coroutine[Any, Any, StaleRead[Any]]]):
    """The commands and queries of a machine, as attributes whose calls are awaited."""

    @overload
    def call(
        self, method: Callable[Concatenate[M, P], T], /, *args: P.args, **kwargs: P.kwargs
    ) -> Coroutine[Any, Any, T]: ...
    @overload
    def call(
        self, method: Callable[Concatenate[C, P], T], /, *args: P.args, **kwargs: P.kwargs
    ) -> Coroutine[Any, Any, T]: ...
    def call(self, method: Callable[..., T], /, *args: Any, **kwargs: Any) -> Coroutine[Any, Any, T]:
        """Call a command or query as its class has it, with its types: `inventory.call(Inventory.receive, "apple", 3)`.

        A machine may have a method of this name itself; that is called when the first argument is no function.
        """
        return self._call(method, args, kwargs)


class BlockingRemote(_Methods[M, Any, StaleRead[Any]]):
    """The commands and queries of a machine, as attributes that return when the answer is there."""

    @overload
    def call(self, method: Callable[Concatenate[M, P], T], /, *args: P.args, **kwargs: P.kwargs) -> T: ...
    @overload
    def call(self, method: Callable[Concatenate[C, P], T], /, *args: P.args, **kwargs: P.kwargs) -> T: ...
    def call(self, method: Callable[..., T], /, *args: Any, **kwargs: Any) -> T:
        """Call a command or query as its class has it, with its types: `inventory.call(Inventory.receive, "apple", 3)`.

        A machine may have a method of this name itself; that is called when the first argument is no function.
        """
        result: T = self._call(method, args, kwargs)
        return result

    def __repr__(self) -> str:
        return f"<remote {self._caller.machine.__name__}, blocking>"
