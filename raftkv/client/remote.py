"""A state machine's methods as they are called from afar."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from raftkv.machine import Method, StateMachine

if TYPE_CHECKING:
    from raftkv.client.client import Client, StaleRead

M = TypeVar("M", bound=StateMachine)


class RemoteMethod:
    """A command or query that can be awaited like a coroutine function."""

    __slots__ = ("_client", "_deadline_s", "_method")

    def __init__(self, client: Client[Any], method: Method, deadline_s: float) -> None:
        self._client = client
        self._method = method
        self._deadline_s = deadline_s

    def __call__(self, *args: Any, **kwargs: Any) -> Awaitable[Any]:
        return self._client.invoke(self._method, args, kwargs, self._deadline_s)

    def __repr__(self) -> str:
        return f"<remote {self._method.describe()}>"

    def within(self, deadline_s: float) -> RemoteMethod:
        """The same method with a deadline of its own, in seconds."""
        return type(self)(self._client, self._method, deadline_s)


class RemoteQuery(RemoteMethod):
    """A query, which may also be asked of a node that is behind."""

    __slots__ = ()

    def stale(self, *args: Any, **kwargs: Any) -> Awaitable[StaleRead[Any]]:
        """The value at some earlier index, from any node, without asking the leader: `StaleRead(value, index)`."""
        return self._client.invoke_stale(self._method, args, kwargs, self._deadline_s)


class Remote(Generic[M]):
    """The commands and queries of a machine, as attributes."""

    def __init__(self, client: Client[M]) -> None:
        self._client = client

    def __getattr__(self, name: str) -> RemoteQuery:
        # Typed as the richer of the two; a command has no `stale`, and says so when asked for it.
        method = self._client.method(name)
        kind = RemoteQuery if method.is_query else RemoteMethod
        remote = kind(self._client, method, self._client.options.deadline_s)
        setattr(self, name, remote)  # found without this function from now on
        return remote  # type: ignore[return-value]

    def __dir__(self) -> list[str]:
        return sorted(self._client.methods)

    def __repr__(self) -> str:
        return f"<remote {self._client.machine.__name__}>"
