"""A leader counts itself once, whatever its id: the same with the lowest, the middle and the highest of three."""

from __future__ import annotations

import pytest

from raftkv.core.messages import TimeoutNow
from raftkv.errors import ChangeRefused
from raftkv.model import Membership
from tests.core.one import One, of

everybody = pytest.mark.parametrize("me", [1, 2, 3])


def leader(me, **settings):
    """Node `me` leads, and the ids of the two others."""
    return One(node_id=me, **settings).lead(), [voter for voter in (1, 2, 3) if voter != me]


@everybody
def test_its_own_copy_is_no_majority(me):
    """§5.3: committed with one more that holds it, and not before."""
    node, others = leader(me)
    assert node.raft.commit_index == 0
    node.propose("x")
    node.tick(2)
    assert node.raft.commit_index == 0
    node.holds(others[-1], 2)
    assert node.raft.commit_index == 2


@everybody
def test_its_own_word_confirms_no_read(me):
    """§8: a majority must have followed it after the read arrived (F72)."""
    node, others = leader(me)
    node.settle(*others)
    node.raft.read(7)
    node.take()
    assert node.reads == {}
    node.holds(others[-1], 1, round=node.raft.role.round)
    assert node.reads == {7: 1}


@everybody
def test_it_steps_down_when_it_hears_nobody(me):
    """Thesis §6.2: others may have elected somebody else."""
    node, others = leader(me)
    node.settle(*others)
    node.tick(8)
    assert node.role == "Leader"
    node.tick(2)
    assert node.role == "Follower"


@everybody
def test_it_is_no_quorum_of_a_new_membership(me):
    """etcd#6420: whoever does not answer must not be needed; exactly an election time-out of silence is too long."""
    node, others = leader(me, learners=(4,), check_quorum=False)
    node.settle(*others)
    node.tick(9)
    node.holds(4, 1, round=node.raft.role.round)
    node.raft.change_membership(Membership.of((1, 2, 3), (5,)))
    node.take()
    node.settle(*others)
    node.tick(10)
    with pytest.raises(ChangeRefused, match="do not answer"):
        node.raft.change_membership(Membership.of((me, others[0]), (5,)))
    node.holds(others[0], node.raft.log.last_index)
    node.raft.change_membership(Membership.of((me, others[0]), (5,)))


@everybody
def test_it_hands_over_to_another(me):
    """Thesis §3.10: also before anybody has answered it, when all it can go by is that they voted for it."""
    node, others = leader(me)
    node.raft.step_down()
    assert [message.to for message in of(TimeoutNow, node.take())] == [others[0]]


@everybody
def test_it_does_not_hand_over_to_itself(me):
    """Nothing would happen, so whoever asked is told."""
    node, others = leader(me)
    node.settle(*others)
    with pytest.raises(ChangeRefused, match="is the leader already"):
        node.raft.transfer_leadership(me)
    assert node.raft.role.transfer is None
    node.raft.transfer_leadership(others[0])
    assert [message.to for message in of(TimeoutNow, node.take())] == [others[0]]
