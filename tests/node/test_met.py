"""Who comes with other files than before has no say, whenever the others crashed and whoever had met it."""

from __future__ import annotations

from types import SimpleNamespace

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raftkv.disk.simulated import SimDisk
from raftkv.errors import HandshakeRefused, WrongDataDir
from raftkv.kv import KeyValue
from raftkv.node import Options, start_node
from raftkv.node.peers.met import COPIES, DIRECTORIES, LOST, Met, compare, seen
from raftkv.testing import elapse, play, scenario
from raftkv.testing.world.cluster import SimNode
from raftkv.testing.world.harm import Harm
from raftkv.transport import MemoryTransport
from raftkv.wire import Acquaintance, Acquaintances
from tests.logged import capture_logs
from tests.node.files import load_known

TWIN = 20
"""Whom the network takes the second process of node 2 for."""


class Twin(SimNode):
    """A second process under the id of node 2, on another machine, which no client reaches."""

    def __init__(self, cluster, disk):
        super().__init__(cluster, cluster.founders[1])
        self.disk = disk

    async def start(self):
        cluster, config = self.cluster, self.cluster.config
        self.starts += 1
        world = msgspec.structs.replace(self.world(), nonce=f"{TWIN}.{self.starts}")
        transport = MemoryTransport(cluster.network, TWIN, f"peer-{TWIN}:1", config=config, draw=self.dice.randrange)
        options = Options(node_id=2, data_dir="/data", members=cluster.founders, config=config)
        self.node = await start_node(cluster.machine, options, transport, world)

    async def stop(self):
        await self.node.stop()


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
        late.disk, late.harm = SimDisk(), Harm.WIPED
        leader.disk_s = 0.0005
        await leader.start()
        await late.start()
        assert "another data directory" in await refusal(leader, late.node_id)
        assert not leader.node.raft.is_leader and late.node.raft.commit_index == 0

    for seed in range(5):
        play(KeyValue, story, seed=seed, started=False)


@scenario(KeyValue, seed=1, started=False)
async def test_a_peer_is_not_answered_before_it_is_on_disk_who_it_is(cluster):
    """The disk hangs: the newcomer waits, nothing of it counts, and what it was is forgotten with the crash (F20)."""
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
    assert load_known(leader.node)[late.node_id].nonce == late.node.body.world.nonce


@scenario(KeyValue, seed=1, started=False)
async def test_what_was_learned_during_a_handshake_is_told_when_it_is_over(cluster):
    """A node meets a third one while its handshake with another is under way: both hellos were written before."""
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


async def meet_apart(cluster, twin_disk):
    """Node 1 talks to node 2, node 3 to its twin, and nobody else to anybody; then nodes 1 and 3 meet.

    Returns what they say of it.
    """
    network = cluster.network
    one, two, three = cluster.nodes.values()
    for a, b in ((1, 3), (2, 3), (1, TWIN)):
        network.cut(a, b)
    for sim in (one, two, three):
        if not sim.is_up:
            await sim.start()
    twin = Twin(cluster, twin_disk)
    await twin.start()
    await cluster.until(lambda: one.node.transport.links()[2].connected, 10, "node 1 and node 2")
    await cluster.until(lambda: three.node.peers.met.incarnation_of(2) is not None, 10, "node 3 and the twin")
    await cluster.until(
        lambda: load_known(three.node)[2].nonce == twin.node.body.world.nonce, 10, "node 3 and the twin"
    )
    with capture_logs() as lines:
        network.heal()
        for a, b in ((2, 3), (1, TWIN)):
            network.cut(a, b)
        await cluster.until(lambda: one.node.transport.links()[2].refused is not None, 10, "node 1 refuses node 2")
        await cluster.until(lambda: load_known(three.node)[2].doubt, 10, "node 3 refuses the twin")
        network.heal()
        await elapse(2)
    assert not any(sim.node.transport.links()[2].connected for sim in (one, three))
    assert not any(link.connected for sim in (two, twin) for link in sim.node.transport.links().values())
    await twin.stop()
    return [line for line in lines if line["event"] == "peer_doubted"]


async def goes_on_without_node_2(cluster, doubt):
    """Nodes 1 and 3 are a majority and serve; nobody counts node 2, also when they have started again."""
    for _ in range(2):
        client = cluster.client()
        await client.remote.put(b"key", b"value")
        await client.close()
        leader = await cluster.until_leader()
        assert leader.node_id in (1, 3)
        progress = leader.raft.role.progress[2]
        assert progress.match_index < leader.raft.commit_index
        for node_id in (1, 3):
            sim = cluster.nodes[node_id]
            assert load_known(sim.node)[2].doubt == doubt
            sim.crash()
        for node_id in (1, 3):
            await cluster.nodes[node_id].start()
        assert "counts no more" in await refusal(cluster.nodes[1], 2)
        assert "counts no more" in await refusal(cluster.nodes[3], 2)


