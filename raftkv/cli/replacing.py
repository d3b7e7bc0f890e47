"""`raftkv replace`: another node in the place of one that is dead, step by step, each only while a majority bears it.

Where a replacement stands is read from the cluster before each step, and nothing is kept anywhere else. So the same
command goes on where an earlier one has ended, on any machine.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from enum import Enum, auto

import click
import msgspec

from raftkv.cli.common import Target, cluster_command
from raftkv.cli.output import print_json
from raftkv.cli.progress import stderr
from raftkv.cli.settings import parse_member
from raftkv.cli.transfer import seen_by_leader, transfer_shown
from raftkv.cli.view import informed, look
from raftkv.client import Admin
from raftkv.doctor import ClusterView
from raftkv.errors import ChangeRefused, Indeterminate, InvalidArgument, Unavailable
from raftkv.model import NODE_ID_MAX, Member, Membership, NodeId
from raftkv.node.status import NodeStatus

LOOK_S = 0.5

ELECTION_S = 5.0
"""How long there may be no leader before that is taken for more than an election."""

SILENT_MS = 5_000
"""A node that the leader has not heard of for so long is not counted as up, whatever its connection looks like."""

STEP_S = 30.0
"""A change of the members takes milliseconds; one that is not done by then may still happen, and is looked for."""


class Step(Enum):
    """What is to be done next."""

    ADD = auto()
    WAIT = auto()
    """A change of the members is under way."""
    START = auto()
    PROMOTE = auto()
    REMOVE = auto()
    DONE = auto()


class Replacement(msgspec.Struct, frozen=True):
    """Node `new` in the place of node `old`."""

    old: NodeId
    new: Member
    is_planned: bool = False
    """Whether the old one may be alive."""

    def next_step(self, membership: Membership, is_reached: bool) -> Step:
        """By what the leader knows; `is_reached` is said of the new node. Raises `InvalidArgument`."""
        old, new = self.old, self.new
        present = membership.member(new.node_id)
        if membership.is_joint:
            return Step.WAIT
        if membership.member(old) is None and old not in membership.removed:
            raise InvalidArgument(f"node {old} is no member ({membership.describe()}): which one is dead?")
        if old in membership.learners:
            raise InvalidArgument(
                f"node {old} has no vote: raftkv member remove {old}, then raftkv member add for another"
            )
        if present is None:
            if old in membership.removed and len(membership.voters) % 2:
                raise InvalidArgument(
                    f"node {old} is removed already, and there is an odd number of voters ({membership.describe()}): "
                    f"it seems to be replaced. To add node {new.node_id} all the same: raftkv member add"
                )
            return Step.ADD
        if present != new:
            raise InvalidArgument(
                f"node {new.node_id} is a member at {present.peer_address}/{present.client_address}: say that, or take "
                "another id"
            )
        if new.node_id in membership.voters:
            return Step.DONE if membership.member(old) is None else Step.REMOVE
        return Step.PROMOTE if is_reached else Step.START

    def check(self, leader: NodeStatus, step: Step) -> None:
        """Raises `ChangeRefused` when the cluster would have no majority after `step` or before the end."""
        voters, up = set(leader.membership.voters), _up(leader)
        if not self.is_planned and self.old in up:
            raise ChangeRefused(
                f"node {self.old} is up: if it shall go all the same, add --planned (or look again which one is dead)"
            )
        if step is not Step.REMOVE:
            up = up | {self.new.node_id}  # it has to be there before it gets a vote
            self._check_majority(voters | {self.new.node_id}, up, f"with node {self.new.node_id}, too, as a voter")
        self._check_majority((voters | {self.new.node_id}) - {self.old}, up, f"without node {self.old}")

    def _check_majority(self, voters: set[NodeId], up: set[NodeId], when: str) -> None:
        needed = len(voters) // 2 + 1
        there = sorted(voters & up)
        if len(there) < needed:
            down = ", ".join(map(str, sorted(voters - up)))
            raise ChangeRefused(
                f"{when}, {needed} of the voters {sorted(voters)} are needed and only {there} would be up: nothing "
                f"would be served any more. Start node {down} first"
            )


def _up(leader: NodeStatus) -> set[NodeId]:
    """The leader, and whom it hears."""
    heard = {peer.node_id for peer in leader.peers if peer.connected and (peer.silent_ms or 0) < SILENT_MS}
    return heard | {leader.node_id}


class Replacing:
    """Carries out a replacement; `where` says how far it is."""

    def __init__(self, target: Target, replacement: Replacement, say: Callable[[str], None]) -> None:
        self._target = target
        self._replacement = replacement
        self._say = say
        self.where = "nothing was changed yet"

    async def run(self) -> Membership:
        """Until it is done. Raises `InvalidArgument`, `ChangeRefused`, and `Unavailable` when the time is over."""
        end = asyncio.get_running_loop().time() + self._target.timeout_s
        target, waited_for = self._target, None
        async with self._target.admin() as admin:
            while True:
                view, leader = await _led(target)
                target = informed(self._target, view)
                step = self._next(view, leader)
                if step is Step.DONE:
                    return leader.membership
                self._check_time(end)
                if step in (Step.START, Step.WAIT):
                    if step is not waited_for:
                        self._say_waiting(step)
                    waited_for = step
                    await asyncio.sleep(LOOK_S)
                    continue
                self._replacement.check(leader, step)
                with contextlib.suppress(Indeterminate):  # what came of it is seen in the next round
                    await self._do(admin, step, end)
                waited_for = None

    def _next(self, view: ClusterView, leader: NodeStatus) -> Step:
        peer = seen_by_leader(view, self._replacement.new.node_id)
        return self._replacement.next_step(leader.membership, peer is not None and peer.connected)

    async def _do(self, admin: Admin, step: Step, end: float) -> None:
        old, new = self._replacement.old, self._replacement.new
        if step is Step.ADD:
            await admin.add_learner(new, STEP_S)
            self._now(f"node {new.node_id} is added; it gets the log, and has no vote yet")
        elif step is Step.PROMOTE:
            self.where = f"node {new.node_id} is added and may still get its vote, as soon as it has caught up"
            async with transfer_shown(self._target, new.node_id):
                await admin.promote(new.node_id, max(LOOK_S, end - asyncio.get_running_loop().time()))
            self._now(f"node {new.node_id} has caught up, and has a vote")
        else:
            self.where = f"node {new.node_id} has a vote, and node {old} may be removed by now"
            await admin.remove(old, STEP_S)
            self._now(f"node {old} is removed for good")

    def _now(self, where: str) -> None:
        self.where = where
        self._say(where)

    def _say_waiting(self, step: Step) -> None:
        if step is Step.WAIT:
            self._say("waiting for the end of a change of the members that is under way")
            return
        new = self._replacement.new
        self.where = f"node {new.node_id} is added, and is not started yet"
        self._say(
            f"waiting for node {new.node_id}: start it on its machine, in an empty directory, with the settings of the "
            f"others:\n  raftkv serve --node-id {new.node_id} --join --listen {new.client_address} "
            f"--peer-listen {new.peer_address}"
        )

    def _check_time(self, end: float) -> None:
        if asyncio.get_running_loop().time() >= end:
            raise Unavailable(
                f"not within {self._target.timeout_s:g} s: {self.where}; the same command goes on from here"
            )


async def _led(target: Target) -> tuple[ClusterView, NodeStatus]:
    """The cluster and its leader, which may just be elected. Raises `Unavailable`."""
    loop = asyncio.get_running_loop()
    end = loop.time() + ELECTION_S
    while True:
        view = await look(target)
        if view.leader is not None:
            return view, view.leader
        if loop.time() >= end:
            raise Unavailable(
                "there is no leader, so a majority of the voters is down, and no node can be replaced: start others "
                "first; if they are lost for good, see raftkv recover --help"
            )
        await asyncio.sleep(LOOK_S)


class _Pair(click.ParamType):  # type: ignore[type-arg]
    """OLD=NEW@PEER/CLIENT."""

    name = "replacement"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> Replacement:
        """Raises `click.BadParameter`."""
        if isinstance(value, Replacement):
            return value
        old, _, rest = str(value).partition("=")
        new, _, addresses = rest.partition("@")
        if not (old.isascii() and old.isdigit() and 1 <= int(old) <= NODE_ID_MAX and new and addresses):
            self.fail(f"{value!r}: must be OLD=NEW@PEER/CLIENT, such as 2=4@10.0.0.4:8001/10.0.0.4:7001", param, ctx)
        try:
            member = parse_member(f"{new}={addresses}")
        except ValueError as exc:
            self.fail(f"{value!r}: NEW@PEER/CLIENT: {exc}", param, ctx)
        if member.node_id == int(old):
            self.fail(f"{value!r}: an id never comes back: give the new node one that was never used", param, ctx)
        return Replacement(int(old), member)


@click.command("replace")
@click.argument("replacement", type=_Pair(), metavar="OLD=NEW@PEER/CLIENT")
@click.option("--planned", is_flag=True, help="The old node may be up: it is not dead, but shall go.")
@cluster_command(timeout_s=3600.0)
def replace(target: Target, replacement: Replacement, planned: bool) -> None:
    """Put another node in the place of a dead one: add it, wait until it has everything, give it the vote, remove the
    old one.

    \b
      raftkv replace 2=4@10.0.0.4:8001/10.0.0.4:7001
      raftkv serve --node-id 4 --join --listen 10.0.0.4:7001 --peer-listen 10.0.0.4:8001    on its machine, any time

    The new id must never have been used. Each step is refused (exit code 3) when no majority would be up after it.
    After Ctrl-C, or on another machine, the same command goes on where this one has ended.
    """
    replacement = msgspec.structs.replace(replacement, is_planned=planned)
    replacing = Replacing(target, replacement, lambda text: stderr().print(text, markup=False, soft_wrap=True))
    membership = target.run(replacing.run, None, lambda: f"{replacing.where}; the same command goes on from here")
    if target.as_json:
        print_json({"old": replacement.old, "new": replacement.new.node_id, "membership": membership})
    else:
        click.echo(
            f"node {replacement.new.node_id} is in the place of node {replacement.old} ({membership.describe()})"
        )
