"""The majority is lost for good: one survivor goes on alone, as another cluster; crashes in between leave no third."""

from __future__ import annotations

import functools
import posixpath

import pytest

from raftkv.access import ROOT, Enable, NewPassword, NewUser
from raftkv.errors import InvalidArgument, NodeStopped, WrongDataDir
from raftkv.kv import KeyValue
from raftkv.model import Membership
from raftkv.node import Options
from raftkv.node.directory import close_directory, open_directory
from raftkv.node.recovering import begun, regain
from raftkv.node.survivors import compare, has_all, is_majority, look_at
from raftkv.testing import elapse, play, scenario
from raftkv.testing.world.settings import CONFIG
from tests.node.steps import fill
from tests.node.test_restoring import OF_ONE_CLUSTER
from tests.power import cut_off

DATA = "/var/data"
KEYS = 30
PASSWORD = "correct horse"
WITHOUT = (*OF_ONE_CLUSTER, "CommitIsDurableOnAMajority", "AppliedNeverGoesBack", "TermNeverGoesBack")
_disks = {}


def opened_at(sim, disk=None, data_dir=DATA):
    """Open a directory as a start without members does."""
    return open_directory(Options(node_id=sim.node_id, data_dir=data_dir, config=CONFIG), sim.world())


@functools.cache
def left(seed, snapshots=False, made_on=False):
    """The disks of three nodes that were killed under load, each with what it had."""
    found = {}

    async def story(cluster):
        client = cluster.client()
        await fill(client, KEYS)
        await cluster.leader.orders.change_access(NewUser("ann"), None, 5.0)
        if snapshots:
            for sim in cluster.nodes.values():
                await sim.node.orders.take_snapshot()
            await fill(client, 5, start=KEYS)
        if made_on:
            await cluster.leader.orders.change_access(NewUser("boss", PASSWORD, (ROOT,)), None, 5.0)
            await cluster.leader.orders.change_access(Enable("boss", PASSWORD), None, 5.0)
            await cluster.until_equal()
        for sim in cluster.nodes.values():
            found[sim.node_id] = sim.durable_index or sim.held_index
            sim.crash()
        found["disks"] = {sim.node_id: sim.disk.copy() for sim in cluster.nodes.values()}
        for sim in cluster.nodes.values():
            await sim.start()
        await cluster.until_leader()
        await client.close()

    play(KeyValue, story, seed=seed)
    return found["disks"]


@pytest.fixture(scope="module", autouse=True)
def lost():
    """Made before any story begins, as each grows in a world of its own."""
    for snapshots in (False, True):
        for made_on in (False, True):
            left(21, snapshots, made_on)


def survivor_in(cluster, snapshots=False, node_id=1, made_on=False):
    """The machine of a survivor, with its disk as it was left."""
    sim = cluster.nodes[node_id]
    disk = left(21, snapshots, made_on)[node_id].copy()
    sim.disk = disk
    return sim


@pytest.mark.parametrize("snapshots", [False, True])
@scenario(KeyValue, seed=1, started=False, without=WITHOUT)
async def test_a_survivor_goes_on_alone_with_all_that_it_had(cluster, snapshots):
    """It leads at once, everything in its log is applied, it writes on and starts again; the old content is kept, and
    the report says what may be lost (F87)."""
    sim = survivor_in(cluster, snapshots)
    before = look_at(sim.disk, "/data")
    assert not before.problems and before.membership.voters == (1, 2, 3)
    done = regain(sim.world(), "/data", CONFIG, nothing_lost=False)
    assert (done.last_index, done.old_cluster_id) == (before.last_index, before.cluster_id)
    assert done.new_cluster_id != before.cluster_id and done.new_members.removed == (2, 3)
    assert sorted(name for name in sim.disk.listdir("/data") if "recover" in name) == [
        "before-recovery-1",
        "recovery-1.json",
    ]
    after = look_at(sim.disk, "/data")
    assert not after.problems and after.membership == done.new_members
    assert (after.lineage.cluster_id, after.lineage.index) == (before.cluster_id, before.last_index)
    cluster.founders = ()
    await sim.start()
    await cluster.until(lambda: sim.node.raft.is_leader, 10, "it leads alone")
    client = cluster.client(1)
    for number in range(KEYS + (5 if snapshots else 0)):
        assert await client.remote.get(b"key-%05d" % number) is not None
    await fill(client, 5, start=1000)
    assert sim.node.cluster_id == done.new_cluster_id
    sim.crash()
    await sim.start()
    await cluster.until(lambda: sim.node.raft.is_leader, 10, "it leads again")
    assert await client.remote.get(b"key-01004") is not None
    assert set(sim.node.access.users) == {"ann"}
    await client.close()


