"""A client's way to a cluster: one router, which is started by the first request, and its settings."""

from __future__ import annotations

import asyncio
import random
import ssl as tls
from collections.abc import Sequence

from raftkv.addresses import parse
from raftkv.client.book import AddressBook
from raftkv.client.call import Answer, PendingCall
from raftkv.client.dial import Dial, Dialler
from raftkv.client.options import SECONDS_MAX, ClientOptions
from raftkv.client.router import Router
from raftkv.config import KIB
from raftkv.errors import InvalidArgument, Unavailable, WrongLoop
from raftkv.forks import leave, tell_of_fork
from raftkv.history import lineage_of
from raftkv.wire import RequestKind

FRAME_MARGIN = 4 * KIB
"""What a request's frame may need besides its payload."""


class Channel:
    """Sends requests of one event loop to the cluster at `addresses`, until `close`."""

    def __init__(
        self,
        addresses: Sequence[str],
        options: ClientOptions,
        *,
        ssl: tls.SSLContext | None = None,
        dial: Dial | None = None,
        chance: random.Random | None = None,
        learns: bool = True,
    ) -> None:
        """Without `learns` it never asks other nodes than those at `addresses`.

        Raises `InvalidArgument` for an address that can't be read, and `ConfigError` for one to which a password or
        token may not be sent.
        """
        if isinstance(addresses, str) or not addresses:
            raise InvalidArgument(f"addresses = {addresses!r}: must be a list with at least one host:port")
        for address in addresses:
            parse(address)
        options.check_addresses(tuple(addresses), has_tls=ssl is not None)
        self.options = options
        self._addresses = tuple(addresses)
        self._learns = learns
        self._ssl = ssl
        self._dial = dial
        self._chance = chance if chance is not None else random.Random()  # noqa: S311 (it spreads retries)
        self._router: Router | None = None
        self.closed = False
        tell_of_fork(self)

    def after_fork(self) -> None:
        """In a child, drop the parent's connections. The next request makes new ones, on the loop that runs then."""
        if self._router is not None:
            # The addresses that the parent has learned are good for the child as well.
            self._addresses = tuple(dict.fromkeys((*self._addresses, *self._router.addresses)))
            self._router.after_fork()
            leave(self._router)
            self._router = None

    @property
    def router(self) -> Router:
        """The router, which is made at the first use, because it belongs to the running loop."""
        if self._router is None:
            book = AddressBook(self._addresses, learns=self._learns)
            dialler = Dialler(self.options, ssl=self._ssl, dial=self._dial)
            self._router = Router(book, self.options, dialler, self._chance)
        return self._router

    @property
    def lineage(self) -> str:
        """What cursors of the cluster say of it; empty as long as none was met."""
        return lineage_of(self._router.cluster_id) if self._router is not None else ""

    @property
    def addresses(self) -> tuple[str, ...]:
        """Where it looks for the cluster: the addresses that it was given, and those that it has learned."""
        return self._router.addresses if self._router is not None else self._addresses

    @property
    def connected_to(self) -> str | None:
        """The address that calls go to at the moment."""
        return self._router.leader_address if self._router is not None else None

    def check(self, payload_bytes: int, deadline_s: float) -> None:
        """Raises `InvalidArgument` for a request that is too large, or has no time, and `WrongLoop`."""
        self.is_on_this_loop()
        if not 0 < deadline_s <= SECONDS_MAX:
            raise InvalidArgument(f"deadline_s = {deadline_s!r}: must be above 0 and at most {SECONDS_MAX:g}")
        if payload_bytes + FRAME_MARGIN > self.options.frame_bytes_max:
            raise InvalidArgument(f"a request of {payload_bytes} bytes: must be below {self.options.frame_bytes_max}")

    def is_on_this_loop(self, *, closing: bool = False) -> bool:
        """Whether the running loop is the one that this belongs to, as far as it belongs to any.

        Raises `WrongLoop` otherwise; not when that loop is closed, and with it all connections, and it is to be closed.
        """
        loop = self._router.loop if self._router is not None else None
        if loop is None or loop is asyncio.get_running_loop():
            return True
        if closing and loop.is_closed():
            return False
        state = "was closed" if loop.is_closed() else "is another one"
        raise WrongLoop(
            f"the client belongs to the event loop of its first call, which {state}: make a client on each loop "
            "(in each asyncio.run), or use a BlockingClient, which any thread may call"
        )

    def new_call(
        self,
        kind: RequestKind,
        payload: bytes,
        deadline_s: float,
        *,
        changes_state: bool = False,
        repeatable: bool = True,
        stale: bool = False,
        parks: bool = False,
    ) -> PendingCall:
        """Make a call whose deadline counts from now. Raises as `check` does."""
        self.check(len(payload), deadline_s)
        loop = asyncio.get_running_loop()
        return PendingCall(
            kind,
            payload,
            loop.create_future(),
            deadline=loop.time() + deadline_s,
            deadline_s=deadline_s,
            changes_state=changes_state,
            repeatable=repeatable,
            stale=stale,
            parks=parks,
        )

    async def perform(self, call: PendingCall) -> Answer:
        """Send a call and wait for its end; raises as `Client` says."""
        if self.closed:
            raise Unavailable("the client is closed")
        router = self.router
        try:
            router.submit(call)
            return await call.future
        finally:
            router.finish(call)

    async def close(self) -> None:
        """Close the connections; calls that still wait end with `Indeterminate` or `Unavailable`."""
        if self._router is not None and self.is_on_this_loop(closing=True):
            self.closed = True
            await self._router.close()
        self.closed = True
