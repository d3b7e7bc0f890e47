"""Rights that are taken and given back while their users write, and nodes are killed, stopped and cut off."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Sequence
from enum import Enum

from raftkv.access import (
    AccessOrder,
    AddRole,
    Enable,
    GiveRole,
    Grant,
    GrantRight,
    NewPassword,
    NewToken,
    NewUser,
    RemoveToken,
    RemoveUser,
    RevokeRight,
    TakeRole,
    digest_of,
)
from raftkv.client import Client, ClientOptions
from raftkv.errors import (
    AccessRejected,
    Forbidden,
    Indeterminate,
    RaftKVError,
    SessionExpired,
    Unauthenticated,
)
from raftkv.processes.cluster import ProcessCluster
from raftkv.worlds.workload import Workload
from tests.chaos.clients import MACHINE
from tests.chaos.fault import RealFault
from tests.chaos.proxy import LinkProxy
from tests.chaos.stage import DEADLINE_S, ChaosStage
from tests.chaos.tally import PAUSE_S, SERVED_S, check
from tests.chaos.trouble import FAULTS, troubled

BOSS, ANN, TESS = "boss", "ann", "tess"
"""Who may do everything; who signs in by a password; and who does so by tokens."""

ROLE = "counter"
GRANT = Grant("command", "increment")

HOLD_S = (0.5, 2.0)
"""Between two changes: several requests begin and end meanwhile, unless nobody leads."""

ASKED = 2
"""Requests that must have been judged before the next change."""

AT_ONCE = 2
"""Clients of one user."""

TTL_S = 4.0
"""Of a token that ends."""

TOKEN_SPARE_S = 1.0
"""So much earlier or later than its time a token may end, for what a node's time is off, and for the way there."""


class May(Enum):
    """What must become of a request that begins now."""

    DO = "do it"
    NOT = "not do it"
    EITHER = "either"


def judge(may: May, key: bytes, *, was_done: bool, said: str = "") -> None:
    """Raises `AssertionError` for a request that ended otherwise than it had to."""
    assert was_done or may is not May.DO, f"{key!r} has the right, and was refused: {said}"
    assert not was_done or may is not May.NOT, f"{key!r} got a request through, though the right was gone"


class Writer:
    """Counts on and on as one user, by what it has to show, and holds each answer against what it must be."""

    def __init__(self, key: bytes, addresses: Sequence[str], sign_in: ClientOptions) -> None:
        self.key = key
        self.judged = 0
        """Requests that ended as they had to, since the last change."""
        self.refused = 0
        self._may = May.EITHER
        self._change = 0
        self._numbers: list[int] = []
        self._unknown = 0
        self._stopping = False
        self._clients: list[Client[Workload]] = [Client(Workload, addresses, options=sign_in) for _ in range(AT_ONCE)]
        self._tasks = [asyncio.ensure_future(self._write(client)) for client in self._clients]

    def must(self, may: May) -> None:
        """From now on requests that begin have to end so."""
        self._may, self._change, self.judged = may, self._change + 1, 0

    async def _write(self, client: Client[Workload]) -> None:
        while not self._stopping:
            may, change = self._may, self._change
            try:
                self._numbers.append(await client.call("increment", self.key))
                self._judge(may, change, was_done=True)
            except (Forbidden, Unauthenticated) as exc:
                self.refused += 1
                self._judge(may, change, was_done=False, said=str(exc))
            except (Indeterminate, SessionExpired):
                self._unknown += 1
            except RaftKVError:
                pass  # certainly not done
            await asyncio.sleep(PAUSE_S)

    def _judge(self, may: May, change: int, *, was_done: bool, said: str = "") -> None:
        """Nothing is known of a request during which something was changed."""
        if may is May.EITHER or change != self._change:
            return
        judge(may, self.key, was_done=was_done, said=said)
        self.judged += 1

    async def asked(self, stage: ChaosStage) -> None:
        """Wait until a few requests were judged. Raises `AssertionError`, also for what came of them."""

        async def look() -> bool | None:
            for task in self._tasks:
                if task.done():
                    task.result()
            return self.judged >= ASKED or None

        await stage.until(look, f"{ASKED} requests of {self.key!r} that must {self._may.value}", SERVED_S)

    async def stop(self, boss: Client[Workload]) -> None:
        """End, and compare with what there is: what was refused must not have been done. Raises `AssertionError`."""
        self._stopping = True
        await asyncio.gather(*self._tasks)
        item = await boss.call("get", self.key)
        check(self.key, self._numbers, self._unknown, int(item.value) if item is not None else 0)

    async def close(self) -> None:
        """End, whatever comes of it."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for client in self._clients:
            await client.close(end_session=False)


class RightsChanged(RealFault):
    """A small cluster beside the other one where everybody signs in: rights are taken from users who write, and given
    back, in every way that there is, while nodes are killed, stopped and cut off.

    What begins after a revocation was acknowledged never gets through, whichever node is asked; what begins after a
    right was given is never refused; and what was refused was not done.
    """

    kind = "rights changed while their users write"
    ended = "a token that ended while its user writes"
    rows = "F90"

    def __init__(self, dice: random.Random) -> None:
        self._dice = dice
        # Not more passwords: five that are wrong have the user wait, which is right, and not what this is about.
        self._stories = ["grant", "role", "user", "password", "removed token", "token that ends", "grant", "role"]
        dice.shuffle(self._stories)

    async def inject(self, stage: ChaosStage) -> None:
        directory = stage.directory / f"rights-{stage.fired[self.kind]}"
        launch, seed = stage.cluster.launch, self._dice.getrandbits(32)
        with (
            ProcessCluster(directory, 3, arguments=MACHINE, apart=True, launch=launch) as cluster,
            LinkProxy.of(cluster, seed) as proxy,
        ):
            own = ChaosStage(cluster, self._dice, directory, proxy)
            cluster.start_all()
            await own.leader()
            sign_in = await _settle_in(own)
            boss = Client(Workload, cluster.addresses, options=own.sign_in)
            writer = Writer(b"written by ann", cluster.addresses, sign_in)
            try:
                await self._tell(stage, own, boss, writer)
                await writer.stop(boss)
                await own.until_equal()
            finally:
                await writer.close()
                await boss.close()

    async def _tell(self, stage: ChaosStage, own: ChaosStage, boss: Client[Workload], writer: Writer) -> None:
        writer.must(May.DO)
        async with troubled(own, self._dice, lambda: _served(boss)) as trouble:
            for story in self._stories:
                own.note(f"{story}, {writer.refused} were refused so far")
                if story in ("removed token", "token that ends"):
                    await self._end_token(own, boss, ends_by_itself=story == "token that ends")
                    stage.met(self.ended)
                else:
                    await self._take_and_give(own, writer, story)
                stage.met(self.kind)
            await trouble.has_come(FAULTS)
        stage.note(f"{len(self._stories)} changes, {writer.refused} requests refused, {trouble.times} faults")

    async def _take_and_give(self, stage: ChaosStage, writer: Writer, story: str) -> None:
        taken, given = _ORDERS[story]
        for order, may in ((taken, May.NOT), (given, May.DO)):
            writer.must(May.EITHER)
            await _ordered(stage, order)
            writer.must(may)
            await asyncio.sleep(self._dice.uniform(*HOLD_S))
            await writer.asked(stage)

    async def _end_token(self, stage: ChaosStage, boss: Client[Workload], *, ends_by_itself: bool) -> None:
        """A token is made, and ends at its time, or is removed."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        token = await _ordered(stage, NewToken(TESS, int(TTL_S * 1000) if ends_by_itself else None))
        made = loop.time()
        key = b"written by tess %d" % self._dice.getrandbits(32)
        writer = Writer(key, stage.cluster.addresses, ClientOptions(token=token))
        try:
            if not ends_by_itself:
                writer.must(May.DO)
                await writer.asked(stage)
                writer.must(May.EITHER)
                await _ordered(stage, RemoveToken(TESS, digest_of(token).hex()))
            else:
                if (left_s := began + TTL_S - TOKEN_SPARE_S - loop.time()) > 0:
                    writer.must(May.DO)
                    await asyncio.sleep(left_s)
                    writer.must(May.EITHER)
                await asyncio.sleep(max(0.0, made + TTL_S + TOKEN_SPARE_S - loop.time()))
            writer.must(May.NOT)
            await writer.asked(stage)
            await writer.stop(boss)
        finally:
            await writer.close()

    def describe(self) -> str:
        return f"{self.kind}: {', '.join(self._stories)}"