@scenario(KeyValue, seed=2, started=False, without=WITHOUT)
async def test_a_member_of_the_old_cluster_is_refused_for_ever(cluster):
    """Both of them come back and are a majority of the old cluster, which goes on; the two never mix."""
    sim = survivor_in(cluster)
    others = [survivor_in(cluster, node_id=node_id) for node_id in (2, 3)]
    done = regain(sim.world(), "/data", CONFIG, nothing_lost=False)
    founders, cluster.founders = cluster.founders, ()
    await sim.start()
    await cluster.until(lambda: sim.node.raft.is_leader, 10, "it leads alone")
    cluster.founders = founders
    for other in others:
        await other.start()
    await cluster.until(
        lambda: any(other.node is not None and other.node.raft.is_leader for other in others), 30, "the old one goes on"
    )
    await elapse(5)
    for other in others:
        assert other.node.cluster_id == done.old_cluster_id
        assert "belongs to the cluster" in str(other.node.transport.links()[1].refused)
    assert sim.node.raft.membership.voters == (1,) and sim.node.cluster_id == done.new_cluster_id


def test_a_recovery_that_is_cut_off_anywhere_leaves_the_old_node_or_goes_on():
    """The power goes out before each operation on the disk: then the old node starts as it was, or nothing does and
    the same command goes on, or the new one starts. There is nothing in between (F87)."""

    def tried(number):
        cut, seen = [], []

        async def story(cluster):
            sim = survivor_in(cluster, snapshots=True)
            old = look_at(sim.disk, "/data")
            work = functools.partial(regain, sim.world(), "/data", CONFIG, nothing_lost=False)
            cut.append(cut_off(sim.disk, number, work))
            try:
                opened = opened_at(sim, data_dir="/data")
            except WrongDataDir:
                seen.append("refused")
                assert begun(sim.disk, "/data") is not None
            else:
                seen.append("old" if opened.founding.cluster_id == old.cluster_id else "new")
                close_directory(opened)
            if seen != ["new"]:
                regain(sim.world(), "/data", CONFIG, nothing_lost=False)
            opened = opened_at(sim, data_dir="/data")
            assert opened.founding.lineage.cluster_id == old.cluster_id
            assert opened.view.membership.voters == (1,)
            assert opened.view.last_index == old.last_index + 2, "what it goes on from, and who is a member"
            close_directory(opened)
            kept = look_at(sim.disk, "/data/before-recovery-1")
            assert (kept.cluster_id, kept.last_index) == (old.cluster_id, old.last_index)

        play(KeyValue, story, seed=number, started=False)
        return cut[0], seen[0]

    outcomes = {}
    number, was_cut_off = 1, True
    while was_cut_off:
        was_cut_off, outcome = tried(number)
        outcomes.setdefault(outcome, []).append(number)
        number += 1 if outcome == "refused" else 5
    assert {"old", "refused", "new"} == set(outcomes)
    assert max(outcomes["old"]) < min(outcomes["refused"]) <= max(outcomes["refused"]) < max(outcomes["new"])


@scenario(KeyValue, seed=4, started=False, without=WITHOUT)
async def test_a_directory_in_doubt_is_not_recovered(cluster):
    """A damaged log, one that is no directory of a node, one that was removed from: nothing is changed."""
    sim = survivor_in(cluster)
    (segment,) = [name for name in sim.disk.listdir("/data/log") if name.endswith(".log")]
    sim.disk.flip(posixpath.join("/data/log", segment), 700, 1)
    before = sim.disk.listdir("/data")
    with pytest.raises(NodeStopped):
        regain(sim.world(), "/data", CONFIG, nothing_lost=False)
    assert look_at(sim.disk, "/data").problems
    assert [name for name in sim.disk.listdir("/data") if "recover" in name] == []
    assert sim.disk.listdir("/data") == before
    with pytest.raises(InvalidArgument, match="no data directory"):
        look_at(sim.disk, "/elsewhere")


