"""Mistakes of operators: orders that must be refused. Each is counted when it was refused for the right reason."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from functools import partial

from raftkv.core.roles import Leader
from raftkv.errors import ChangeRefused, InvalidArgument, RaftKVError
from raftkv.model import Member
from raftkv.node import Node
from raftkv.node.peers.members import with_learner
from raftkv.testing.faults.vandal import awake_leader
from raftkv.testing.world.cluster import SimCluster

MISTAKES = ("id given twice", "transfer to a learner", "transfer to a silent node", "change before the first commit")

LURK_S = 2.0
"""How long somebody waits for the right moment, in virtual seconds."""

LURK_STEP_S = 0.005


class Mistakes:
    """Gives orders that must be refused."""

    def __init__(self, cluster: SimCluster, dice: random.Random, spawn: Callable[..., None]) -> None:
        self._dice = dice
        self._cluster = cluster
        self._spawn = spawn
        faults = (self._give_id_twice, self._transfer_to_learner, self._transfer_to_silent, self._change_early)
        self.kinds: dict[str, Callable[[], Awaitable[bool]]] = dict(zip(MISTAKES, faults, strict=True))

    async def _refused(self, kind: str, order: Callable[[], Awaitable[object]], reasons: tuple[str, ...]) -> None:
        """Give an order that must be refused, for one of these reasons or because it came at a bad time."""
        try:
            await order()
        except (ChangeRefused, InvalidArgument) as exc:
            if any(reason in str(exc) for reason in reasons):
                self._cluster.fired[kind] += 1
        except (RaftKVError, TimeoutError):
            pass  # the node leads no more, or is gone
        else:
            self._cluster.wrongs.append(f"{kind}: it was carried out")

    async def _give_id_twice(self) -> bool:
        """Another machine under a member's id, a new id at a member's address, or an id that was removed."""
        if (leader := awake_leader(self._cluster)) is None:
            return False
        members = leader.raft.membership
        taken, fresh = self._dice.choice(members.members), max(self._cluster.nodes) + 100
        wrong = [
            Member(taken.node_id, "elsewhere-peer:1", "elsewhere:1"),
            Member(fresh, taken.peer_address, "elsewhere:1"),
            Member(fresh, "elsewhere-peer:1", taken.client_address),
            *(Member(removed, "elsewhere-peer:1", "elsewhere:1") for removed in sorted(members.removed)[:1]),
        ]
        member = self._dice.choice(wrong)
        reasons = ("member already", "more than one member", "removed")
        self._spawn(
            self._refused("id given twice", partial(leader.orders.add_learner, member, 5), reasons), changes=False
        )
        return True

    async def _transfer_to_learner(self) -> bool:
        leader = awake_leader(self._cluster)
        if leader is None or not leader.raft.membership.learners:
            return False
        learner = self._dice.choice(leader.raft.membership.learners)
        refused = self._refused("transfer to a learner", partial(self._transfer, leader, learner), ("no voter",))
        self._spawn(refused, changes=False)
        return True

    @staticmethod
    async def _transfer(leader: Node, learner: int) -> None:
        """A transfer that is refused at once. A later refusal does not count: by then a learner may be a voter."""
        leader.raft.transfer_leadership(learner)

    async def _transfer_to_silent(self) -> bool:
        self._spawn(self._lurk(self._silent_voter), changes=False)
        return True

    def _silent_voter(self, leader: Node, role: Leader) -> Awaitable[None] | None:
        """A transfer to a voter from which the leader has not heard for long."""
        patience = leader.raft.config.election_ticks
        for voter in leader.raft.membership.voters:
            progress = role.progress.get(voter)
            if progress is not None and role.tick - progress.contact_tick >= patience:
                order = partial(self._transfer, leader, voter)
                return self._refused("transfer to a silent node", order, ("was not heard",))
        return None

    async def _change_early(self) -> bool:
        self._spawn(self._lurk(self._early_change), changes=False)
        return True

    def _early_change(self, leader: Node, role: Leader) -> Awaitable[None] | None:
        """A change while the leader has not committed anything in its term."""
        if leader.raft.commit_index >= role.term_start:
            return None
        member = Member(max(self._cluster.nodes) + 100, "elsewhere-peer:1", "elsewhere:1")
        order = partial(self._add_at_once, leader, member)
        return self._refused("change before the first commit", order, ("first entry",))

    @staticmethod
    async def _add_at_once(leader: Node, member: Member) -> None:
        """A change that does not wait for the leader's first commit, as an operator's order does."""
        leader.raft.change_membership(with_learner(leader.raft.membership, member))

    async def _lurk(self, order: Callable[[Node, Leader], Awaitable[None] | None]) -> None:
        """Wait for the moment at which such an order can be given, and give it at once."""
        end = self._cluster.loop.time() + LURK_S
        while self._cluster.loop.time() < end:
            leader = awake_leader(self._cluster)
            if leader is not None and isinstance(leader.raft.role, Leader):
                given = order(leader, leader.raft.role)
                if given is not None:
                    await given
                    return
            await asyncio.sleep(LURK_STEP_S)
