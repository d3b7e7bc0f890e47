"""A node that was removed hears of it from those who know, says so, and ends; and from nobody else."""

from __future__ import annotations

import msgspec
import pytest

from raftkv.core import tail
from raftkv.core.log import LogView
from raftkv.core.raft import Raft
from raftkv.errors import HandshakeRefused, NodeRemoved, PeerRemoved, Unavailable
from raftkv.model import EntryKind, HardState, Membership, encode_membership
from raftkv.node.removal import Hearsay, removed_since
from raftkv.testing.world.cluster import CONFIG
from raftkv.testing.world.loop import elapse
from raftkv.wire import Removal
from tests.node.test_cluster import fill, follower_of, tell

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


def test_a_node_that_is_up_ends_when_its_removal_is_committed():
    """It has the entry itself: stale reads end at once, and the node soon after."""

    async def story(cluster):
        sim = follower_of(cluster)
        node = sim.node
        await cluster.leader.remove(sim.node_id)
        await cluster.until(lambda: removed_since(node.raft, sim.node_id) is not None, 2)
        await elapse(0.1)
        with pytest.raises(Unavailable, match="was removed"):
            node.query(b"", True, lambda index, result: None)
        await cluster.until(lambda: node.failure is not None, 5)
        assert isinstance(node.failure, NodeRemoved) and "Don't start it again" in str(node.failure)
        assert node.status().role == "stopped"

    tell(story)


@pytest.mark.parametrize("size", [3, 5])
def test_a_node_that_was_down_is_told_when_it_comes_back(size):
    """Its own log knows nothing of it; whoever it dials does."""

    async def story(cluster):
        client = cluster.client()
        sim = follower_of(cluster)
        sim.crash()
        await fill(client, 3)
        await cluster.leader.remove(sim.node_id)
        await fill(client, 3, start=3)
        node = await sim.start()
        assert removed_since(node.raft, sim.node_id) is None
        await cluster.until(lambda: node.failure is not None, 10)
        assert isinstance(node.failure, NodeRemoved)
        await client.close()

    tell(story, size=size)


def test_a_leader_that_removes_itself_answers_first():
    """The operator gets an answer, somebody else leads, and then it ends."""

    async def story(cluster):
        node = cluster.leader
        membership = await node.remove(node.node_id)
        assert node.node_id in membership.removed
        await cluster.until(lambda: isinstance(node.failure, NodeRemoved), 10)
        assert (await cluster.until_leader()).node_id != node.node_id

    tell(story)


def test_a_removal_that_may_be_undone_is_not_told():
    """An entry that is not committed refuses the node, and proves nothing."""

    async def story(cluster):
        leader, sim = cluster.leader, follower_of(cluster)
        hello = sim.node.links.hello()
        raft = leader.raft
        final = Membership.of(tuple(voter for voter in raft.membership.voters if voter != sim.node_id))
        tail.append_payloads(
            raft, EntryKind.MEMBERSHIP, [encode_membership(msgspec.structs.replace(final, removed=(sim.node_id,)))]
        )
        assert raft.log.membership_index > raft.commit_index
        with pytest.raises(HandshakeRefused, match="was removed") as raised:
            leader.links.check_hello(hello)
        assert not isinstance(raised.value, PeerRemoved)
        await cluster.until(lambda: raft.log.membership_index <= raft.commit_index)
        with pytest.raises(PeerRemoved):
            leader.links.check_hello(hello)

    tell(story)
