"""An operator's orders to a leader: change the membership, transfer leadership, reset log time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress

from raftkv import failpoints
from raftkv.access import AccessAsk, AccessOrder
from raftkv.core.roles import Leader
from raftkv.errors import ChangeRefused, Indeterminate, InvalidArgument, NotCaughtUp, Unavailable
from raftkv.logs import EventLog
from raftkv.model import Index, Member, Membership, NodeId
from raftkv.node.accounts import Accounts
from raftkv.node.backups import Backups
from raftkv.node.body import Body
from raftkv.node.clock import ClockWatch
from raftkv.node.live import Setting, Value, save_settings
from raftkv.node.peers.members import (
    check_answers,
    check_is_there,
    who_answers,
    with_addresses,
    with_learner,
    without,
)
from raftkv.node.snapshots import Snapshotter
from raftkv.node.status import ClockReset
from raftkv.node.upgrades import Upgrades
from raftkv.node.waiters import Waiters
from raftkv.snapshot.backup import BackupHead
from raftkv.wire import BackupAsk, BackupRead

logger = EventLog(__name__)

failpoints.declare(
    __name__,
    {
        "membership.before_append": "a change of the members was asked for",
        "membership.after_append": "a change of the members is in the leader's log in memory only",
        "membership.committed": "a change of the members is committed, and nobody was told",
        "transfer_leadership.begun": "leadership is about to be handed over",
    },
)


class Orders:
    """Carries out orders. Each method returns when the order is done, or raises an error that says whether it may
    still be done.

    All but `take_snapshot`, `configure`, `show_access` and those of backups raise `NotLeader` on a node that does not
    lead.
    """

    def __init__(
        self,
        body: Body,
        waiters: Waiters,
        *,
        was_met: Callable[[NodeId], bool],
        clock: ClockWatch,
        snapshots: Snapshotter,
        upgrades: Upgrades,
        backups: Backups,
        accounts: Accounts,
    ) -> None:
        """`was_met` says whether any node is known to have met a data directory under an id."""
        self._body = body
        self._waiters = waiters
        self._was_met = was_met
        self._clock = clock
        self._snapshots = snapshots
        self._upgrades = upgrades
        self._backups = backups
        self._accounts = accounts

    async def change_membership(
        self, target: Membership, deadline_s: float = 30.0, *, unmet: tuple[NodeId, ...] = ()
    ) -> Membership:
        """Change to `target`; returns when the change is committed. Raises `NotLeader`, `ChangeRefused`,
        `NotCaughtUp`, `InvalidArgument`, or `Indeterminate` after the deadline (the change may still happen).

        The id of a removed node never comes back, except for the learners in `unmet`, which no node has ever met.
        """
        await self._when_changes_may_begin(deadline_s)
        return await self._change_now(target, deadline_s, unmet)

    async def _change_now(self, target: Membership, deadline_s: float, unmet: tuple[NodeId, ...] = ()) -> Membership:
        """`change_membership` to what was made of the present membership: nothing may come between."""
        raft = self._body.raft
        failpoints.reach("membership.before_append")
        raft.change_membership(target, unmet)
        failpoints.reach("membership.after_append")
        self._body.wake()
        term = raft.term

        def done() -> bool:
            settled = not raft.membership.is_joint and raft.log.membership_index <= raft.commit_index
            return settled or raft.term != term

        try:
            await self._waiters.until(done, deadline_s, "the membership change is not committed")
        except Unavailable as exc:
            raise Indeterminate(f"{exc}; it may still be: look at the status, then try again") from exc
        failpoints.reach("membership.committed")
        if raft.term != term:
            raise Indeterminate("leadership was lost during the membership change: look at the status, then try again")
        return raft.membership

    async def _when_changes_may_begin(self, deadline_s: float) -> None:
        """Wait until a new leader's first entry is committed; before that, the core refuses each change. Whoever gives
        an order to a leader of a moment ago need not know that.

        What the change is made of is read only behind this: it may be another membership by then.
        """
        raft = self._body.raft

        def may_begin() -> bool:
            return not isinstance(raft.role, Leader) or raft.commit_index >= raft.role.term_start

        with suppress(Unavailable):  # the core says what is wrong
            await self._waiters.until(may_begin, deadline_s, "the first entry of this term is not committed")

    async def add_learner(self, member: Member, deadline_s: float = 30.0) -> Membership:
        """Add a node that gets the log but has no vote. Its id must never have been used before.

        It need not run yet; but if a node answers at its addresses, it must be this one.
        """
        raft = self._body.raft
        await self._when_changes_may_begin(deadline_s)
        raft.check_membership(with_learner(raft.membership, member))
        check_answers(member, await who_answers(self._body.transport.ask, member))
        return await self._change_now(with_learner(raft.membership, member), deadline_s)

    async def update_member(self, member: Member, deadline_s: float = 30.0, *, force: bool = False) -> Membership:
        """Change a member's addresses; the others dial it there once that is committed. Raises as `change_membership`.

        The member must answer there already, unless you `force` it: a wrong address costs as much as a dead node.
        """
        raft = self._body.raft
        await self._when_changes_may_begin(deadline_s)
        raft.require_leader()
        current = raft.membership
        target = with_addresses(current, member)
        if target == current:
            return current
        raft.check_membership(target)
        if not force:
            answers = await who_answers(self._body.transport.ask, member)
            check_answers(member, answers)
            check_is_there(member, answers)
        return await self._change_now(with_addresses(raft.membership, member), deadline_s)

    async def promote(self, node_id: NodeId, deadline_s: float = 300.0) -> Membership:
        """Make a learner a voter, as soon as it has caught up."""
        loop = asyncio.get_running_loop()
        end = loop.time() + deadline_s
        while True:
            await self._when_changes_may_begin(max(0.1, end - loop.time()))
            current = self._body.raft.membership
            if node_id not in current.learners:
                raise InvalidArgument(f"node {node_id} is no learner ({current.describe()})")
            target = Membership(
                voters=tuple(sorted({*current.voters, node_id})),
                learners=tuple(learner for learner in current.learners if learner != node_id),
                members=current.members,
            )
            try:
                return await self._change_now(target, max(0.1, end - loop.time()))
            except NotCaughtUp:
                if loop.time() >= end:
                    raise
            await self._waiters.next_tick()

    async def remove(self, node_id: NodeId, deadline_s: float = 30.0) -> Membership:
        """Remove a node. Its id can't be used again, unless it is a learner that no node has ever met."""
        await self._when_changes_may_begin(deadline_s)
        target = without(self._body.raft.membership, node_id)
        unmet = () if self._was_met(node_id) else (node_id,)
        return await self._change_now(target, deadline_s, unmet)

    async def transfer_leadership(self, to: NodeId | None = None, deadline_s: float = 10.0) -> NodeId:
        """Hand leadership to `to`, or else to the voter with most of the log whose disk has room.

        Returns the new leader.
        """
        raft = self._body.raft
        role = raft.require_leader()
        if to == raft.node_id:
            return to  # that is done
        if to is None:
            to = self._fittest(role)
        raft.transfer_leadership(to)
        failpoints.reach("transfer_leadership.begun")
        self._body.wake()

        def over() -> bool:
            return raft.leader == to or (isinstance(raft.role, Leader) and raft.role.transfer is None)

        await self._waiters.until(over, deadline_s, f"node {to} has not taken over")
        if raft.leader != to:
            raise Unavailable(f"node {to} did not take over in time; node {raft.node_id} goes on leading")
        return to

    def _fittest(self, role: Leader) -> NodeId:
        raft = self._body.raft
        others = [voter for voter in raft.membership.voters if voter != raft.node_id]
        if not others:
            raise ChangeRefused("there is no other voter to lead")

        def fitness(voter: NodeId) -> tuple[bool, Index, int]:
            return role.progress[voter].has_room, role.progress[voter].match_index, -voter

        return max(others, key=fitness)

    async def reset_clock(self, deadline_s: float = 10.0) -> ClockReset:
        """Set log time to what the clocks say, even if that is earlier; the change is applied on return.

        If no majority of clocks agrees, the leader's clock counts. Raises `NotLeader`, `Busy`, `ChangeRefused` while a
        node runs a version that can't read this, or `Unavailable` (it may still happen, and may be repeated).
        """
        return await self._clock.reset(self._body.wake, self._waiters.until, deadline_s)

    async def upgrade(self, version: int | None = None, deadline_s: float = 300.0) -> int:
        """Make a version of the application active (the newest of the leader's class); returns it, when its upgrades
        are done too. Raises as `Upgrades.upgrade`."""
        return await self._upgrades.upgrade(version, deadline_s)

    async def take_snapshot(self) -> Index:
        """Take a snapshot on this node, leader or not, and return its index; it is durable and verified on return."""
        if self._body.failure is not None:
            raise self._body.failure
        return await self._snapshots.take()

    async def configure(self, values: dict[str, Value | None]) -> list[Setting]:
        """Change settings of this node, leader or not; None: back to what its start says. Returns all that may change.

        A change is durable and counts on return. Raises `InvalidArgument`, or the `DiskError` that stops the node.
        """
        body = self._body
        if body.failure is not None:
            raise body.failure
        async with body.live.lock:
            if values:
                config, kept = body.live.changed(values)
                world, path = body.world, body.paths.settings
                saved = world.background_worker.run(save_settings, world.disk, path, body.live.owner(), kept)
                saved.add_done_callback(body.check_background)
                await asyncio.shield(saved)
                body.live.take(config, kept, values)
                logger.info("settings_changed", node=body.node_id, **values)
        return body.live.all()

    async def offer_backup(self, ask: BackupAsk, deadline_s: float) -> BackupHead:
        """Hold a snapshot on this node, leader or not, for `read_backup`; see `Backups.offer`."""
        return await self._backups.offer(ask, deadline_s)

    async def read_backup(self, asked: BackupRead) -> bytes:
        """Read a part of a snapshot that is held; see `Backups.read`."""
        return await self._backups.read(asked)

    async def change_access(self, order: AccessOrder, by: str | None, deadline_s: float) -> str:
        """Change users and roles, as the user `by` (None: who has not signed in); see `Accounts.change`."""
        return await self._accounts.change(order, by, deadline_s)

    async def show_access(self, ask: AccessAsk, deadline_s: float) -> bytes:
        """Some of the users or roles, as an encoded `AccessShown`, from any node that reaches the leader."""
        return await self._accounts.show(ask, deadline_s)
