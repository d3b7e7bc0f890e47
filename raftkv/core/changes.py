"""Membership changes by joint consensus, one at a time (§6, thesis §4)."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from raftkv.core import appends, handover, tail
from raftkv.core.quorum import is_quorum
from raftkv.core.raftstate import RaftState
from raftkv.core.roles import Leader
from raftkv.errors import ChangeRefused, InvalidArgument, NotCaughtUp
from raftkv.model import EntryKind, Index, Membership, NodeId, encode_membership


def change(raft: RaftState, target: Membership, unmet: Sequence[NodeId] = ()) -> Index:
    """Append the first entry of the change to `target`; the leader finishes it by itself.

    A change of voters goes through a joint membership (§6); one of learners alone needs none, as
    no majority changes. Returns the index of the entry that was appended.
    """
    target = check(raft, target, unmet)
    role, current = raft.require_leader(), raft.log.membership
    if target == current:
        raise ChangeRefused(f"the membership is already {current.describe()}")
    _check_new_voters(raft, role, current, target)
    if target.voters == current.voters:
        if any(current.member(each.node_id) not in (None, each) for each in target.members):
            # A node that moves may not be found at its new address at once: the others must be enough (etcd#6420).
            _check_quorum(raft, role, target)
        return _append(raft, target)
    _check_quorum(raft, role, target)
    return _append(raft, _joint(current, target))


def check(raft: RaftState, target: Membership, unmet: Sequence[NodeId] = ()) -> Membership:
    """`target` with its `removed` filled in, if a change to it may begin now; else raises. Changes nothing."""
    role, current = raft.require_leader(), raft.log.membership
    _check_time(raft, role, current)
    return _complete(current, target, [node for node in unmet if _is_unused(role, current, node)])


def _check_time(raft: RaftState, role: Leader, current: Membership) -> None:
    if raft.commit_index < role.term_start:
        # Else two leaders could change the same membership in different ways (the 2015 bug of single-server
        # changes: https://groups.google.com/g/raft-dev/c/t4xj6dJTP6E).
        raise ChangeRefused(f"this term's first entry ({role.term_start}) is not committed yet; try again")
    if current.is_joint or raft.log.membership_index > raft.commit_index:
        raise ChangeRefused(f"another change is under way ({current.describe()}); try again")
    if role.transfer is not None:
        raise ChangeRefused(f"leadership is being transferred to node {role.transfer.target}; try again")


def _is_unused(role: Leader, current: Membership, node: NodeId) -> bool:
    """Whether a learner's id may safely be given again: the learner has acknowledged and promised nothing."""
    progress = role.progress.get(node)
    is_silent = progress is None or (progress.acked_round == 0 and progress.match_index == 0)
    return node in current.learners and not current.is_voter(node) and is_silent


def _complete(current: Membership, target: Membership, unused: Sequence[NodeId]) -> Membership:
    """`target` with every node that it leaves out noted as removed, but for the `unused` ids."""
    left_out = set(current.all_nodes()) - set(target.all_nodes()) - set(unused)
    removed = tuple(sorted({*current.removed, *left_out}))
    target = msgspec.structs.replace(target, outgoing=(), removed=removed)
    if problems := target.problems():
        raise InvalidArgument("this membership cannot be: " + "; ".join(problems))
    return target


def _check_new_voters(raft: RaftState, role: Leader, current: Membership, target: Membership) -> None:
    for voter in target.voters:
        if voter in current.voters:
            continue
        if voter not in current.learners:
            raise ChangeRefused(f"node {voter} must be a learner first, so that a wrong address costs no quorum")
        progress = role.progress[voter]
        lag = raft.commit_index - progress.match_index
        if role.tick - progress.contact_tick >= raft.config.election_ticks or progress.acked_round == 0:
            raise NotCaughtUp(f"node {voter} does not answer; a voter that is not there costs the quorum")
        if progress.match_index < max(raft.log.membership_index, raft.log.start.index):
            # A node that doesn't know yet that it is a member can't be elected, and refuses its vote.
            raise NotCaughtUp(f"node {voter} does not yet hold the log up to the entry that made it a learner")
        if lag > raft.config.promotion_lag_max:
            raise NotCaughtUp(
                f"node {voter} is {lag} entries behind; at most {raft.config.promotion_lag_max} are allowed"
            )


def _check_quorum(raft: RaftState, role: Leader, target: Membership) -> None:
    def is_heard(node: NodeId) -> bool:
        progress = role.progress.get(node)
        return node == raft.node_id or (
            progress is not None and role.tick - progress.contact_tick < raft.config.election_ticks
        )

    silent = [voter for voter in target.voters if not is_heard(voter)]
    if not is_quorum(target, [voter for voter in target.voters if is_heard(voter)]):
        raise ChangeRefused(f"nodes {silent} do not answer, and without them the new membership has no quorum")


def _joint(current: Membership, target: Membership) -> Membership:
    """Old and new voters together: C_old,new (§6)."""
    ids = {*target.all_nodes(), *current.voters}
    members = {member.node_id: member for member in (*current.members, *target.members)}
    return Membership(
        voters=target.voters,
        outgoing=current.voters,
        learners=target.learners,
        members=tuple(members[node_id] for node_id in sorted(ids)),
        removed=tuple(node_id for node_id in target.removed if node_id not in ids),
    )


def _final(joint: Membership) -> Membership:
    """The new voters alone: C_new (§6)."""
    stay = {*joint.voters, *joint.learners}
    leave = set(joint.outgoing) - stay
    return Membership(
        voters=joint.voters,
        learners=joint.learners,
        members=tuple(member for member in joint.members if member.node_id in stay),
        removed=tuple(sorted({*joint.removed, *leave})),
    )


def _append(raft: RaftState, membership: Membership) -> Index:
    return tail.append_payloads(raft, EntryKind.MEMBERSHIP, [encode_membership(membership)])[0]


def on_commit(raft: RaftState, role: Leader) -> None:
    """The leader's part when the commit index has advanced: finish a change whose step is committed."""
    membership = raft.log.membership
    if raft.log.membership_index > raft.commit_index or raft.commit_index < role.term_start:
        return
    if membership.is_joint:
        _append(raft, _final(membership))
        return
    for node in [node for node in role.progress if node not in membership.all_nodes()]:
        # Its last message: with it the node that leaves learns that it has left, and does not campaign.
        appends.send_heartbeat(raft, role, node, role.progress[node])
        del role.progress[node]
    if not membership.is_voter(raft.node_id):
        # A leader without a vote steps down, after it has managed the change that removed it (thesis §4.2.2).
        for node, progress in role.progress.items():
            appends.send_heartbeat(raft, role, node, progress)
        handover.hand_over(raft, role)
