"""Handshakes of nodes: who is refused, and what it is told to do."""

from __future__ import annotations

import contextlib

import msgspec
import pytest

from raftkv.access import NewUser
from raftkv.config import KIB
from raftkv.core.messages import AppendReply
from raftkv.disk.simulated import SimDisk
from raftkv.errors import (
    HandshakeRefused,
    NodeRemoved,
    PeerError,
)
from raftkv.kv import KeyValue
from raftkv.node import Options
from raftkv.node.peers import peers
from raftkv.node.peers.met import save_known
from raftkv.node.peers.places import STRANGERS_MAX
from raftkv.testing import elapse, play, scenario
from raftkv.testing.world.harm import Harm
from raftkv.testing.world.settings import CONFIG
from raftkv.wire import Acquaintance, encode_message
from tests.node.files import load_known
from tests.node.steps import fill, follower_of


async def refusal(cluster, node_id):
    """What the others say to a node that they refuse."""

    def found():
        return [
            link.refused
            for sim in cluster.nodes.values()
            if sim.node is not None
            for peer, link in sim.node.transport.links().items()
            if link.refused is not None and node_id in (peer, sim.node_id)
        ]

    await cluster.until(found, 10, "a refusal")
    return found()[0]


@scenario(KeyValue, seed=1)
async def test_a_wiped_data_directory_under_an_old_id_is_refused(cluster):
    """openraft#2002: who has forgotten what it acknowledged must not count as the one that did."""
    client = cluster.client()
    await fill(client, 5)
    sim = follower_of(cluster)
    sim.crash()
    sim.disk, sim.harm = SimDisk(), Harm.WIPED
    await sim.start()
    assert "remove it and add it under a new id" in await refusal(cluster, sim.node_id)
    assert sim.node.raft.commit_index == 0
    await fill(client, 5, start=5)
    await client.close()


@scenario(KeyValue, seed=1)
async def test_a_wiped_data_directory_is_refused_however_often_it_was_started(cluster):
    """F20: it has had more starts than the one that it replaces; that makes it no newer, but another one."""
    client = cluster.client()
    await fill(client, 5)
    sim = follower_of(cluster)
    before = sim.node.opened.vote.boot
    sim.crash()
    sim.disk, sim.harm = SimDisk(), Harm.WIPED
    for other in cluster.nodes:
        if other != sim.node_id:
            cluster.network.cut(sim.node_id, other)
    for _ in range(before + 2):
        await sim.start()
        sim.crash()
    cluster.network.heal()
    await sim.start()
    assert sim.node.opened.vote.boot > before
    assert "another data directory" in await refusal(cluster, sim.node_id)
    await elapse(3)
    assert sim.node.raft.commit_index == 0
    await fill(client, 5, start=5)
    await client.close()


@pytest.mark.parametrize(("ours", "theirs"), [(False, False), (False, True), (True, False), (True, True)])
def test_nodes_that_do_not_agree_on_leases_refuse_each_other(ours, theirs):
    """F72: one that grants no lease could vote for another leader while the first still answers by its lease; so it
    does not matter which of the two dials, and which of them reads by leases."""

    async def story(cluster):
        node = cluster.leader
        hello = msgspec.structs.replace(
            node.links.hello(), node_id=77, incarnation="i77", nonce="n", starts=[], lease_reads=theirs
        )
        if ours == theirs:
            node.links.check_hello(hello)
        else:
            with pytest.raises(HandshakeRefused, match=f"node 77 has lease_reads = {theirs}.* has {ours}"):
                node.links.check_hello(hello)

    play(KeyValue, story, seed=1, config=msgspec.structs.replace(CONFIG, lease_reads=ours))


