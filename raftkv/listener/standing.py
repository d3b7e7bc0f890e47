"""Who the client of one connection is, by which its requests are judged, and whether that still holds."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial

from raftkv.errors import Busy, Forbidden, RaftKVError, Unauthenticated
from raftkv.listener.admin import run_admin
from raftkv.listener.demands import Demand
from raftkv.listener.gate import Gate
from raftkv.listener.identity import NOBODY, Identity, certificate_names, host_of
from raftkv.listener.interface import Service
from raftkv.transport import address_text
from raftkv.wire import Request, Response, SignIn


class Standing:
    """A connection's client, as its node knows it.

    Invariants: `is_asked` is false only while this client may do everything; a user who is none any more, or does not
    sign in like this any more, has no right from the entry on that has made it so.
    """

    def __init__(self, gate: Gate, identity: Identity = NOBODY) -> None:
        """`identity` is who it is before it has said so."""
        self._gate = gate
        self._vetted = gate.access.generation
        """By which state of users and roles `identity` holds."""
        self.identity = identity
        self.is_asked = gate.asks(identity)
        """Whether its requests have to be looked at."""
        self.is_found = identity.is_trusted
        """Whether it was found out who it is."""
        self.lost = ""
        """Why it is not the user any more that it was."""
        self._host: str = identity.by
        """Where it is from, once it has said who it is."""

    @property
    def user(self) -> str | None:
        return self.identity.user

    @property
    def may_know_members(self) -> bool:
        """Whether it is told where the members are."""
        return not self.is_asked or self.identity.user is not None

    @property
    def is_stranger(self) -> bool:
        """Whether it may do nothing, as users have to sign in and it is none, or not yet."""
        return self.is_asked and self.identity.user is None

    @property
    def is_turned_away(self) -> bool:
        """Whether it was found out that it is none."""
        return self.is_found and self.is_stranger

    def sign_in(self, shown: SignIn | None, transport: asyncio.Transport, done: Callable[[], None]) -> None:
        """Find out who it is; calls `done` when that is known, at once or later. Raises `Busy`."""
        if self.identity.is_trusted:
            done()
            return

        def found(identity: Identity) -> None:
            self.identity, self.is_found = identity, True
            self.renew()
            if shown is not None and identity.user is None:
                self._gate.not_signed_in(identity, address_text(info("peername")), shown.user)
            done()

        info = transport.get_extra_info
        self._host = host_of(info("peername"))
        self._gate.sign_ins.begin(shown, certificate_names(info("peercert")), self._host, found)

    def access_changed(self) -> None:
        """Users, roles, or whether anybody is asked for them are otherwise: judge requests by that from now on."""
        self.is_asked = self._gate.asks(self.identity)

    @property
    def may_run_out(self) -> bool:
        """Whether it may be nobody by now, although nothing has changed."""
        return self.identity.by == "token"

    def renew(self) -> None:
        """Look at who it is by now. Whoever was a user, and is none any more, signs in anew."""
        if self.lost:
            return
        gate, before = self._gate, self.identity
        self._vetted, self.identity = gate.access.generation, gate.now(before)
        if before.user is not None and self.identity.user is None:
            self.lost = self.identity.why
        self.is_asked = gate.asks(self.identity)

    def demand(self, request: Request, address: str, *, is_sure: bool) -> Demand:
        """What a request needs, which its client has a right to. Raises as `Gate.demand`."""
        if self._gate.access.generation != self._vetted or self.identity.by == "token":
            self.renew()
        return self._gate.demand(self.identity, request, address, is_sure=is_sure)

    async def order(self, service: Service, request: Request, address: str) -> Response:
        """Do what an operator asked, and tell the log of it. Raises what the service raises."""
        identity = self.identity
        try:
            prove = partial(self._gate.prove, host=self._host, address=address)
            response = await run_admin(service, request, identity.user, prove)
        except RaftKVError as exc:
            self._gate.audit.ordered(identity, request.kind, address, exc)
            raise
        self._gate.audit.ordered(identity, request.kind, address, None)
        return response

    def refusal_by_now(self, request: Request, demand: Demand | None, address: str) -> RaftKVError | None:
        """Why the result of a linearizable query is not told, if it is not, and the log is told of that. This node may
        have been behind when it was asked, and has applied by now what was acknowledged before."""
        try:
            self.check_still(demand)
        except RaftKVError as exc:
            if isinstance(exc, Unauthenticated | Forbidden):
                self._gate.refused(self.identity, request.kind, address, exc)
            return exc
        return None

    def check_still(self, demand: Demand | None) -> None:
        """Raises what a request that has waited for long would be refused by now."""
        if not self.is_asked:
            return
        self.renew()
        self._gate.check_verdict(self.identity)
        if demand is not None:
            self._gate.check(self.identity, demand)
        elif self._gate.access.is_on:
            if self.identity.user is None:
                raise Unauthenticated(self.identity.why)
            raise Busy("users have to sign in since this was asked, so nobody has looked at it: ask again")