@scenario(KeyValue, seed=1, started=False)
async def test_two_live_processes_on_copies_of_a_directory_count_nowhere(cluster):
    """Nobody has met both, so nobody can know, until those who met one of them compare: then both connections end,
    the log says what to do, and the others go on without (F22)."""
    await cluster.start()
    await cluster.until_leader()
    await cluster.until_equal()
    two = cluster.nodes[2]
    two.crash()
    lines = await meet_apart(cluster, two.disk.copy())
    assert {line["node"] for line in lines} == {1, 3} and len(lines) == 2
    assert all("copies of one data directory" in line["reason"] for line in lines)
    assert all("add it under a new id" in line["reason"] for line in lines)
    await goes_on_without_node_2(cluster, COPIES)


@scenario(KeyValue, seed=1, started=False)
async def test_two_live_processes_on_two_directories_count_nowhere(cluster):
    """A founder is replaced by an empty one, and the only one that it talks to never met the old one (F20)."""
    await lead_without(cluster, 3)
    lines = await meet_apart(cluster, SimDisk())
    assert {line["node"] for line in lines} == {1, 3} and len(lines) == 2
    assert all("another data directory" in line["reason"] for line in lines)
    await goes_on_without_node_2(cluster, DIRECTORIES)


@scenario(KeyValue, seed=1, started=False)
async def test_who_was_started_since_is_not_heard_any_more(cluster):
    """Others have met a later start of a node than the one that is connected: it has to show that it had that (F21)."""
    await cluster.start()
    await cluster.until_leader()
    await cluster.until_equal()
    node, sender = cluster.nodes[1].node, 3
    hello = cluster.nodes[2].node.links.hello()
    assert node.transport.links()[2].connected
    later = Acquaintance(hello.incarnation, hello.boot + 1, "later")
    node.links.on_message(sender, Acquaintances({2: later}))
    assert not node.transport.links()[2].connected
    assert f"(start {hello.boot}, seen was {hello.boot + 1})" in await refusal(cluster.nodes[1], 2)
    for word in ("other", "later"):
        starts = [*hello.starts, (hello.boot + 1, word), (hello.boot + 2, "next")]
        comes = msgspec.structs.replace(hello, boot=hello.boot + 2, nonce="next", starts=starts)
        if word == "other":
            with pytest.raises(HandshakeRefused, match="older copy"):
                node.links.check_hello(comes)
        else:
            node.links.check_hello(comes)
    assert node.links.hello().known[2] == Acquaintance(hello.incarnation, hello.boot + 2, "next")


@scenario(KeyValue, seed=1)
async def test_what_a_hello_tells_counts_from_that_moment(cluster):
    """A new member has met nobody: else it would let in whom all others refuse, until they have told it more (F20)."""
    node = cluster.leader
    hello = msgspec.structs.replace(
        node.links.hello(), node_id=77, boot=1, nonce="n", starts=[], known={88: Acquaintance("first", 3, "m")}
    )
    node.links.check_hello(hello)
    wiped = msgspec.structs.replace(hello, node_id=88, incarnation="second", known={})
    with pytest.raises(HandshakeRefused, match="88"):
        node.links.check_hello(wiped)


@scenario(KeyValue, seed=1, started=False)
async def test_a_leader_asks_everybody_anew_when_one_of_its_voters_is_in_doubt(cluster):
    """What that one acknowledged must not be counted later, together with what others acknowledge (F22)."""
    await cluster.start()
    leader = await cluster.until_leader()
    await cluster.until_equal()
    doubted, teller = [node_id for node_id in cluster.nodes if node_id != leader.node_id]
    known, term = leader.links.hello().known[doubted], leader.raft.term
    leader.links.on_message(teller, Acquaintances({doubted: msgspec.structs.replace(known, nonce="another")}))
    assert not leader.raft.is_leader
    await cluster.until(lambda: cluster.leader is not None and cluster.leader.raft.term > term, 10, "a new leader")
    assert cluster.leader.node_id != doubted


@scenario(KeyValue, seed=1, started=False)
async def test_a_copy_that_takes_the_place_of_a_running_node_is_found_out(cluster):
    """The directory is copied while the node runs, and the copy is started when the node has acknowledged more: it has
    had all starts that others know of, but not what was acknowledged since (F22)."""
    await cluster.start()
    leader = await cluster.until_leader()
    await cluster.until_equal()
    sim = next(sim for sim in cluster.nodes.values() if sim.node_id != leader.node_id)
    image = sim.disk.copy()
    client = cluster.client()
    for number in range(20):
        await client.remote.put(b"%d" % number, b"value")
    await cluster.until_equal()
    sim.crash()
    sim.disk, sim.harm = image, Harm.OLDER_COPY
    sim.disk.crash(sim.dice)
    await sim.start()
    assert "came back without entries that it had acknowledged" in await refusal(
        cluster.nodes[leader.node_id], sim.node_id
    )
    others = [each for each in cluster.nodes.values() if each is not sim]
    await cluster.until(
        lambda: all(load_known(each.node)[sim.node_id].doubt == LOST for each in others), 10, "all know"
    )
    await client.remote.put(b"more", b"value")
    assert sim.node.raft.commit_index <= 1
    await client.close()


