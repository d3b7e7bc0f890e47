"""Who leads, as a node tells it: not before it may serve, and no longer than it leads."""

from __future__ import annotations

from itertools import pairwise

from raftkv.kv import KeyValue
from raftkv.node import Node, Role
from raftkv.testing import elapse, scenario
from raftkv.testing.world.cluster import SimCluster


class Told:
    """What the nodes of a cluster have told of their roles, in its order."""

    def __init__(self, cluster: SimCluster) -> None:
        self._cluster = cluster
        self.all: list[tuple[int, Role]] = []
        for node in cluster.running:
            self.listen(node)
        cluster.on_started.append(self.listen)

    def listen(self, node: Node) -> None:
        """Hear of a node's roles."""

        def told(role: Role) -> None:
            if role.is_leader:
                assert node.raft.is_leader and node.raft.term == role.term
                assert node.applier.runner.applied.term == role.term, "it may not serve yet"
            self.all.append((node.node_id, role))

        node.leadership.tell(told)

    def leaders(self) -> list[tuple[int, int]]:
        """Who led, and in which term, in the order in which it was told."""
        return [(node_id, role.term) for node_id, role in self.all if role.is_leader]

    def last(self, node_id: int) -> Role:
        """The last that a node has told of."""
        return [role for each, role in self.all if each == node_id][-1]


@scenario(KeyValue)
async def test_leadership_is_told_when_the_node_may_serve_and_ends_at_once(cluster: SimCluster) -> None:
    """Through transfers: each term's leader is told once, and before the next one the last one has told its end."""
    told = Told(cluster)
    async with cluster.client() as remote:
        for number in range(4):
            await remote.put(b"a", b"%d" % number)
            old = cluster.leader
            assert old is not None
            await old.orders.transfer_leadership(None)
            await cluster.until(lambda old=old: cluster.leader not in (None, old), 30)
            await elapse(1.0)
    leaders = told.leaders()
    assert len(leaders) == 5 and len({term for _, term in leaders}) == 5
    for (node_id, term), (_, after) in pairwise(leaders):
        end = next(at for at, (each, role) in enumerate(told.all) if each == node_id and role.term > term)
        assert end < told.all.index(next(each for each in told.all if each[1].is_leader and each[1].term == after))


@scenario(KeyValue)
async def test_a_leader_that_is_cut_off_tells_that_it_leads_no_more(cluster: SimCluster) -> None:
    """By itself, when it has not heard a majority for as long as an election takes."""
    told = Told(cluster)
    async with cluster.client() as remote:
        await remote.put(b"a", b"1")
    old = cluster.leader
    assert old is not None
    assert told.last(old.node_id) == Role(True, old.raft.term, old.node_id)
    for other in cluster.nodes:
        if other != old.node_id:
            cluster.network.cut(old.node_id, other)
    await cluster.until(
        lambda: not told.last(old.node_id).is_leader, 4 * cluster.election_timeout_s, "it says it leads"
    )
    cluster.network.heal()


@scenario(KeyValue)
async def test_a_node_that_ends_or_is_in_doubt_does_not_lead(cluster: SimCluster) -> None:
    """Whether it is stopped or fails; and while replicas differ, as it tells clients nothing then."""
    told = Told(cluster)
    async with cluster.client() as remote:
        await remote.put(b"a", b"1")
    leader = cluster.leader
    assert leader is not None
    leader.body.doubt = "the others' states differ"
    leader.leadership.look()
    assert not told.last(leader.node_id).is_leader
    leader.body.doubt = None
    leader.leadership.look()
    assert told.last(leader.node_id).is_leader
    await cluster.nodes[leader.node_id].stop()
    assert told.last(leader.node_id) == Role(False, leader.raft.term, None)
