"""Simulated worlds where everybody signs in: who lost a right gets nothing through, and who has one is not refused."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from functools import partial
from typing import Any

from raftkv.access import (
    AccessChange,
    AccessOrder,
    AddRole,
    AddToken,
    Enable,
    GiveRole,
    Grant,
    GrantRight,
    NewUser,
    RevokeRight,
    TakeRole,
    digest_of,
)
from raftkv.client import Client
from raftkv.errors import (
    AccessRejected,
    Forbidden,
    Indeterminate,
    NotAccepted,
    RaftKVError,
    SessionExpired,
    Unauthenticated,
)
from raftkv.machine import Outcome, access_payload
from raftkv.model import Index
from raftkv.testing.world.cluster import SimCluster
from raftkv.worlds.workload import Workload

REFUSED, GIVEN = "request that must be refused", "right that is given back"

RIGHTS = (REFUSED, GIVEN)

WORLDS_PART = 0.3
"""Of all worlds have users: in the others nobody is asked who they are."""

BOSS, WARD, ROLE = "boss", "ward", "counting"
KEY = b"counted by the ward"
GRANTS = {"increment": Grant("command", "increment"), "get": Grant("query", "get")}

CLIENTS = 3
DEADLINE_S = 8.0
SETTLED_WITHIN_S = 30.0

_ORDERS: tuple[tuple[AccessOrder, AccessOrder, tuple[str, ...]], ...] = (
    (TakeRole(WARD, ROLE), GiveRole(WARD, ROLE), tuple(GRANTS)),
    *[(RevokeRight(ROLE, grant), GrantRight(ROLE, grant), (name,)) for name, grant in GRANTS.items()],
)
"""What takes a right, what gives it back, and what may be called by it."""

_IS_SO = ("NotGranted", "UnknownRole", "UserExists", "RoleExists")
"""As what an order is rejected that an earlier try has carried out, though nobody heard of it."""


class Signing:
    """A user whose rights come and go, and clients of theirs who know at any time what must become of a request."""

    def __init__(self, seed: int, cluster: SimCluster) -> None:
        self._dice = random.Random(f"who may do what in {seed}")
        self._cluster = cluster
        self.is_wanted = self._dice.random() < WORLDS_PART
        # Not as nodes make them: those are random, and a world is to be the same again.
        self._tokens = {user: f"{user} {self._dice.getrandbits(64):x}" for user in (BOSS, WARD)}
        self._may: dict[str, bool | None] = dict.fromkeys(GRANTS, True)
        """By method; None while it is being changed."""
        self._changes = 0
        self._numbers: list[int] = []
        self._unknown = 0
        self._tasks: list[asyncio.Task[None]] = []

    async def settle_in(self) -> None:
        """Before anything goes wrong: users, and that everybody has to sign in."""
        cluster = self._cluster
        await self._ordered(NewUser(BOSS, "", ("root",)))
        await self._applied(AddToken(BOSS, digest_of(self._tokens[BOSS]), None))
        cluster.sign_in = self._signs(BOSS)
        await self._ordered(AddRole(ROLE))
        for grant in GRANTS.values():
            await self._ordered(GrantRight(ROLE, grant))
        await self._ordered(NewUser(WARD, "", (ROLE,)))
        await self._applied(AddToken(WARD, digest_of(self._tokens[WARD]), None))
        await self._ordered(Enable())

    def _signs(self, user: str) -> dict[str, Any]:
        return {"token": self._tokens[user], "insecure": True}

    async def _ordered(self, order: AccessOrder, is_over: Callable[[], bool] = lambda: False) -> bool:
        """Have an order carried out, however often that takes; returns whether it was before all was over."""
        tries = 0
        while not is_over():
            tries += 1
            try:
                # Who gives orders knows where nodes are: all of whom somebody was told before may have moved or gone.
                async with self._cluster.admin(*[node.node_id for node in self._cluster.running]) as admin:
                    await admin.change_access(order, DEADLINE_S)
            except AccessRejected as exc:
                assert tries > 1 and exc.error_type in _IS_SO, f"{order!r} was rejected: {exc}"
            except (NotAccepted, Indeterminate):
                await asyncio.sleep(0.1)
                continue
            return True
        return False

    async def _applied(self, change: AccessChange) -> None:
        """Have a change in the log that operators can't order, as the token in it is known."""
        leader = await self._cluster.until_leader()
        applied: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def told(_: Index, outcome: Outcome | RaftKVError) -> None:
            assert isinstance(outcome, Outcome), f"{change!r} was not done: {outcome}"
            applied.set_result(None)

        leader.engine.submit(access_payload(change), told)
        await asyncio.wait_for(applied, SETTLED_WITHIN_S)

    def begin(self, is_over: Callable[[], bool]) -> None:
        """Have the user's clients ask on and on, until it is over."""
        for _ in range(CLIENTS):
            client = self._cluster.client(**self._signs(WARD), deadline_s=DEADLINE_S)
            asks = partial(self._ask, client, random.Random(self._dice.getrandbits(64)), is_over)
            self._tasks.append(asyncio.ensure_future(asks()))

    async def act(self, is_over: Callable[[], bool]) -> None:
        """Take rights and give them back until the world ends; at the end all are given."""
        while not is_over():
            await asyncio.sleep(self._dice.expovariate(1.0))
            taken, given, names = self._dice.choice(_ORDERS)
            self._must(None, names)
            if await self._ordered(taken, is_over):
                self._must(False, names)
            await asyncio.sleep(self._dice.expovariate(1.0))
            self._must(None, names)
            await self._ordered(given)
            self._must(True, names)
            self._cluster.fired[GIVEN] += 1

    def _must(self, may: bool | None, names: tuple[str, ...]) -> None:
        self._may.update(dict.fromkeys(names, may))
        self._changes += 1

    async def _ask(self, client: Client[Workload], dice: random.Random, is_over: Callable[[], bool]) -> None:
        try:
            while not is_over():
                await asyncio.sleep(dice.expovariate(5.0))
                await self._call(client, dice.choice(list(GRANTS)))
        finally:
            await client.close()

    async def _call(self, client: Client[Workload], name: str) -> None:
        """One request; what was known when it began must still be so when it ends, to judge it."""
        may, changes = self._may[name], self._changes
        try:
            result = await client.call(name, KEY)
        except (Forbidden, Unauthenticated) as exc:
            if changes == self._changes and may is not None:
                assert not may, f"{name} was refused, though {WARD} has the right to it: {exc}"
                self._cluster.fired[REFUSED] += 1
            return
        except (Indeterminate, SessionExpired):
            self._unknown += name == "increment"
            return
        except NotAccepted:
            return
        if name == "increment":
            self._numbers.append(result)
        assert may is not False or changes != self._changes, f"{name} got through, though the right to it was gone"

    async def judge(self, client: Client[Any]) -> None:
        """Raises `AssertionError` also when what was refused was done."""
        await asyncio.gather(*self._tasks)
        item = await client.call("get", KEY)
        value, sure = int(item.value) if item is not None else 0, len(self._numbers)
        assert len(set(self._numbers)) == sure, f"two increments have the same number: {sorted(self._numbers)}"
        assert sure <= value <= sure + self._unknown, f"{value} of {sure} and {self._unknown} unknown"

    async def end(self) -> None:
        """Ask no more."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
