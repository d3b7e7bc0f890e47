"""Carries out what operators order about users and roles: makes a change of the order, and has it in the log."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from functools import partial
from typing import TypeVar, assert_never

import msgspec

from raftkv.access import (
    Access,
    AccessAsk,
    AccessChange,
    AccessOrder,
    AddRole,
    AddToken,
    AddUser,
    Enable,
    GiveRole,
    GrantRight,
    NewPassword,
    NewToken,
    NewUser,
    RemoveRole,
    RemoveToken,
    RemoveUser,
    RevokeRight,
    SetCertificates,
    SetPassword,
    TakeRole,
    TurnOff,
    TurnOn,
    check_change,
    check_verb,
    digest_of,
    new_token,
    shown,
)
from raftkv.errors import AccessRejected, ChangeRefused, Indeterminate, RaftKVError, Unavailable
from raftkv.logs import EventLog
from raftkv.machine import Outcome, OutcomeKind, access_payload, read_rejection
from raftkv.model import Index, NodeId
from raftkv.node.applier import Applier
from raftkv.node.body import Body
from raftkv.node.engine import Engine
from raftkv.node.peers.told import Told
from raftkv.node.waiting import Query
from raftkv.node.workers import settle

logger = EventLog(__name__)

T = TypeVar("T")


class Accounts:
    """Changes users and roles, and shows them. Passwords are hashed, and tried, on the background worker's thread."""

    def __init__(self, body: Body, engine: Engine, applier: Applier, told: Mapping[NodeId, Told]) -> None:
        """`told` is what peers have said in their handshakes."""
        self._body = body
        self._engine = engine
        self._applier = applier
        self._told = told

    @property
    def _access(self) -> Access:
        return self._applier.runner.access

    async def change(self, order: AccessOrder, by: str | None, deadline_s: float) -> str:
        """Carry out an order of the user `by` (None: of somebody who has not signed in); it is applied here on return.
        Returns the new token, if one was ordered, else nothing.

        Raises `AccessRejected` when users and roles do not allow it, `InvalidArgument`, `NotLeader`, `ChangeRefused`
        while a member can't read such a change, `NotAccepted`, or `Indeterminate` after the deadline: it may happen.
        """
        self._check_leads()
        self._check_members()
        token = new_token() if isinstance(order, NewToken) else ""
        change = await self._change_of(order, by, token)
        check_change(change)
        self._check_leads()
        applied: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        self._engine.submit(access_payload(change), partial(_tell, applied))
        try:
            outcome = await asyncio.wait_for(applied, deadline_s)
        except TimeoutError:
            raise Indeterminate(f"the change is not applied within {deadline_s:g} s; it may still be: look") from None
        if outcome.kind is not OutcomeKind.APPLIED:
            rejection = read_rejection(outcome.payload)
            raise AccessRejected(rejection.error_type, rejection.message)
        logger.info("access_changed", node=self._body.node_id, change=repr(change), by=by)
        return token

    async def _change_of(self, order: AccessOrder, by: str | None, token: str) -> AccessChange:
        """The order as it may stand in the log: without any secret."""
        match order:
            case NewUser():
                password = await self._hashed(order.password)
                return AddUser(order.user, password, order.roles, order.certificates)
            case NewPassword():
                return SetPassword(order.user, await self._hashed(order.password))
            case NewToken():
                return AddToken(order.user, digest_of(token), order.ttl_ms)
            case Enable():
                await self._check_is_root(order, by)
                return TurnOn()
            case GrantRight():
                check_verb(order.grant)
                return order
            case (
                RemoveUser()
                | SetCertificates()
                | AddRole()
                | RemoveRole()
                | RevokeRight()
                | GiveRole()
                | TakeRole()
                | RemoveToken()
                | TurnOff()
            ):
                return order
            case _:
                assert_never(order)

    async def _hashed(self, password: str) -> str:
        if not password:
            return ""
        return await self._body.world.background_worker.run(_hash, password)

    async def _check_is_root(self, order: Enable, by: str | None) -> None:
        """Raises `AccessRejected` unless whoever orders it has just shown to be a user who may do everything: else it
        could be turned on by somebody who can't get in any more."""
        access = self._access
        if access.is_on:
            return  # that is done, and changes nothing
        if by is None and order.token:
            by = access.user_of_token(digest_of(order.token), self._body.world.now_ms())
        elif by is None and order.password:
            by = order.user if await self._is_password_of(order.user, order.password) else None
        if not self._access.rights(by).is_root:
            who = "nobody has signed in" if by is None else f"{by} is signed in, who does not have the role root"
            raise AccessRejected(
                "NotProven",
                f"{who}: sign in as a user with the role root to turn it on, so that nobody is locked out",
            )

    async def _is_password_of(self, name: str, password: str) -> bool:
        user = self._access.users.get(name)
        kept = user.password if user is not None else ""
        return await self._body.world.background_worker.run(_verify, kept, password)

    def _check_leads(self) -> None:
        self._body.check_answers()
        self._body.raft.require_leader()

    def _check_members(self) -> None:
        """Raises `ChangeRefused` for the first change while a member is known to run a raftkv that could not read it,
        or is not known to. Where there was a change before, each member that has applied it can read this one."""
        if self._access.generation:
            return
        members = [member.node_id for member in self._body.raft.membership.members]
        others = [node for node in members if node != self._body.node_id]
        if missing := [node for node in others if node not in self._told]:
            raise ChangeRefused(f"nodes {missing} were not met yet: start them, so that it is known what they run")
        if older := [node for node in others if not self._told[node].knows_users]:
            raise ChangeRefused(f"nodes {older} run an older raftkv, which knows of no users: start this one there")

    async def show(self, ask: AccessAsk, deadline_s: float) -> bytes:
        """Users or roles as the leader has them now, as an encoded `AccessShown`. Raises `NotAccepted`."""
        self._body.check_answers()
        found: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

        def listed() -> bytes:
            return msgspec.msgpack.encode(shown(self._access, ask))

        self._engine.query(Query(b"", partial(_tell, found), deadline_s, found.cancelled, listed))
        try:
            return await asyncio.wait_for(found, deadline_s)
        except TimeoutError:
            raise Unavailable(f"no leader has confirmed it within {deadline_s:g} s") from None


def _tell(waiting: asyncio.Future[T], _: Index, result: T | RaftKVError) -> None:
    settle(waiting, result)


# Both are called in a thread, and so is the library imported there: a node without users runs without it, and with
# them no loop waits for it.


def _hash(password: str) -> str:
    from raftkv.access.passwords import hash_password

    return hash_password(password)


def _verify(kept: str, password: str) -> bool:
    from raftkv.access.passwords import verify_password

    return verify_password(kept, password)
