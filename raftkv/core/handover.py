"""Handing leadership over: to the voter that is asked for, or to the one that can lead best (thesis §§3.10, 4.2.2)."""

from __future__ import annotations

from raftkv.core import transitions
from raftkv.core.messages import TimeoutNow
from raftkv.core.raftstate import RaftState
from raftkv.core.roles import Leader, LeadershipTransfer
from raftkv.errors import ChangeRefused, InvalidArgument
from raftkv.model import Index, NodeId


def start_transfer(raft: RaftState, to: NodeId) -> None:
    """Hand leadership to `to`: stop taking commands, bring it up to date, tell it to campaign."""
    role = raft.require_leader()
    membership = raft.log.membership
    if to == raft.node_id:
        raise ChangeRefused(f"node {to} is the leader already")
    if to not in membership.voters:
        raise InvalidArgument(f"node {to} is no voter of this cluster ({membership.describe()})")
    if role.transfer is not None and role.transfer.target != to:
        raise ChangeRefused(f"a transfer to node {role.transfer.target} is under way")
    progress = role.progress[to]
    silence = role.tick - progress.contact_tick
    if silence >= raft.config.election_ticks:
        raise ChangeRefused(f"node {to} was not heard for {silence} ticks")
    if not progress.has_room and (raft.has_room or heir(raft) is not None):
        raise ChangeRefused(
            f"node {to} has no room: its disk is nearly full, so it would refuse writes; free some space"
        )
    if role.transfer is None:
        role.transfer = LeadershipTransfer(target=to)
    continue_transfer(raft)


def heir(raft: RaftState) -> NodeId | None:
    """The voter with room that should lead instead of this node, which has none (see `Raft.heir`)."""
    role = raft.role
    if not isinstance(role, Leader):
        return None
    fit = [
        voter
        for voter in raft.log.membership.voters
        if (progress := role.progress.get(voter)) is not None
        and progress.has_room
        and progress.acked_round > 0
        and role.tick - progress.contact_tick < raft.config.election_ticks
        and raft.log.last_index - progress.match_index <= raft.config.promotion_lag_max
    ]
    return max(fit, key=lambda voter: (role.progress[voter].match_index, -voter), default=None)


def continue_transfer(raft: RaftState) -> None:
    """Send TimeoutNow once the target holds the whole log; repeated at each heartbeat, as it may get lost."""
    role = raft.role
    assert isinstance(role, Leader) and role.transfer is not None
    target = role.transfer.target
    if role.progress[target].match_index == raft.log.last_index:
        role.timeout_now_sent = True
        raft.pending.messages.append(TimeoutNow(sender=raft.node_id, to=target, term=raft.term))


def hand_over(raft: RaftState, role: Leader) -> None:
    """Step down, and ask the voter that can lead best to campaign at once, so that nobody waits for a time-out."""
    others = [voter for voter in raft.log.membership.voters if voter != raft.node_id]
    transitions.become_follower(raft, raft.term, None)
    if others:
        # A voter that lacks committed entries can't be elected; one with a full disk would not lead for long.
        def fitness(voter: NodeId) -> tuple[bool, bool, Index, int]:
            progress = role.progress[voter]
            return progress.match_index >= raft.commit_index, progress.has_room, progress.match_index, -voter

        successor = max(others, key=fitness)
        raft.pending.messages.append(TimeoutNow(sender=raft.node_id, to=successor, term=raft.term))