_PASSWORDS = {name: f"the password of {name}" for name in (BOSS, ANN)}

_ORDERS: dict[str, tuple[AccessOrder, AccessOrder]] = {
    "grant": (RevokeRight(ROLE, GRANT), GrantRight(ROLE, GRANT)),
    "role": (TakeRole(ANN, ROLE), GiveRole(ANN, ROLE)),
    "user": (RemoveUser(ANN), NewUser(ANN, _PASSWORDS[ANN], (ROLE,))),
    "password": (NewPassword(ANN, "another password"), NewPassword(ANN, _PASSWORDS[ANN])),
}
"""What takes a right from `ANN`, and what gives it back."""

_IS_SO = ("NotGranted", "UnknownRole", "UserExists", "UnknownUser", "RoleExists", "UnknownToken")
"""As what an order is rejected that an earlier try has carried out, though nobody heard of it."""


async def _settle_in(stage: ChaosStage) -> ClientOptions:
    """Users, and that they have to sign in; returns how `ANN` does."""
    await _ordered(stage, NewUser(BOSS, _PASSWORDS[BOSS], ("root",)))
    stage.sign_in = ClientOptions(user=BOSS, password=_PASSWORDS[BOSS])
    token = await _ordered(stage, NewToken(BOSS))
    stage.sign_in = ClientOptions(token=token, deadline_s=SERVED_S)
    for order in (
        AddRole(ROLE),
        GrantRight(ROLE, GRANT),
        NewUser(ANN, _PASSWORDS[ANN], (ROLE,)),
        NewUser(TESS, "", (ROLE,)),
        Enable(),
    ):
        await _ordered(stage, order)
    return ClientOptions(user=ANN, password=_PASSWORDS[ANN], deadline_s=SERVED_S)


async def _ordered(stage: ChaosStage, order: AccessOrder) -> str:
    """Have an order carried out, whoever leads, however often that takes; returns what came of it."""
    tries = 0

    async def once() -> str | None:
        nonlocal tries
        tries += 1
        try:
            async with stage.admin() as admin:
                return await admin.change_access(order)
        except AccessRejected as exc:
            assert tries > 1 and exc.error_type in _IS_SO, f"{order!r}: {exc}"
            return ""
        except (Forbidden, Unauthenticated) as exc:
            raise AssertionError(f"{order!r} of who may do everything was refused: {exc}") from exc
        except RaftKVError as exc:
            stage.note(f"not yet {order!r}: {exc}")
            return None

    return await stage.until(once, repr(order), DEADLINE_S)


async def _served(boss: Client[Workload]) -> None:
    with contextlib.suppress(Indeterminate):  # the connection was lost with the node that was asked
        await boss.call("increment", b"served")
