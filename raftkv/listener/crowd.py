"""All connections of clients together: how many there are, what they hold, and what one of them may ask for."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Coroutine
from itertools import islice
from typing import Any, Generic, Protocol, TypeVar

from raftkv.errors import Busy
from raftkv.listener.limits import ClientLimits, ServerStats
from raftkv.listener.standing import Standing
from raftkv.transport import Refusals

ADMIN_MAX = 64
"""Membership changes and the like under way at once; more than any operator starts."""

PARKED_AT_ONCE = 64
"""Requests that are parked in one turn of the loop, and one for each connection that begins to. They don't count as
waiting, so nothing else bounds how many are taken while commands of others wait."""


GIVE_PLACE = 100
"""One in so many of `connections_max` gives place at once, so that a crowd that comes costs few looks at all."""

LOOK_AGAIN_S = 1.0
"""Where none could give place, that is not looked for again before so long."""


class Guest(Protocol):
    """One of the connections, as all together see it."""

    standing: Standing
    """Who its client is."""
    waiting: int
    """Requests that were taken and not answered."""
    held_bytes: int
    incomplete_since: float | None
    """Since when the handshake or a frame is awaited."""

    def weigh(self) -> int:
        """What it keeps in memory, asked anew."""

    def flush(self) -> None:
        """Send what was answered in this turn of the loop."""

    def go_on(self) -> None:
        """Take more requests: it has made room for others in this turn of the loop."""

    def refuse(self, kind: str, reason: str) -> None:
        """Say in the log what it is closed for."""

    def abort(self) -> None:
        """Close at once."""


G = TypeVar("G", bound=Guest)


class Crowd(Generic[G]):
    """Keeps the connections of clients within the bounds of all together.

    `closing` is set when no more are let in.
    """

    def __init__(self, limits: ClientLimits) -> None:
        self.limits = limits
        self.stats = ServerStats()
        self.refusals = Refusals("client_refused")
        self.closing = False
        self.connections: dict[G, None] = {}  # in order, so that simulated worlds can be repeated
        self.tasks: dict[asyncio.Task[None], None] = {}
        """Operators' requests under way."""
        self._dirty: list[G] = []
        self._parkable = PARKED_AT_ONCE
        self._full_until = 0.0
        """Until when it is known that nobody gives place."""
        self._resting: deque[G] = deque()
        """Those that go on in later turns of the loop."""
        self._empty: asyncio.Future[None] | None = None

    def refuse(self, kind: str, reason: str, address: str) -> None:
        """Say in the log why a connection from `address` was closed."""
        self.refusals.note(kind, reason, address, asyncio.get_running_loop().time())

    def admit(self, connection: G) -> bool:
        """Whether a new connection may stay."""
        if self.closing or (len(self.connections) >= self.limits.connections_max and not self._make_room()):
            return False
        self.connections[connection] = None
        self.stats.connections = len(self.connections)
        return True

    def _make_room(self) -> bool:
        """Close some whose clients were told that they are nobody, or say nothing, the oldest first: who comes may be a
        user. Returns whether there were any."""
        now, most = asyncio.get_running_loop().time(), max(1, self.limits.connections_max // GIVE_PLACE)
        if now < self._full_until:
            return False
        going = list(islice((each for each in self.connections if self._gives_place(each, now)), most))
        if not going:
            self._full_until = now + LOOK_AGAIN_S
        for each in going:
            self.stats.connections_refused += 1
            what = "nobody has signed in" if each.standing.is_found else "nothing was said"
            each.refuse("connections", f"{self.full_text()}, and {what} on this one")
            each.abort()
            self.release(each)
        return bool(going)

    def _gives_place(self, guest: G, now: float) -> bool:
        """Who waits for a password to be tried does not: it is the node that takes its time."""
        standing, since = guest.standing, guest.incomplete_since
        is_silent = not standing.is_found and since is not None and now - since >= self.limits.silent_s
        return standing.is_turned_away or is_silent

    def hold(self, more_bytes: int) -> None:
        """A connection keeps so much more in memory, or less. When it is too much, those are closed that nobody has
        signed in on though one must, and then the others; the largest first."""
        self.stats.held_bytes += more_bytes
        if more_bytes > 0 and self.stats.held_bytes > self.limits.held_bytes_max:
            self._relieve()

    def _relieve(self) -> None:
        """Ask every connection what it holds now, as what was read since is not known here; then close the largest."""
        weights = {connection: connection.weigh() for connection in list(self.connections)}
        order = {each: (each.standing.is_stranger and weight > 0, weight) for each, weight in weights.items()}
        for connection in sorted(order, key=order.__getitem__, reverse=True):
            if self.stats.held_bytes <= self.limits.held_bytes_max:
                break
            self.stats.closed_memory += 1
            connection.refuse("memory", f"it held {weights[connection]} bytes of {self.stats.held_bytes} in all")
            connection.abort()

    def check_share(self, connection: G) -> None:
        """Raises `Busy` for a request over the connection's share, when many others want to be served."""
        crowd = self.limits.crowd_requests
        if self.stats.requests_waiting > crowd and connection.waiting > max(1, crowd // len(self.connections)):
            raise Busy(f"{self.stats.requests_waiting} requests wait here, {connection.waiting} of them of this client")

    def park(self, connection: G) -> bool:
        """A request was parked. Returns whether `connection` may take more in this turn; if not, its `go_on` comes."""
        if self._parkable == PARKED_AT_ONCE:
            asyncio.get_running_loop().call_soon(self._go_on)
        self._parkable -= 1
        if self._parkable > 0:
            return True
        self._resting.append(connection)
        return False

    def _go_on(self) -> None:
        self._parkable = PARKED_AT_ONCE
        while self._resting and self._parkable > 0:
            self._resting.popleft().go_on()

    def full_text(self) -> str:
        """Why there is no place for a connection."""
        if self.closing:
            return "the node is closing"
        return f"{len(self.connections)} connections are open, and connections_max allows no more"

    def release(self, connection: G) -> None:
        """Called when a connection is gone, which makes room for another."""
        if connection in self.connections:
            del self.connections[connection]
            self.stats.held_bytes -= connection.held_bytes
        self.stats.connections = len(self.connections)
        if not self.connections and self._empty is not None and not self._empty.done():
            self._empty.set_result(None)

    def flush_later(self, connection: G) -> None:
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
        if len(self.tasks) >= ADMIN_MAX:
            work.close()
            raise Busy(f"{len(self.tasks)} membership changes, transfers and snapshots are under way")
        task = asyncio.get_running_loop().create_task(work)
        self.tasks[task] = None
        task.add_done_callback(self.tasks.pop)

    async def gone(self, within_s: float) -> None:
        """Wait until no connection is left, at most `within_s` seconds."""
        if self.connections:
            self._empty = asyncio.get_running_loop().create_future()
            await asyncio.wait([self._empty], timeout=within_s)