@scenario(KeyValue, size=1, seed=1, started=False, without=["ImpostorsHaveNoSay"])  # it leads itself, alone
async def test_a_wiped_founder_that_stood_alone_stops_when_it_hears_of_itself(cluster):
    """It founds its cluster of one again, as it is told to, and nobody is there to refuse it; the first of the others
    who reaches it knows better (F20)."""
    await cluster.start()
    leader = await cluster.until_leader()
    for node_id in (2, 3):
        new = cluster.add(node_id)
        await new.start()
        await leader.orders.add_learner(new.member, 10)
        await leader.orders.promote(node_id, 10)
    await cluster.until_equal()
    one = cluster.nodes[1]
    one.crash()
    one.disk, one.harm = SimDisk(), Harm.WIPED
    await one.start()
    assert one.node.raft.membership.voters == (1,)
    await cluster.until(lambda: one.node.failure is not None, 10, "it stops")
    assert isinstance(one.node.failure, WrongDataDir)
    assert "founded the cluster a second time" in await refusal(cluster.nodes[2], 1)
    await cluster.until(lambda: any(cluster.nodes[each].node.raft.is_leader for each in (2, 3)), 10, "a leader")


MET = st.builds(
    Acquaintance,
    st.sampled_from("ab"),
    st.integers(1, 3),
    st.sampled_from("xy"),
    st.none() | st.tuples(st.integers(4, 6), st.sampled_from("xy")),
    st.sampled_from(["", "", DIRECTORIES]),
)


BOOTS = range(1, 7)


@pytest.mark.parametrize("later", [None, (5, "n5")])
@pytest.mark.parametrize("incarnation", ["i1", "i2"])
@pytest.mark.parametrize("boot", BOOTS)
@pytest.mark.parametrize("nonce", ["n3", "other"])
@pytest.mark.parametrize("oldest", [*BOOTS, None])
def test_a_peer_is_let_in_only_as_the_one_that_was_met_or_a_later_start_of_it(later, incarnation, boot, nonce, oldest):
    """F20, F21, F22: it was met as the start 3 of its directory, and perhaps others have met the start 5. No number of
    starts makes up for another directory, and no later start for one that it lacks."""
    met = Met({2: Acquaintance("i1", 3, "n3", later)}, lambda known: None, lambda done: None)
    starts = [(each, f"n{each}") for each in range(oldest, boot + 1)] if oldest is not None else []
    if starts:
        starts[-1] = (boot, nonce)
    hello = SimpleNamespace(node_id=2, incarnation=incarnation, boot=boot, nonce=nonce, starts=starts)
    had = dict(starts)
    needed = [(3, "n3")] + ([later] if later is not None else [])
    is_known = all(
        boot >= each and (not had or each < min(had) or had.get(each) == word) for each, word in needed
    ) and not (boot == 3 and nonce != "n3")
    if incarnation == "i1" and is_known:
        met.check(hello)
    else:
        with pytest.raises(HandshakeRefused):
            met.check(hello)


@pytest.mark.parametrize("boot", [2, 3, 4])
@pytest.mark.parametrize("durable", [9, 10, 11])
def test_a_later_start_has_lost_what_ends_before_what_it_had_acknowledged(boot, durable):
    """F6: not the start that was met, which may have acknowledged more since; and not who has exactly that much."""
    met = Met({2: Acquaintance("i1", 3, "n3")}, lambda known: None, lambda done: None)
    hello = SimpleNamespace(node_id=2, boot=boot, durable_index=durable)
    assert met.has_lost(hello, 10) == (boot == 4 and durable == 9)
    hello.node_id = 7
    assert not met.has_lost(hello, 10), "nobody knows what it had"


@given(MET, MET)
def test_what_others_have_met_never_makes_a_node_more_believed(ours, theirs):
    """Whoever fits to what is known afterwards had fitted before, and telling it twice changes nothing."""
    after = compare(ours, theirs)
    assert compare(after, theirs) == after
    assert compare(ours, ours) == ours
    assert (after.incarnation, after.boot, after.nonce) == (ours.incarnation, ours.boot, ours.nonce)
    assert after.doubt or not (ours.doubt or theirs.doubt or ours.incarnation != theirs.incarnation)
    if not after.doubt:
        assert max(seen(after)) == max(*seen(ours), *seen(theirs))
