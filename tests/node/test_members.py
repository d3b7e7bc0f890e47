"""Members whose addresses change, ids that were given by mistake, and addresses that are not what they should be."""

from __future__ import annotations

import pytest

from raftkv.core.roles import Leader
from raftkv.errors import (
    ChangeRefused,
    DataDirLocked,
    InvalidArgument,
    NotCaughtUp,
    Unavailable,
    WrongDataDir,
)
from raftkv.kv import KeyValue
from raftkv.model import Member
from raftkv.node import Options
from raftkv.node.directory import rewrite_addresses
from raftkv.node.paths import Paths
from raftkv.node.peers.members import with_learner
from raftkv.testing import elapse, play, scenario
from raftkv.testing.world.cluster import SimNode
from raftkv.testing.world.settings import CONFIG
from tests.node.steps import fill, follower_of, read_all


def move(cluster, sim: SimNode, name: str = "moved") -> Member:
    """From its next start on the machine is somewhere else."""
    sim.member = Member(sim.node_id, f"{name}-peer-{sim.node_id}:1", f"{name}-node-{sim.node_id}:1")
    return sim.member


@pytest.mark.parametrize("size", [2, 3])
def test_a_node_that_moves_is_found_again_and_then_for_good(size):
    """It starts at its new addresses, tells the others where it is, and the membership follows: also when the cluster
    has no quorum without it (F83)."""

    async def story(cluster):
        client = cluster.client()
        await fill(client, 5)
        sim = follower_of(cluster)
        await sim.stop()
        before = sim.member
        moved = move(cluster, sim)
        node = await sim.start()
        await cluster.until_equal()
        leader = await cluster.until_leader()
        assert leader.raft.membership.member(sim.node_id) == before
        assert leader.transport.links()[sim.node_id].connected, "by what it says itself"
        membership = await leader.orders.update_member(moved)
        assert membership.member(sim.node_id) == moved
        await cluster.until(lambda: node.raft.membership.member(sim.node_id) == moved)
        await elapse(1)
        assert not node.status().misplaced
        for each in cluster.running:
            if each is not node:
                assert each.transport.links()[sim.node_id].address == moved.peer_address
        await fill(client, 5, start=5)
        for each in cluster.nodes.values():
            each.crash()
        await cluster.start()
        await cluster.until_equal()
        await read_all(cluster, client, 10)
        await client.close()

    play(KeyValue, story, size=size, seed=1)


@scenario(KeyValue, seed=1)
async def test_a_member_is_not_sent_to_where_nobody_answers(cluster):
    """A mistyped address would cost a node; who knows better says so, and can take it back."""
    leader, sim = cluster.leader, follower_of(cluster)
    wrong = Member(sim.node_id, "nowhere:1", "nowhere:2")
    with pytest.raises(Unavailable, match=r"nobody answers at nowhere:1: start node \d there first"):
        await leader.orders.update_member(wrong)
    assert (await leader.orders.update_member(wrong, force=True)).member(sim.node_id) == wrong
    assert (await leader.orders.update_member(sim.member)).member(sim.node_id) == sim.member
    assert await leader.orders.update_member(sim.member) == leader.raft.membership, "what is so already is done"
    await cluster.until_equal()


@scenario(KeyValue, seed=1)
async def test_wrong_addresses_are_refused_at_once(cluster):
    """Of another member, of nobody, or of somebody who is no member."""
    leader, sim = cluster.leader, follower_of(cluster)
    other = next(each for each in cluster.nodes if each not in (leader.node_id, sim.node_id))
    taken = cluster.nodes[other].member
    for member, said in (
        (Member(sim.node_id, taken.client_address, "x:1"), f"is an address of node {other} already"),
        (Member(sim.node_id, "0.0.0.0:1", "x:1"), "nobody can dial it"),
        (Member(sim.node_id, "http://x:1", "x:1"), "is a URL"),
        (Member(9, "x:2", "x:1"), "node 9 is no member"),
    ):
        with pytest.raises(InvalidArgument, match=said):
            await leader.orders.update_member(member, force=True)
    with pytest.raises(InvalidArgument, match="nobody can dial"):
        await leader.orders.add_learner(Member(9, "x:0", "x:1"))


@scenario(KeyValue, seed=1)
async def test_an_order_to_a_leader_of_a_moment_ago_waits_for_its_first_commit(cluster):
    """The core refuses each change until then; the operator, who can't know, is not told to try again."""
    sim = cluster.add(4)
    await sim.start()
    cluster.nodes[cluster.leader.node_id].crash()

    def is_fresh(node) -> bool:
        return isinstance(node.raft.role, Leader) and node.raft.commit_index < node.raft.role.term_start

    await cluster.until(lambda: any(is_fresh(node) for node in cluster.running))
    leader = next(node for node in cluster.running if is_fresh(node))
    with pytest.raises(ChangeRefused, match="first entry"):
        leader.raft.check_membership(with_learner(leader.raft.membership, sim.member))
    assert (await leader.orders.add_learner(sim.member)).learners == (4,)


