"""The client-facing listener of a node: serves connections, keeps them bounded, closes them gracefully."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from raftkv.forks import leave, tell_of_fork
from raftkv.listener.audit import Audit
from raftkv.listener.connection import Connection
from raftkv.listener.crowd import Crowd
from raftkv.listener.entrance import Entrance
from raftkv.listener.gate import Gate
from raftkv.listener.identity import TRUSTED
from raftkv.listener.interface import Service
from raftkv.listener.limits import ClientLimits, ServerStats
from raftkv.listener.signins import Run
from raftkv.listener.standing import Standing

TOLD_AT_ONCE = 100
"""Clients that are told of new members before others get a turn: with ten thousand of them it takes a while."""

TELL_AGAIN_S = 0.02
"""Until the next ones are told."""


class Listener:
    """Serves clients of one node, from `begin` on.

    ```python
    entrance = await bind("127.0.0.1", 7001, limits)
    node = …
    Listener(node, limits, entrance).begin()
    ```

    All methods are called on the event loop's thread.
    """

    def __init__(
        self,
        service: Service,
        limits: ClientLimits | None = None,
        entrance: Entrance | None = None,
        *,
        workers: Sequence[Run] = (),
    ) -> None:
        """Without an `entrance`, connections come in another way: who accepts them asks for `connection`s. `workers`
        try passwords beside the loop; without them, nobody signs in by one."""
        self.service = service
        self.limits = limits if limits is not None else ClientLimits()
        self.crowd: Crowd[Connection] = Crowd(self.limits)
        clock = asyncio.get_running_loop().time
        self.audit = Audit(clock)
        self.gate = Gate(service, self.crowd.stats, self.audit, workers, clock)
        self._entrance = entrance
        self._sweeper: asyncio.TimerHandle | None = None
        self._members: tuple[str, ...] = ()
        self._telling: asyncio.TimerHandle | None = None
        self._checking: asyncio.TimerHandle | None = None
        self._is_checked = True
        """Whether nothing has changed since a look at all connections began."""

    @property
    def stats(self) -> ServerStats:
        return self.crowd.stats

    def begin(self) -> None:
        """Serve who connects from now on, and watch over the connections."""
        if self._entrance is not None:
            tell_of_fork(self)
            self._entrance.serve(self.connection, self._refused_unmade)
        self._sweeper = asyncio.get_running_loop().call_later(self.limits.sweep_s, self._sweep)
        self.service.watch_members(self._notice_members)
        self.service.watch_access(self._notice_access)

    def _refused_unmade(self, kind: str, reason: str, address: str) -> None:
        """A connection did not get through its TLS handshake."""
        self.crowd.stats.handshakes_refused += 1
        self.crowd.refuse(kind, reason, address)

    def connection(self) -> Connection:
        """The protocol of a new connection."""
        return Connection(self.service, self.crowd, Standing(self.gate))

    def trusted_connection(self) -> Connection:
        """The same for a client in this very program, which is asked nothing."""
        return Connection(self.service, self.crowd, Standing(self.gate, TRUSTED))

    def after_fork(self) -> None:
        """In a child: clients are the parent's."""
        crowd = self.crowd
        crowd.closing = True
        for connection in crowd.connections:
            connection.after_fork()
        leave(self._sweeper, self._telling, self._checking, crowd.connections, crowd.tasks)
        self._sweeper = self._telling = self._checking = None
        crowd.connections, crowd.tasks = {}, {}

    async def close(self, grace_s: float = 2.0) -> None:
        """Take no more requests, wait up to `grace_s` seconds for answers that are due, and close."""
        crowd = self.crowd
        crowd.closing = True
        if self._entrance is not None:
            self._entrance.close()
        if self._sweeper is not None:
            self._sweeper.cancel()
        for timer in (self._telling, self._checking):
            if timer is not None:
                timer.cancel()
        for connection in list(crowd.connections):
            connection.end()
        await crowd.gone(grace_s)
        for task in crowd.tasks:
            task.cancel()
        # What a client doesn't read, or a node doesn't answer, can't hold up the end.
        for connection in list(crowd.connections):
            connection.abort()

    def _notice_members(self) -> None:
        """See to it that every client hears of a change of the members, also those that ask for nothing."""
        members = self.service.members.addresses
        if members != self._members and not self.crowd.closing:
            self._members = members
            if self._telling is not None:
                self._telling.cancel()
            self._tell(list(self.crowd.connections))

    def _tell(self, left: list[Connection]) -> None:
        self._telling = None
        for connection in left[:TOLD_AT_ONCE]:
            connection.tell_members()
        if more := left[TOLD_AT_ONCE:]:
            self._telling = asyncio.get_running_loop().call_later(TELL_AGAIN_S, self._tell, more)

    def _notice_access(self) -> None:
        """Judge requests by it at once. Who is no user any more is told so with the next turns."""
        crowd = self.crowd
        for connection in crowd.connections:
            connection.standing.access_changed()
        self._is_checked = False
        if self._checking is None and not crowd.closing:
            self._check_all()

    def _check_all(self) -> None:
        self._is_checked = True
        self._check(list(self.crowd.connections))

    def _check(self, left: list[Connection]) -> None:
        self._checking = None
        for connection in left[:TOLD_AT_ONCE]:
            connection.check_standing()
        later = asyncio.get_running_loop().call_later
        if more := left[TOLD_AT_ONCE:]:
            self._checking = later(TELL_AGAIN_S, self._check, more)
        elif not self._is_checked:
            self._checking = later(TELL_AGAIN_S, self._check_all)

    def _sweep(self) -> None:
        loop = asyncio.get_running_loop()
        now = loop.time()
        for connection in list(self.crowd.connections):
            connection.check_time(now)
            if connection.standing.may_run_out:
                connection.check_standing()
        self._sweeper = loop.call_later(self.limits.sweep_s, self._sweep)
        self.crowd.refusals.tick(now)
        self.audit.tick()
