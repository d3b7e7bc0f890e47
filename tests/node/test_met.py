"""Who comes with other files than before has no say, whenever the others crashed and whoever had met it."""

from __future__ import annotations

from raftkv.disk.simulated import SimDisk
from raftkv.kv import KeyValue
from raftkv.node.met import load_known
from raftkv.testing.cluster import CONFIG, SimCluster
from raftkv.testing.loop import SimLoop, elapse


def tell(story, size=3, seed=1):
    """Tell `story` with a cluster of which nothing runs yet; nothing may fail behind its back."""
    loop = SimLoop()

    async def main():
        cluster = SimCluster(KeyValue, size, seed=seed, config=CONFIG)
        await story(cluster)
        await cluster.stop()

    loop.run(main())
    assert loop.failures == []


async def refusal(sim, peer):
    """Why `sim` does not talk to `peer`."""
    status = lambda: sim.node.transport.links()[peer]  # noqa: E731
    await sim.cluster.until(lambda: status().refused is not None, 10, f"node {sim.node_id} refuses node {peer}")
    return status().refused


async def lead_without(cluster, absent):
    """Start all others; returns the machine of their leader."""
    for sim in cluster.nodes.values():
        if sim.node_id != absent:
            await sim.start()
    return cluster.nodes[(await cluster.until_leader()).node_id]


def test_whoever_counted_an_acknowledgement_knows_whose_it_was():
    """A founder comes late, and the leader's disk is slow; the power goes out in the very moment in which something
    of that founder counts for the first time. Then it is wiped: the leader refuses it (F20)."""

    async def story(cluster):
        late = cluster.nodes[2]
        leader = await lead_without(cluster, late.node_id)
        leader.disk_s = 0.2
        await late.start()
        progress = leader.node.raft.role.progress[late.node_id]
        while progress.match_index == 0:
            await elapse(0.0002)
        for sim in cluster.nodes.values():
            sim.crash()
        late.disk = SimDisk()
        leader.disk_s = 0.0005
        await leader.start()
        await late.start()
        assert "another data directory" in await refusal(leader, late.node_id)
        assert not leader.node.raft.is_leader and late.node.raft.commit_index == 0

    for seed in range(5):
        tell(story, seed=seed)


def test_a_peer_is_not_answered_before_it_is_on_disk_who_it_is():
    """The disk hangs: the newcomer waits, nothing of it counts, and what it was is forgotten with the crash (F20)."""

    async def story(cluster):
        late = cluster.nodes[2]
        leader = await lead_without(cluster, late.node_id)
        leader.workers[0].stalled = True
        await late.start()
        node = leader.node
        await elapse(0.5)
        assert not node.transport.links()[late.node_id].connected
        assert node.raft.role.progress[late.node_id].match_index == 0
        assert not late.node.transport.links()[leader.node_id].connected
        assert late.node_id not in load_known(node)
        leader.unhang()
        await cluster.until_equal()
        assert load_known(leader.node)[late.node_id].nonce == late.node.world.nonce

    tell(story)


def test_what_was_learned_during_a_handshake_is_told_when_it_is_over():
    """A node meets a third one while its handshake with another is under way: both hellos were written before."""

    async def story(cluster):
        one, two, three = cluster.nodes.values()
        cluster.network.cut(2, 3)
        cluster.network.delays = {(1, 2): 0.5, (2, 1): 0.05}
        await one.start()
        await two.start()
        await elapse(0.2)
        await three.start()
        await cluster.until(lambda: 3 in load_known(one.node), 0.2, "node 1 meets node 3")
        await cluster.until(lambda: 3 in load_known(two.node), 2, "node 2 hears of node 3")
        cluster.network.heal()

    tell(story)
