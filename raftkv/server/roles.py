"""Tells a program what its node is in the cluster: callbacks at the beginning and end of leadership, and a stream."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Callable

from raftkv.errors import InvalidArgument
from raftkv.logs import EventLog
from raftkv.node import Role

logger = EventLog(__name__)


class RoleCallback:
    """A callback that is called until `stop`."""

    def __init__(self, roles: Roles, callback: Callable[[Role], object]) -> None:
        self._roles = roles
        self._callback = callback
        self._leads = False

    def stop(self) -> None:
        """Call it no more."""
        self._roles.callbacks.pop(self, None)

    def told(self, role: Role) -> None:
        """Call it if leadership has begun or ended; what it raises is logged."""
        if role.is_leader == self._leads:
            return
        self._leads = role.is_leader
        try:
            self._callback(role)
        except Exception as exc:  # noqa: BLE001 (whatever a program's callback raises, the node goes on)
            logger.error(
                "leader_callback_raised",
                callback=getattr(self._callback, "__qualname__", repr(self._callback)),
                leads=role.is_leader,
                term=role.term,
                error=f"{type(exc).__name__}: {exc}",
            )


class Roles:
    """The roles of one server's node, from its start to its end."""

    def __init__(self) -> None:
        self.callbacks: dict[RoleCallback, None] = {}
        self.role: Role | None = None
        """None before the start."""
        self._has_ended = False
        self._next: asyncio.Future[None] | None = None

    def told(self, role: Role) -> None:
        """The node has another role. Callbacks are called in the next turn of the loop, each with every role."""
        if self.role is not None and self.role.is_leader and role.is_leader:
            self._tell(Role(False, role.term, role.leader))  # another term: what was led before has ended
        self.role = role
        self._tell(role)
        self._wake()

    def _tell(self, role: Role) -> None:
        asyncio.get_running_loop().call_soon(self._call, role)

    def _call(self, role: Role) -> None:
        for callback in list(self.callbacks):
            if callback in self.callbacks:
                callback.told(role)

    def end(self) -> None:
        """The server has stopped."""
        self._has_ended = True
        self._wake()

    def _wake(self) -> None:
        future, self._next = self._next, None
        if future is not None and not future.done():
            future.set_result(None)

    def call(self, callback: Callable[[Role], object]) -> RoleCallback:
        """Call `callback` when leadership begins, also when it has begun already, and when it ends.

        Raises `InvalidArgument` for a coroutine function.
        """
        if inspect.iscoroutinefunction(callback):
            raise InvalidArgument(
                f"{callback.__qualname__} is a coroutine function, which nobody would await: give a plain function "
                "that creates a task, or use `async for role in server.roles()`"
            )
        added = RoleCallback(self, callback)
        self.callbacks[added] = None
        if self.role is not None and self.role.is_leader:
            self._tell(self.role)  # the others know it already, and are not called again
        return added

    async def stream(self) -> AsyncIterator[Role]:
        """The present role, and then each that is another one; of several while nobody looks, the last."""
        given: Role | None = None
        while True:
            if self.role is not None and self.role != given:
                given = self.role
                yield given
            elif self._has_ended:
                return
            else:
                if self._next is None:
                    self._next = asyncio.get_running_loop().create_future()
                await asyncio.shield(self._next)
