"""Decides of each request whether whoever sends it has the right to, before anything else is done with it.

It goes by the users and roles in the state that this node has applied. So a change of rights counts on a node from the
entry on that makes it there, for connections that stand as well. What only the leader does, only the leader refuses:
another node may not have heard yet of a user who is new, and sends the client on as it does anyway. Before a leader
refuses it makes sure that it leads: one that was deposed, and does not know, may not have heard of a right either. And
a linearizable query, which any node answers, is looked at again when its turn comes: then the node has applied all that
was acknowledged before it was asked, also that a right was taken.

While nobody is asked who they are, a request costs one test of an attribute of its connection.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from raftkv.access import Access, Enable
from raftkv.errors import AccessRejected, Busy, Forbidden, NotLeader, RaftKVError, SessionExpired, Unauthenticated
from raftkv.listener.audit import Audit
from raftkv.listener.demands import Demand, demand_of, is_for_leaders
from raftkv.listener.identity import Identity
from raftkv.listener.interface import Service
from raftkv.listener.limits import ServerStats
from raftkv.listener.signins import Run, SignIns
from raftkv.machine import NO_SESSION
from raftkv.model import NodeId
from raftkv.wire import Request, RequestKind, SignIn


class Unconfirmed(Exception):
    """A leader would refuse a request, if it still is the leader."""


class SignInAnew(Busy):
    """What a client has shown may be right by now: it is tried again, as that of whoever comes, on another
    connection."""


class Gate:
    """What all connections of a node ask about their clients."""

    def __init__(
        self, service: Service, stats: ServerStats, audit: Audit, workers: Sequence[Run], clock: Callable[[], float]
    ) -> None:
        """`workers` try passwords; `clock` gives seconds."""
        self._service = service
        self._stats = stats
        self.audit = audit
        self.sign_ins = SignIns(lambda: service.access, stats, workers, clock=clock, now_ms=service.requests.present_ms)

    @property
    def access(self) -> Access:
        """Users and roles, as this node has applied them."""
        return self._service.access

    def asks(self, identity: Identity) -> bool:
        """Whether requests of a connection have to be looked at: they are checked, or belong to a user."""
        return not identity.is_trusted and (self.access.is_on or identity.user is not None)

    def now(self, identity: Identity) -> Identity:
        """Who it is by now."""
        return identity.now(self.access, self._service.requests.present_ms())

    def demand(self, identity: Identity, request: Request, address: str, *, is_sure: bool) -> Demand:
        """What a request needs, which its user has. Raises `Unauthenticated`, `Forbidden`, and `InvalidArgument` for
        what can't be read; and instead of the first two `NotLeader` where only the leader is to decide, `Busy` where
        that can't decide yet, `Unconfirmed` where it must make sure first that it leads, unless it `is_sure`, or
        `SignInAnew`."""
        if is_for_leaders(request) and self._leads and not self._service.requests.knows_all:
            raise Busy("this leader has not applied yet all that was acknowledged before: who may do what, for one")
        try:
            if self.access.is_on and identity.user is None:
                raise Unauthenticated(identity.why)
            demand = demand_of(request, self._service.requests.machine)
            self.check(identity, demand)
            self._check_session(identity, demand)
        except (Unauthenticated, Forbidden) as exc:
            if is_for_leaders(request) and identity.by != "nothing":
                if not self._leads:
                    raise NotLeader(self._leader) from None
                if not is_sure:
                    raise Unconfirmed from None
            self.check_verdict(identity)
            self.refused(identity, request.kind, address, exc)
            raise
        return demand

    def check_verdict(self, identity: Identity) -> None:
        """Raises `SignInAnew` if a password was wrong by what this node knew then, and may be right by now."""
        if self.access.is_on and identity.may_be_known(self.access):
            raise SignInAnew("users have changed since a password was shown here: sign in again, it may be right now")

    def check(self, identity: Identity, demand: Demand, *, always: bool = False) -> None:
        """Whether a user has, now, what is needed; `always`: also while nobody is asked who they are. Raises
        `Forbidden` or `Unauthenticated`."""
        access = self.access
        if not (access.is_on or always):
            return
        if identity.user is None:
            raise Unauthenticated(identity.why)
        rights, what = access.rights(identity.user), demand.what
        if what == "admin":
            allowed = rights.may_admin(demand.name)
        elif what == "user":
            allowed = identity.user in access.users
        elif what == "any command" or what == "any query":
            allowed = rights.may_call_any("command" if what == "any command" else "query")
        else:
            allowed = rights.may_call(what, demand.name, demand.touches)
        if not allowed:
            keys = ", nor one for all keys that it touches" if demand.touches else ""
            raise Forbidden(f"{identity.user} may not: no role of theirs grants `{demand.describe()}`{keys}")

    def _check_session(self, identity: Identity, demand: Demand) -> None:
        """A session is of the user who has opened it. Whose it is stands in the state, so that every leader knows."""
        session = demand.session
        if session == NO_SESSION or not self.access.is_on or not self._leads:
            return
        if session > self._service.requests.applied_index:
            raise Busy(f"this leader has not applied yet what opened session {session}")
        owner = self._service.requests.session_owner(session)
        if owner is None:
            return  # there is none, which is what the command will be told
        if owner == "":
            raise SessionExpired(f"session {session} is nobody's: it was opened before users had to sign in")
        if owner != identity.user:
            raise Forbidden(f"{identity.user} may not use session {session}: another user has opened it")

    @property
    def _leader(self) -> NodeId | None:
        leader = self._service.leader
        return leader.node_id if leader is not None else None

    @property
    def _leads(self) -> bool:
        return self._leader == self._service.node_id

    async def prove(self, order: Enable, host: str, address: str) -> str:
        """The user whose password or token is in an order of somebody from `host` who is none. It is tried as that of
        whoever signs in is: beside the loop, few at once, and who has failed often has to wait.

        Raises `AccessRejected`, `Busy`, and `NotLeader` elsewhere than at the leader, before anything is tried."""
        if not self._leads:
            raise NotLeader(self._leader)
        found: asyncio.Future[Identity] = asyncio.get_running_loop().create_future()

        def done(identity: Identity) -> None:
            if not found.done():
                found.set_result(identity)

        self.sign_ins.begin(SignIn(order.user, order.password, order.token), (), host, done)
        identity = await found
        if identity.user is None:
            self.audit.not_signed_in(identity, address, order.user if order.user in self.access.users else "")
            raise AccessRejected(
                "NotProven",
                f"nobody has signed in: {identity.why}; it takes a user with the role root, so that nobody is locked "
                "out",
            )
        return identity.user

    def not_signed_in(self, identity: Identity, address: str, user: str) -> None:
        """Tell of a wrong password or token."""
        if self.access.is_on:
            self.audit.not_signed_in(identity, address, user if user in self.access.users else "")

    def refused(self, identity: Identity, kind: RequestKind, address: str, error: RaftKVError) -> None:
        """Count a request that was refused, and tell of it."""
        if isinstance(error, Forbidden):
            self._stats.forbidden += 1
        else:
            self._stats.unauthenticated += 1
        self.audit.refused(identity, kind, address, error)
