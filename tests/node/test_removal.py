"""A node that was removed hears of it from those who know, says so, and ends; and from nobody else."""

from __future__ import annotations

import msgspec
import pytest

from raftkv.core import tail
from raftkv.core.log import LogView
from raftkv.core.raft import Raft
from raftkv.errors import (
    HandshakeRefused,
    NodeRemoved,
    PeerRemoved,
    Unavailable,
)
from raftkv.kv import KeyValue
from raftkv.model import EntryKind, HardState, Membership, encode_membership
from raftkv.node.peers.removal import Hearsay, removed_since
from raftkv.testing import elapse, play, scenario
from raftkv.testing.world.settings import CONFIG
from raftkv.wire import Removal
from tests.node.steps import fill, follower_of

TERM = 5
WORD = Removal(cluster_id="c", teller=1, incarnation="i1", index=9, term=TERM, leads=False)


def a_raft(*voters):
    """Node 3 in term 5, of these voters, with nothing in its log."""
    return Raft(
        node_id=3,
        config=CONFIG.raft(),
        draw=lambda limit: 0,
        hard_state=HardState(term=TERM),
        log=LogView(membership=Membership.of(voters)),
    )


def told(raft, hearsay, teller, **changes):
    """Whether it is proven when `teller` has said so, too."""
    word = msgspec.structs.replace(WORD, teller=teller, incarnation=f"i{teller}", **changes)
    return hearsay.is_proven(raft, teller, word, cluster_id="c", incarnation=f"i{teller}")


@pytest.mark.parametrize(
    ("voters", "tellers"),
    [((1, 2, 3), (1, 2)), ((1, 3), (1,)), ((1, 2, 3, 4, 5), (1, 2, 4)), ((1, 2, 4), (1, 2))],
)
def test_a_majority_of_the_voters_that_it_knows_proves_it(voters, tellers):
    """One less does not; a node without a vote believes a majority, too."""
    raft, hearsay = a_raft(*voters), Hearsay()
    for teller in tellers[:-1]:
        assert not told(raft, hearsay, teller)
        assert not told(raft, hearsay, teller), "twice the same word is one word"
    assert told(raft, hearsay, tellers[-1])


def test_a_leader_whose_term_is_not_over_proves_it_alone():
    """One of an older term may have been deposed, and is one voice among others."""
    assert told(a_raft(1, 2, 3), Hearsay(), 1, leads=True)
    assert not told(a_raft(1, 2, 3), Hearsay(), 1, leads=True, term=TERM - 1)


@pytest.mark.parametrize(
    "changes",
    [{"cluster_id": "another"}, {"teller": 2}, {"incarnation": "wiped"}, {"index": 0}],
    ids=lambda changes: next(iter(changes)),
)
def test_who_is_foreign_wiped_or_behind_is_not_believed(changes):
    """Not even one that says it leads: another cluster, another node, another directory, an entry below its own."""
    word = msgspec.structs.replace(WORD, leads=True, **changes)
    raft, hearsay = a_raft(1, 2, 3), Hearsay()
    assert not hearsay.is_proven(raft, 1, word, cluster_id="c", incarnation="i1")
    assert not told(raft, hearsay, 2), "nor does it count beside another"


@scenario(KeyValue, seed=1)
async def test_a_node_that_is_up_ends_when_its_removal_is_committed(cluster):
    """It has the entry itself: stale reads end at once, and the node soon after."""
    sim = follower_of(cluster)
    node = sim.node
    await cluster.leader.orders.remove(sim.node_id)
    await cluster.until(lambda: removed_since(node.raft, sim.node_id) is not None, 2)
    await elapse(0.1)
    with pytest.raises(Unavailable, match="was removed"):
        node.requests.query(b"", True, lambda index, result: None)
    await cluster.until(lambda: node.failure is not None, 5)
    assert isinstance(node.failure, NodeRemoved) and "Don't start it again" in str(node.failure)
    assert node.status().role == "stopped"


@pytest.mark.parametrize("size", [3, 5])
def test_a_node_that_was_down_is_told_when_it_comes_back(size):
    """Its own log knows nothing of it; whoever it dials does."""

    async def story(cluster):
        client = cluster.client()
        sim = follower_of(cluster)
        sim.crash()
        await fill(client, 3)
        await cluster.leader.orders.remove(sim.node_id)
        await fill(client, 3, start=3)
        node = await sim.start()
        assert removed_since(node.raft, sim.node_id) is None
        await cluster.until(lambda: node.failure is not None, 10)
        assert isinstance(node.failure, NodeRemoved)
        await client.close()

    play(KeyValue, story, size=size, seed=1)


@scenario(KeyValue, seed=1)
async def test_a_leader_that_removes_itself_answers_first(cluster):
    """The operator gets an answer, somebody else leads, and then it ends."""
    node = cluster.leader
    membership = await node.orders.remove(node.node_id)
    assert node.node_id in membership.removed
    await cluster.until(lambda: isinstance(node.failure, NodeRemoved), 10)
    assert (await cluster.until_leader()).node_id != node.node_id


@scenario(KeyValue, seed=1)
async def test_a_removal_that_may_be_undone_is_not_told(cluster):
    """An entry that is not committed refuses the node, and proves nothing."""
    leader, sim = cluster.leader, follower_of(cluster)
    hello = sim.node.links.hello()
    raft = leader.raft
    final = Membership.of(tuple(voter for voter in raft.membership.voters if voter != sim.node_id))
    tail.append_payloads(
        raft, EntryKind.MEMBERSHIP, [encode_membership(msgspec.structs.replace(final, removed=(sim.node_id,)))]
    )
    leader.engine.wake()  # it is to write what was appended behind its back
    assert raft.log.membership_index > raft.commit_index
    with pytest.raises(HandshakeRefused, match="was removed") as raised:
        leader.links.check_hello(hello)
    assert not isinstance(raised.value, PeerRemoved)
    await cluster.until(lambda: raft.log.membership_index <= raft.commit_index)
    with pytest.raises(PeerRemoved):
        leader.links.check_hello(hello)


@scenario(KeyValue, seed=1)
async def test_a_removed_leader_hands_over(cluster):
    """It manages the change that removes it, and then another one leads; it disturbs nobody afterwards (F37)."""
    client, admin = cluster.client(), cluster.admin()
    await fill(client, 5)
    old = cluster.leader.node_id
    membership = await admin.remove(old)
    assert old not in membership.voters
    await fill(client, 5, start=5)
    leader, term = cluster.leader.node_id, cluster.leader.raft.term
    await elapse(10)
    assert cluster.leader.node_id == leader != old
    assert cluster.leader.raft.term == term
    await client.close()
    await admin.close()