@pytest.mark.parametrize("name", ["KeyValue2", "Key", "keyvalue", "", "Value"])
@scenario(KeyValue, seed=1)
async def test_a_node_with_another_state_machine_is_refused(cluster, name):
    """Whatever is like in their names: entries would mean something else to it."""
    node = cluster.leader
    hello = msgspec.structs.replace(node.links.hello(), node_id=77, incarnation="i77", nonce="n", starts=[])
    other = msgspec.structs.replace(hello, fingerprint=f"{name}/" + hello.fingerprint.partition("/")[2])
    with pytest.raises(HandshakeRefused, match=f"runs the state machine {name}, this cluster runs KeyValue"):
        node.links.check_hello(other)
    node.links.check_hello(hello)


@scenario(KeyValue, seed=1)
async def test_a_new_member_knows_a_wiped_directory_too(cluster):
    """It never met the node before, but was told by those who did: else the two would elect each other (F20)."""
    leader = cluster.leader
    wiped = follower_of(cluster)
    wiped.crash()
    new = cluster.add(4)
    await new.start()
    await leader.orders.add_learner(new.member, 10)
    await leader.orders.promote(4, 10)
    for other in cluster.nodes:
        if other not in (4, wiped.node_id):
            cluster.network.cut(other, wiped.node_id)
    wiped.disk, wiped.harm = SimDisk(), Harm.WIPED
    await wiped.start()
    assert "another data directory" in await refusal(cluster, wiped.node_id)
    assert new.node.transport.links()[wiped.node_id].refused is not None
    cluster.network.heal()


@pytest.mark.parametrize(("starts", "why"), [(1, "copies of one data directory"), (2, "older copy")])
@scenario(KeyValue, seed=1)
async def test_a_copied_data_directory_is_refused(cluster, starts, why):
    """Two processes as one node: the second is told to go, and so is whoever comes with the older copy (F21, F22)."""
    sim = follower_of(cluster)
    sim.crash()
    image = sim.disk.copy()
    for _ in range(starts):
        await sim.start()
        await cluster.until_equal()
        sim.crash()
    sim.disk, sim.harm = image, Harm.OLDER_COPY
    await sim.start()
    await cluster.until_leader()
    text = await refusal(cluster, sim.node_id)
    assert why in text


@scenario(KeyValue, seed=1)
async def test_an_older_copy_is_refused_however_often_it_is_started(cluster):
    """Its number of starts catches up with the one that the others know, but it has not had the same starts (F21)."""
    sim = follower_of(cluster)
    sim.crash()
    image = sim.disk.copy()
    for _ in range(2):
        await sim.start()
        await cluster.until_equal()
        sim.crash()
    sim.disk, sim.harm = image, Harm.OLDER_COPY
    for _ in range(5):
        await sim.start()
        await elapse(3.0)
        assert not any(link.connected for link in sim.node.transport.links().values())
        sim.crash()
    await sim.start()
    assert "older copy" in await refusal(cluster, sim.node_id)


@scenario(KeyValue, seed=1)
async def test_a_removed_node_is_refused(cluster):
    """F57: its id was used, and it is told what to do instead of coming back."""
    sim = follower_of(cluster)
    await cluster.leader.orders.remove(sim.node_id)
    await cluster.until(lambda: all(len(node.raft.membership.voters) == 2 for node in cluster.running[:1]))
    sim.crash()
    with contextlib.suppress(NodeRemoved):  # it may know by its own log, or else it is told
        node = await sim.start()
        assert f"node {sim.node_id} was removed" in await refusal(cluster, sim.node_id)
        await cluster.until(lambda: isinstance(node.failure, NodeRemoved))


@scenario(KeyValue, seed=1)
async def test_a_peer_speaks_only_for_itself(cluster):
    """F22: a message that names another sender, or another receiver, ends the connection and counts for nothing."""
    node = cluster.leader
    one, other = [sim.node_id for sim in cluster.nodes.values() if sim.node_id != node.node_id]
    for sender, to in ((other, node.node_id), (one, other)):
        reply = AppendReply(sender=sender, to=to, term=node.raft.term, round=1, match_index=1)
        with pytest.raises(PeerError, match="sent a AppendReply from"):
            node.links.on_message(one, reply)


