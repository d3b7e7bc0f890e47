"""The client-facing listener of a node: accepts connections, keeps them bounded, closes them gracefully."""

from __future__ import annotations

import asyncio
import ssl as tls
from collections.abc import Coroutine
from typing import Any

from raftkv.errors import Busy, Unavailable
from raftkv.forks import leave, let_go, tell_of_fork
from raftkv.listener.connection import Connection
from raftkv.listener.limits import Limits, ServerStats
from raftkv.listener.port import Service
from raftkv.transport import Refusals, Resolver, Shut, TlsServer

TOLD_AT_ONCE = 100
"""Clients that are told of new members before others get a turn: with ten thousand of them it takes a while."""

TELL_AGAIN_S = 0.02
"""Until the next ones are told."""

ADMIN_MAX = 64
"""Membership changes and the like under way at once; more than any operator starts."""

BACKLOG = 1024
"""Connections that the system takes before this node does: all clients may come at once when a leader has gone."""


class Listener:
    """Serves clients of one node.

    ```python
    listener = Listener(node, Limits.of(config))
    await listener.start("127.0.0.1", 7001)
    ```

    All methods are called on the event loop's thread.
    """

    def __init__(self, service: Service, limits: Limits | None = None, *, ssl: tls.SSLContext | None = None) -> None:
        self.service = service
        self.limits = limits if limits is not None else Limits()
        self.stats = ServerStats()
        self.refusals = Refusals("client_refused")
        self._ssl = ssl
        self._connections: dict[Connection, None] = {}  # in order, so that simulated worlds can be repeated
        self._dirty: list[Connection] = []
        self._tasks: dict[asyncio.Task[None], None] = {}
        self._server: asyncio.Server | TlsServer | None = None
        self._sweeper: asyncio.TimerHandle | None = None
        self._taken: tuple[str, int] | None = None
        self._serving = False
        self._members: tuple[str, ...] = ()
        self._telling: asyncio.TimerHandle | None = None
        self._closing = False
        self._empty: asyncio.Future[None] | None = None

    async def start(self, host: str, port: int) -> tuple[str, int]:
        """`listen`, if it does not yet, and serve; returns the address, with the port that was chosen."""
        address = await self.listen(host, port)
        self.begin()
        return address

    async def listen(self, host: str, port: int) -> tuple[str, int]:
        """Take the address, so that it is nobody else's; who connects before `start` is turned away at once.

        Returns it, with the port that was chosen when `port` is 0. Raises `Unavailable` when it can't be had.
        """
        if self._taken is None:
            try:
                self._taken = await self._listen(host, port)
            except OSError as exc:
                raise Unavailable(f"can't listen on {host}:{port}: {exc}") from exc
            tell_of_fork(self)
        return self._taken

    async def _listen(self, host: str, port: int) -> tuple[str, int]:
        hosts = await Resolver().hosts(host)
        if self._ssl is not None:
            self._server = TlsServer(
                self._accept,
                self._ssl,
                handshake_s=self.limits.hello_timeout_s,
                handshakes_max=self.limits.connections_max,
                refused=self._refused_unmade,
            )
            return self._server.listen(hosts, port, BACKLOG)
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(self._accept, hosts, port, backlog=BACKLOG)
        address = self._server.sockets[0].getsockname()
        return str(address[0]), int(address[1])

    def _accept(self) -> asyncio.Protocol:
        return self.connection() if self._serving else Shut()

    def _refused_unmade(self, kind: str, reason: str, address: str) -> None:
        """A connection did not get through its TLS handshake."""
        self.stats.handshakes_refused += 1
        self.refusals.note(kind, reason, address, asyncio.get_running_loop().time())

    def begin(self) -> None:
        """Watch over connections that come in another way than through `start` (a simulated network)."""
        self._serving = True
        self._sweeper = asyncio.get_running_loop().call_later(self.limits.sweep_s, self._sweep)
        self.service.watch_members(self._notice_members)

    def connection(self) -> Connection:
        """The protocol of a new connection."""
        return Connection(self)

    def after_fork(self) -> None:
        """In a child: clients are the parent's, and its address must be free when the parent is gone."""
        self._closing = True
        for sock in self._server.sockets if self._server is not None else ():
            let_go(sock.fileno())
        for connection in self._connections:
            connection.after_fork()
        leave(self._server, self._sweeper, self._telling, self._connections, self._tasks)
        self._server = self._sweeper = self._telling = None
        self._connections, self._tasks = {}, {}

    async def close(self, grace_s: float = 2.0) -> None:
        """Take no more requests, wait up to `grace_s` seconds for answers that are due, and close."""
        self._closing = True
        if self._server is not None:
            self._server.close()
        if self._sweeper is not None:
            self._sweeper.cancel()
        if self._telling is not None:
            self._telling.cancel()
        for connection in list(self._connections):
            connection.end()
        if self._connections:
            self._empty = asyncio.get_running_loop().create_future()
            await asyncio.wait([self._empty], timeout=grace_s)
        for task in self._tasks:
            task.cancel()
        # What a client doesn't read, or a node doesn't answer, can't hold up the end.
        for connection in list(self._connections):
            connection.abort()

    # ------------------------------------------------------------------------------ for connections

    def admit(self, connection: Connection) -> bool:
        """Whether a new connection may stay."""
        if self._closing or len(self._connections) >= self.limits.connections_max:
            return False
        self._connections[connection] = None
        self.stats.connections = len(self._connections)
        return True

    def hold(self, more_bytes: int) -> None:
        """A connection keeps so much more in memory, or less; the largest are closed when it is too much."""
        self.stats.held_bytes += more_bytes
        if more_bytes > 0 and self.stats.held_bytes > self.limits.held_bytes_max:
            self._relieve()

    def _relieve(self) -> None:
        """Ask every connection what it holds now, as what was read since is not known here; then close the largest."""
        weights = {connection: connection.weigh() for connection in list(self._connections)}
        for connection in sorted(weights, key=weights.__getitem__, reverse=True):
            if self.stats.held_bytes <= self.limits.held_bytes_max:
                break
            self.stats.closed_memory += 1
            connection.refuse("memory", f"it held {weights[connection]} bytes of {self.stats.held_bytes} in all")
            connection.abort()

    def check_share(self, connection: Connection) -> None:
        """Raises `Busy` for a request over the connection's share, when many others want to be served."""
        crowd = self.limits.crowd_requests
        if self.stats.requests_waiting > crowd and connection.waiting > max(1, crowd // len(self._connections)):
            raise Busy(f"{self.stats.requests_waiting} requests wait here, {connection.waiting} of them of this client")

    def full_text(self) -> str:
        """Why there is no place for a connection."""
        if self._closing:
            return "the node is closing"
        return f"{len(self._connections)} connections are open, and connections_max allows no more"

    def release(self, connection: Connection) -> None:
        """A connection is gone."""
        if connection in self._connections:
            del self._connections[connection]
            self.stats.held_bytes -= connection.held_bytes
        self.stats.connections = len(self._connections)
        if not self._connections and self._empty is not None and not self._empty.done():
            self._empty.set_result(None)

    def flush_later(self, connection: Connection) -> None:
        """Send what `connection` has to say at the end of this turn of the loop: one callback for all of them."""
        if not self._dirty:
            asyncio.get_running_loop().call_soon(self._flush)
        self._dirty.append(connection)

    def _flush(self) -> None:
        dirty, self._dirty = self._dirty, []
        for connection in dirty:
            connection.flush()

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Run an operator's request. Raises `Busy` when there are too many."""
        if len(self._tasks) >= ADMIN_MAX:
            work.close()
            raise Busy(f"{len(self._tasks)} membership changes, transfers and snapshots are under way")
        task = asyncio.get_running_loop().create_task(work)
        self._tasks[task] = None
        task.add_done_callback(self._tasks.pop)

    def _notice_members(self) -> None:
        """See to it that every client hears of a change of the members, also those that ask for nothing."""
        members = self.service.members.addresses
        if members != self._members and not self._closing:
            self._members = members
            if self._telling is not None:
                self._telling.cancel()
            self._tell(list(self._connections))

    def _tell(self, left: list[Connection]) -> None:
        self._telling = None
        for connection in left[:TOLD_AT_ONCE]:
            connection.tell_members()
        if more := left[TOLD_AT_ONCE:]:
            self._telling = asyncio.get_running_loop().call_later(TELL_AGAIN_S, self._tell, more)

    def _sweep(self) -> None:
        loop = asyncio.get_running_loop()
        now = loop.time()
        for connection in list(self._connections):
            connection.check_time(now)
        self._sweeper = loop.call_later(self.limits.sweep_s, self._sweep)
        self.refusals.tick(now)