@scenario(KeyValue, seed=1)
async def test_addresses_that_are_swapped_are_noticed_before_a_node_is_added(cluster):
    """Whoever listens there says what for, and who it is."""
    leader = cluster.leader
    sim = cluster.add(4)
    await sim.start()
    peer, client = sim.member.peer_address, sim.member.client_address
    with pytest.raises(InvalidArgument, match=f"are the two swapped. Then write 4={peer}/{client}"):
        await leader.orders.add_learner(Member(4, client, peer))
    with pytest.raises(InvalidArgument, match="node 4 answers at"):
        await leader.orders.add_learner(Member(5, peer, client))
    assert sim.node.cluster_id == "", "asking let nobody join"
    assert (await leader.orders.add_learner(sim.member)).learners == (4,)
    await leader.orders.promote(4)
    await cluster.until_equal()


@scenario(KeyValue, seed=1)
async def test_an_id_is_used_up_only_by_a_node_that_was_met(cluster):
    """A learner at a mistyped address is removed, and its id given again; one that was met is gone for good."""
    leader = cluster.leader
    sim = cluster.add(4)
    await leader.orders.add_learner(Member(4, "mistyped:1", "mistyped:2"))
    await elapse(1)
    assert 4 not in (await leader.orders.remove(4)).removed
    await sim.start()
    await leader.orders.add_learner(sim.member)
    await cluster.until(lambda: leader.peers.met.incarnation_of(4) is not None)
    assert 4 in (await leader.orders.remove(4)).removed
    with pytest.raises(InvalidArgument, match="were removed before"):
        await leader.orders.add_learner(Member(4, "other:1", "other:2"))


@scenario(KeyValue, seed=1)
async def test_an_id_that_somebody_has_met_is_used_up_though_it_never_answered_this_leader(cluster):
    """The record of a handshake counts, whoever leads now."""
    leader = cluster.leader
    sim = cluster.add(4)
    await leader.orders.add_learner(sim.member)
    await sim.start()
    await cluster.until(lambda: all(each.peers.met.incarnation_of(4) for each in cluster.running if each.node_id != 4))
    sim.crash()
    for each in (1, 2, 3):
        cluster.nodes[each].crash()
    for each in (1, 2, 3):
        await cluster.nodes[each].start()
    leader = await cluster.until_leader()
    await cluster.until(lambda: leader.raft.commit_index >= leader.raft.role.term_start)
    assert 4 in (await leader.orders.remove(4)).removed


@scenario(KeyValue, seed=1)
async def test_a_promotion_says_why_it_was_not_done(cluster):
    """Who is asked for a vote and does not answer: the operator hears that, not that nobody knows."""
    admin = cluster.admin()
    await cluster.leader.orders.add_learner(Member(4, "nowhere:1", "nowhere:2"))
    with pytest.raises(NotCaughtUp, match="node 4 does not answer"):
        await admin.promote(4, 3.0)
    await admin.close()


@scenario(KeyValue, seed=1)
async def test_leadership_that_is_where_it_should_be_is_no_error(cluster):
    """To the leader: done. To a learner or a stranger: wrong usage, which trying again won't help."""
    admin, leader = cluster.admin(), cluster.leader
    assert await admin.transfer_leadership(leader.node_id) == leader.node_id
    with pytest.raises(InvalidArgument, match="node 9 is no voter"):
        await admin.transfer_leadership(9)
    await admin.close()


def rewrite(sim: SimNode, members) -> None:
    """What `raftkv member rewrite` does in the directory of a node."""
    rewrite_addresses(Options(node_id=sim.node_id, data_dir="/data", config=CONFIG), sim.world(), members)


@pytest.mark.parametrize("again", [False, True])
@scenario(KeyValue, seed=1)
async def test_when_all_have_moved_their_addresses_are_written_beside_the_log(cluster, again):
    """None finds another; then all do, nothing is lost, and the leader writes where they are into the log: also when
    the power goes out meanwhile, and when the order was given twice."""
    client = cluster.client()
    await fill(client, 20)
    await client.close()
    for sim in cluster.nodes.values():
        await sim.stop()
    moved = [move(cluster, sim) for sim in cluster.nodes.values()]
    for sim in cluster.nodes.values():
        if again:
            rewrite(sim, [Member(1, "mistyped:1", "mistyped:2")])
        rewrite(sim, moved)
        sim.disk.crash(sim.dice)
    await cluster.start()
    leader = await cluster.until_leader()
    await cluster.until(lambda: leader.raft.membership.members == tuple(moved), 10)
    await cluster.until_equal()
    path = Paths("/data").addresses
    await cluster.until(lambda: not any(sim.disk.exists(path) for sim in cluster.nodes.values()), 10)
    for sim in cluster.nodes.values():
        sim.crash()
    await cluster.start()
    await cluster.until_equal()
    client = cluster.client()
    await read_all(cluster, client, 20)
    await client.close()


