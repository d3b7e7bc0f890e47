"""Faces of a machine: its commands and queries as methods with types, over a client or a `LocalMachine`.

```python
class AwaitedInventory(Awaited[Inventory]):          # `raftkv stubs module:Inventory` writes such classes
    receive = AwaitedCommand(Inventory.receive)
    on_hand = AwaitedQuery(Inventory.on_hand)

async with AwaitedInventory(Client(Inventory, ["127.0.0.1:7001"])) as inventory:
    await inventory.receive("apple", 3)                  # int, and mypy and pyright know it
    await inventory.receive.within(0.5)("apple", 3)
    await inventory.on_hand.stale("apple")               # StaleRead[int]
```

Arguments, their names and defaults, and results are those that the class declares: they are inferred, not written down
a second time. Names of commands begin with no underscore, so they can't collide with anything that a face has itself.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from functools import partial
from types import TracebackType
from typing import Any, Concatenate, Generic, ParamSpec, Self, TypeAlias, TypeVar, overload

from raftkv.client import BlockingClient, Client, StaleRead
from raftkv.client.remote import RemoteMethod, RemoteQuery
from raftkv.machine import LocalMachine, StateMachine

M = TypeVar("M", bound=StateMachine)
P = ParamSpec("P")
R = TypeVar("R")

AwaitedMethod: TypeAlias = RemoteMethod[P, Coroutine[Any, Any, R], Coroutine[Any, Any, StaleRead[R]]]
AwaitedQueryMethod: TypeAlias = RemoteQuery[P, Coroutine[Any, Any, R], Coroutine[Any, Any, StaleRead[R]]]
BlockingMethod: TypeAlias = RemoteMethod[P, R, StaleRead[R]]
BlockingQueryMethod: TypeAlias = RemoteQuery[P, R, StaleRead[R]]


class Awaited(Generic[M]):
    """A client's machine; its calls are awaited. `async with` opens and closes the client."""

    def __init__(self, client: Client[M]) -> None:
        self._client = client

    async def __aenter__(self) -> Self:
        await self._client.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._client.__aexit__(kind, error, trace)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self._client.machine.__name__}>"


class Blocking(Generic[M]):
    """A blocking client's machine; `with` closes the client."""

    def __init__(self, client: BlockingClient[M]) -> None:
        self._client = client

    def __enter__(self) -> Self:
        self._client.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._client.__exit__(kind, error, trace)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self._client.machine.__name__}>"


class Local(Generic[M]):
    """A machine in memory, for unit tests."""

    def __init__(self, local: LocalMachine[M]) -> None:
        self._local = local

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self._local.machine.__name__}>"


class _Declared(Generic[P, R]):
    """A method of a face, as the machine's class has it."""

    def __init__(self, method: Callable[Concatenate[Any, P], R]) -> None:
        self._method = method
        self.__doc__ = method.__doc__


F = TypeVar("F")


class Within(Generic[F]):
    """The face of a part, on that of the whole: `app.locks.acquire("a")`."""

    def __init__(self, face: Callable[[Any], F]) -> None:
        """`face` makes one of a client, or of a `LocalMachine`."""
        self._face = face

    @overload
    def __get__(self, face: None, owner: Any) -> Self: ...
    @overload
    def __get__(self, face: Awaited[Any] | Blocking[Any] | Local[Any], owner: Any) -> F: ...
    def __get__(self, face: Awaited[Any] | Blocking[Any] | Local[Any] | None, owner: Any) -> Self | F:
        if face is None:
            return self
        return self._face(face._local if isinstance(face, Local) else face._client)


class AwaitedCommand(_Declared[P, R]):
    """A command on an `Awaited` face."""

    @overload
    def __get__(self, face: None, owner: Any) -> Self: ...
    @overload
    def __get__(self, face: Awaited[Any], owner: Any) -> AwaitedMethod[P, R]: ...
    def __get__(self, face: Awaited[Any] | None, owner: Any) -> Self | AwaitedMethod[P, R]:
        if face is None:
            return self
        client = face._client
        return RemoteMethod(client, client.method(self._method), client.options.deadline_s)


class AwaitedQuery(_Declared[P, R]):
    """A query on an `Awaited` face."""

    @overload
    def __get__(self, face: None, owner: Any) -> Self: ...
    @overload
    def __get__(self, face: Awaited[Any], owner: Any) -> AwaitedQueryMethod[P, R]: ...
    def __get__(self, face: Awaited[Any] | None, owner: Any) -> Self | AwaitedQueryMethod[P, R]:
        if face is None:
            return self
        client = face._client
        return RemoteQuery(client, client.method(self._method), client.options.deadline_s)


class BlockingCommand(_Declared[P, R]):
    """A command on a `Blocking` face."""

    @overload
    def __get__(self, face: None, owner: Any) -> Self: ...
    @overload
    def __get__(self, face: Blocking[Any], owner: Any) -> BlockingMethod[P, R]: ...
    def __get__(self, face: Blocking[Any] | None, owner: Any) -> Self | BlockingMethod[P, R]:
        if face is None:
            return self
        client = face._client
        return RemoteMethod(client, client.method(self._method), client.options.deadline_s)


class BlockingQuery(_Declared[P, R]):
    """A query on a `Blocking` face."""

    @overload
    def __get__(self, face: None, owner: Any) -> Self: ...
    @overload
    def __get__(self, face: Blocking[Any], owner: Any) -> BlockingQueryMethod[P, R]: ...
    def __get__(self, face: Blocking[Any] | None, owner: Any) -> Self | BlockingQueryMethod[P, R]:
        if face is None:
            return self
        client = face._client
        return RemoteQuery(client, client.method(self._method), client.options.deadline_s)


class LocalMethod(_Declared[P, R]):
    """A command or query on a `Local` face."""

    @overload
    def __get__(self, face: None, owner: Any) -> Self: ...
    @overload
    def __get__(self, face: Local[Any], owner: Any) -> Callable[P, R]: ...
    def __get__(self, face: Local[Any] | None, owner: Any) -> Self | Callable[P, R]:
        if face is None:
            return self
        # The class's own `call`: a machine may have a method of this name, which its LocalMachine has instead.
        return partial(LocalMachine.call, face._local, self._method)