@scenario(KeyValue, seed=5, started=False, without=WITHOUT)
async def test_two_survivors_that_are_both_recovered_are_two_clusters(cluster):
    """By mistake: neither lets the other in, as each has another random word in its lineage."""
    ids = set()
    for node_id in (1, 2):
        sim = survivor_in(cluster, node_id=node_id)
        ids.add(regain(sim.world(), "/data", CONFIG, nothing_lost=False).new_cluster_id)
    assert len(ids) == 2


def test_of_several_survivors_the_one_with_the_newest_term_then_the_longest_log_is_best():
    """As an election would choose; damaged ones come last, and it is said whether anything can be missing."""
    disks = left(21)
    found = [look_at(disks[node_id].copy(), "/data") for node_id in (1, 2, 3)]
    both = compare(found[:2])
    assert both.is_majority and both.has_all
    alone = compare(found[:1])
    assert not alone.is_majority and not alone.has_all and alone.best is found[0]
    found[0].last_term, found[0].last_index = 3, 10
    found[1].last_term, found[1].last_index = 2, 90
    found[2].last_term, found[2].last_index = 3, 11
    assert [each.node_id for each in compare(found).survivors] == [3, 1, 2]
    found[2].problems.append("its log is damaged")
    assert [each.node_id for each in compare(found).survivors] == [1, 2, 3]
    assert compare(found[2:]).best is None
    with pytest.raises(InvalidArgument, match="same node"):
        compare([found[0], found[0]])
    found[1].cluster_id = "other"
    with pytest.raises(InvalidArgument, match="2 clusters"):
        compare(found)


@pytest.mark.parametrize(
    ("voters", "outgoing", "nodes", "has", "can"),
    [
        ((1,), (), (1,), True, True),
        ((1, 2), (), (1,), True, False),
        ((1, 2, 3), (), (1,), False, False),
        ((1, 2, 3), (), (1, 3), True, True),
        ((1, 2, 3, 4), (), (1, 2), True, False),
        ((1, 2, 3, 4, 5), (), (1, 2), False, False),
        ((1, 2, 3), (3, 4), (3,), False, False),  # 1 and 2 have left it: they go by the new voters
        ((1, 2), (1, 2, 3), (1,), False, False),  # 2 and 3 have never had it: they go by the old voters
        ((1, 2), (1, 3), (1,), True, False),
        ((), (), (1,), False, False),
    ],
)
def test_what_can_be_missing_follows_from_who_is_left(voters, outgoing, nodes, has, can):
    """Nothing, if the others are no majority without these; in a joint membership, of neither group."""
    membership = Membership(voters=voters, outgoing=outgoing)
    assert has_all(membership, nodes) is has
    assert is_majority(membership, nodes) is can


def test_a_torn_end_is_seen_and_does_no_harm():
    """A write that the crash has torn: nobody was told of it, so it is named, and is no damage."""
    disk = left(21)[1].copy()
    (segment,) = [name for name in disk.listdir("/data/log") if name.endswith(".log")]
    path = posixpath.join("/data/log", segment)
    whole = look_at(disk, "/data")
    assert whole.torn_at is None and not whole.problems
    data = disk.read_bytes(path)
    end = len(data.rstrip(b"\0"))
    disk.write_synced(path, data[: end - 20])
    torn = look_at(disk, "/data")
    assert torn.torn_at is not None
    assert torn.last_index < whole.last_index
    assert not torn.problems and compare([torn]).best is torn


@pytest.mark.parametrize("snapshots", [False, True])
@scenario(KeyValue, seed=6, started=False, without=WITHOUT)
async def test_who_can_not_sign_in_any_more_has_a_way_back(cluster, snapshots):
    """A survivor may be recovered so that nobody has to: all data and users are there, and it goes on like this."""
    sim = survivor_in(cluster, snapshots, made_on=True)
    assert regain(sim.world(), "/data", CONFIG, nothing_lost=True, auth_off=True).auth_off
    cluster.founders = ()
    await sim.start()
    await cluster.until(lambda: sim.node.raft.is_leader and sim.node.requests.knows_all, 10, "it leads alone")
    assert not sim.node.access.is_on and set(sim.node.access.users) == {"ann", "boss"}
    client = cluster.client(1)
    assert await client.remote.get(b"key-00000") is not None
    async with cluster.admin(1) as admin:
        await admin.change_access(NewPassword("boss", "another one"))
    sim.crash()
    await sim.start()
    await cluster.until(lambda: sim.node.raft.is_leader and sim.node.requests.knows_all, 10, "it leads again")
    assert not sim.node.access.is_on
    await client.close()