@scenario(KeyValue, seed=1)
async def test_only_addresses_can_be_rewritten_and_only_of_a_node_that_does_not_run(cluster):
    """Neither members nor votes change, and no file of another node is believed: so no second cluster comes of it."""
    sim, other = cluster.nodes[1], cluster.nodes[2]
    with pytest.raises(DataDirLocked):
        rewrite(sim, [Member(1, "x:1", "x:2")])
    for each in (sim, other):
        await each.stop()
    for members, said in (
        ([Member(9, "x:1", "x:2")], r"nodes \[9\] are no members"),
        ([Member(1, "x:1", "x:2"), Member(1, "x:3", "x:4")], "given twice"),
        ([Member(1, other.member.peer_address, "x:2")], "is an address of node 2 already"),
        ([Member(1, "0.0.0.0:1", "x:2")], "nobody can dial it"),
    ):
        with pytest.raises(InvalidArgument, match=said):
            rewrite(sim, members)
    path = Paths("/data").addresses
    assert not sim.disk.exists(path)
    rewrite(other, [Member(2, "x:1", "x:2")])
    sim.disk.write_atomic(path, other.disk.read_bytes(path))
    with pytest.raises(WrongDataDir, match="addresses belongs to node 2"):
        await sim.start()
    sim.disk.remove(path)
    other.disk.remove(path)
    await cluster.start()
    await cluster.until_equal()


@scenario(KeyValue, seed=1)
async def test_what_was_written_beside_the_log_ends_with_a_newer_membership(cluster):
    """Whatever that says: the log has the last word."""
    sim = follower_of(cluster)
    await sim.stop()
    rewrite(sim, [Member(each, f"wrong-{each}:1", f"wrong-{each}:2") for each in cluster.nodes if each != sim.node_id])
    learner = cluster.add(4)
    await cluster.leader.orders.add_learner(learner.member)
    await sim.start()
    await learner.start()
    await cluster.until_equal()
    await elapse(1)
    assert not sim.disk.exists(Paths("/data").addresses)
    assert all(link.connected for link in sim.node.transport.links().values())


@pytest.mark.parametrize("size", [2, 3])
def test_when_all_have_moved_one_by_one_they_find_each_other_after_a_loss_of_power(size):
    """After a start nobody knows what is committed, so the newest addresses in the log must be tried too (F83).

    Seed 3 of the simulated worlds: two nodes looked for each other for ever where they had been founded.
    """

    async def story(cluster):
        client = cluster.client()
        await fill(client, 5)
        for sim in cluster.nodes.values():
            await sim.stop()
            moved = move(cluster, sim)
            await sim.start()
            leader = await cluster.until_leader()
            await leader.orders.update_member(moved)
            await cluster.until_equal()
        for sim in cluster.nodes.values():
            sim.crash()
        await cluster.start()
        await cluster.until_leader(10)
        await cluster.until_equal()
        await client.close()

    play(KeyValue, story, size=size, seed=1)


@scenario(KeyValue, seed=1)
async def test_a_new_node_finds_a_leader_that_has_moved_without_a_word_in_the_log(cluster):
    """The leader says where it is as it dials; the membership that comes with its snapshot says otherwise (F83).

    Seed 294 of the simulated worlds: what it had said was forgotten with the link, and its answers went nowhere.
    """
    client = cluster.client()
    await fill(client, 300)
    leader = await cluster.until_leader()
    sim = cluster.nodes[leader.node_id]
    await leader.orders.take_snapshot()
    sim.crash()
    move(cluster, sim)
    await sim.start()
    await cluster.until(lambda: cluster.leader is not None and cluster.leader.node_id != sim.node_id, 30)
    await cluster.until_equal()
    await cluster.leader.orders.transfer_leadership(sim.node_id)
    new = cluster.add(9)
    await new.start()
    await sim.node.orders.add_learner(new.member)
    await fill(client, 5, start=300)
    await cluster.until_equal()
    assert new.node.raft.membership.member(sim.node_id) != sim.member
    assert new.node.transport.links()[sim.node_id].connected
    await client.close()


@scenario(KeyValue, seed=1)
async def test_a_new_node_joins_learns_and_votes(cluster):
    """A brand-new node is added without a vote, installs a snapshot, is promoted, and then its vote is needed."""
    client, admin = cluster.client(), cluster.admin()
    await fill(client, 500)
    await cluster.leader.orders.take_snapshot()
    new = cluster.add(4)
    await new.start()
    learned = await admin.add_learner(new.member)
    assert learned.learners == (4,)
    promoted = await admin.promote(4)
    assert promoted.voters == (1, 2, 3, 4)
    await cluster.until_equal()
    assert new.node.cluster_id == cluster.leader.cluster_id
    for node_id in [node_id for node_id in (1, 2, 3) if node_id != cluster.leader.node_id][:1]:
        cluster.nodes[node_id].crash()
    await fill(client, 5, start=500)
    await client.close()
    await admin.close()