@scenario(KeyValue, seed=1)
async def test_a_node_of_another_cluster_is_refused(cluster):
    """Its addresses are right and its cluster is not: the text says what to check."""
    sim = follower_of(cluster)
    sim.crash()
    sim.disk, sim.harm = SimDisk(), Harm.WIPED
    cluster.founders = tuple(msgspec.structs.replace(m, peer_address=m.peer_address + "0") for m in cluster.founders)
    options = Options(node_id=sim.node_id, data_dir="/data", members=cluster.founders, config=CONFIG)
    assert options.members[0].peer_address.endswith("0")
    sim.member = next(member for member in cluster.founders if member.node_id == sim.node_id)
    cluster.nodes[sim.node_id] = sim
    node = await sim.start()
    own = cluster.member(sim.node_id)
    node.transport.set_peers({peer: cluster.member(peer).peer_address for peer in cluster.nodes})
    assert own.node_id == sim.node_id
    assert "belongs to the cluster" in await refusal(cluster, sim.node_id)


@scenario(KeyValue, seed=1)
async def test_a_node_that_was_not_added_is_told_to_be(cluster):
    """It waits, harmless, until it is added."""
    new = cluster.add(7)
    node = await new.start()
    node.transport.set_peers({1: cluster.nodes[1].member.peer_address})
    assert "add it first" in await refusal(cluster, 7)
    async with cluster.admin() as admin:
        await admin.add_learner(new.member)
    await cluster.until_equal()


@scenario(KeyValue, seed=1)
async def test_strangers_who_introduce_themselves_are_not_remembered_without_end(cluster):
    """Who knows the cluster's name may say to be a thousand nodes: what is kept still fits into a hello."""
    node = cluster.leader
    for number in range(1_000):
        known = {5_000 + number: Acquaintance(f"i{number}", 1, "x" * 32)}
        hello = msgspec.structs.replace(node.links.hello(), node_id=1_000 + number, nonce="n", known=known)
        node.links.check_hello(hello)
    follower = follower_of(cluster)
    follower.crash()
    await elapse(1)
    await follower.start()
    await cluster.until(lambda: follower.node.raft.leader == node.node_id, 10, "the follower back among friends")
    assert len(node.links.hello().known) <= STRANGERS_MAX + 3
    assert len(encode_message(node.links.hello())) < 16 * KIB


@scenario(KeyValue, seed=1)
async def test_who_starts_again_and_again_does_not_fill_the_queue_of_the_disk(cluster, monkeypatch):
    """A thousand starts of one node are a few writes, and the newest is on disk when they are over."""
    writes = []

    def save(disk, path, vote, known):
        writes.append(vote.identity.node_id)
        save_known(disk, path, vote, known)

    monkeypatch.setattr(peers, "save_known", save)
    node = cluster.leader
    await elapse(1)
    writes.clear()
    for boot in range(1, 1_001):
        hello = msgspec.structs.replace(node.links.hello(), node_id=77, boot=boot, nonce=f"n{boot}", starts=[])
        node.links.check_hello(hello)
    await elapse(1)
    assert 1 <= writes.count(node.node_id) <= 3
    assert load_known(node)[77].boot == 1_000


@scenario(KeyValue, seed=1)
async def test_an_older_raftkv_is_not_let_in_once_there_are_users(cluster):
    """It knows of none, so it would let everybody do everything, with a copy of all data."""
    node = cluster.leader
    hello = msgspec.structs.replace(node.links.hello(), node_id=77, incarnation="i77", nonce="n", starts=[])
    older = msgspec.structs.replace(hello, knows_users=False)
    node.links.check_hello(older)
    await node.orders.change_access(NewUser("ann"), None, 5.0)
    with pytest.raises(HandshakeRefused, match="node 77 runs an older raftkv"):
        node.links.check_hello(older)
    node.links.check_hello(hello)
