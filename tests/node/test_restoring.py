"""A new cluster is begun with a backup: whole or not at all, with all that was in it, and nobody else's."""

from __future__ import annotations

import functools

import pytest

from raftkv.access import ROOT, Enable, NewUser
from raftkv.disk.simulated import SimDisk
from raftkv.errors import ConfigError, InvalidArgument, SnapshotCorruption, Unauthenticated, WrongDataDir
from raftkv.kv import KeyValue
from raftkv.model import Member
from raftkv.node import Options
from raftkv.node.directory import close_directory, open_directory
from raftkv.node.restoring import MARK, UNFINISHED, RestorePlan, restore
from raftkv.snapshot.backup import BackupWriter, SealedHead
from raftkv.testing import play, scenario
from raftkv.testing.world.settings import CONFIG
from raftkv.wire import BackupAsk, BackupRead
from tests.logged import capture_logs
from tests.node.steps import fill, read_all
from tests.power import cut_off

FILE = "/backups/a"
KEYS = 40
NAME = "again"
PLACE = "/var/data"
PASSWORD = "correct horse"
OF_ONE_CLUSTER = (
    "CommittedIsForever",
    "DigestsAgree",
    "ElectionSafety",
    "LeaderCompleteness",
    "LogMatching",
    "MembershipsAgree",
    "SnapshotsAreTheState",
)
"""What the judges expect of nodes that belong together."""


@functools.cache
def backup_bytes(seed, made_on=False):
    """The backup of a cluster with some keys."""
    found = {}

    async def story(cluster):
        client = cluster.client()
        await fill(client, KEYS)
        node = cluster.leader
        await node.orders.change_access(NewUser("ann"), None, 5.0)
        if made_on:
            await node.orders.change_access(NewUser("boss", PASSWORD, (ROOT,)), None, 5.0)
            await node.orders.change_access(Enable("boss", PASSWORD), None, 5.0)
        head = SealedHead.seal(await node.orders.offer_backup(BackupAsk(), 5.0))
        data = await node.orders.read_backup(BackupRead(head.digest, 0, head.manifest.total_bytes))
        disk = SimDisk()
        disk.mkdir("/backups")
        writer = BackupWriter(disk, FILE, head)
        writer.append(data)
        writer.finish()
        found["data"] = disk.read_bytes(FILE)
        found["head"] = head
        await client.close()

    play(KeyValue, story, seed=seed)
    return found["data"], found["head"]


@pytest.fixture(scope="module", autouse=True)
def backups():
    """Made before any story begins, as each grows in a world of its own."""
    for seed in (11, 12):
        backup_bytes(seed)
    backup_bytes(11, made_on=True)


def put_backup(disk, data=None):
    """Put the backup on a disk."""
    disk.mkdir("/backups")
    disk.write_synced(FILE, backup_bytes(11)[0] if data is None else data)
    disk.sync_dir("/backups")


def plan_for(sim, members, name=NAME, data_dir="/data", auth_off=False):
    """What the operator of this machine says."""
    return RestorePlan(node_id=sim.node_id, data_dir=data_dir, members=members, cluster_name=name, auth_off=auth_off)


def founders(cluster):
    """The members that the machines of a simulated cluster are started with."""
    return tuple(sim.member for sim in cluster.nodes.values())


async def restored(cluster):
    """Restore all founders and start them."""
    for sim in cluster.nodes.values():
        put_backup(sim.disk)
        restore(sim.world(), FILE, plan_for(sim, founders(cluster)), CONFIG)
    await cluster.start()
    return await cluster.until_leader()


@scenario(KeyValue, seed=1, started=False)
async def test_founders_restored_from_one_file_are_a_cluster_with_all_that_was_in_it(cluster):
    """They find each other, have each key and user, go on writing, are equal, and no start speaks of damage (F87)."""
    head = backup_bytes(11)[1]
    with capture_logs() as lines:
        leader = await restored(cluster)
    assert not [line for line in lines if line["log_level"] in ("warning", "error")], lines
    assert leader.cluster_id != head.head.cluster_id
    assert {node.cluster_id for node in cluster.running} == {leader.cluster_id}
    assert leader.raft.log.start.index == head.snapshot.index
    assert leader.raft.term > head.snapshot.term
    assert all(set(node.access.users) == {"ann"} for node in cluster.running)
    client = cluster.client()
    await read_all(cluster, client, KEYS)
    await fill(client, 10, start=KEYS)
    await cluster.until_equal()
    for sim in cluster.nodes.values():
        sim.crash()
    await cluster.start()
    await cluster.until_leader()
    await read_all(cluster, client, KEYS + 10)
    await client.close()


@scenario(KeyValue, seed=2, started=False)
async def test_one_founder_alone_is_joined_by_others(cluster):
    """They get everything from it."""
    first, *others = cluster.nodes.values()
    put_backup(first.disk)
    restore(first.world(), FILE, plan_for(first, (first.member,)), CONFIG)
    opened = open_directory(Options(node_id=first.node_id, data_dir="/data", config=CONFIG), first.world())
    assert opened.view.membership.voters == (first.node_id,)
    assert opened.founding.lineage.cluster_id == backup_bytes(11)[1].head.cluster_id
    close_directory(opened)
    assert others


@pytest.mark.parametrize("origin", ["another backup", "founded empty"])
@scenario(KeyValue, seed=3, started=False, without=OF_ONE_CLUSTER)
async def test_nodes_of_another_beginning_are_strangers(cluster, origin):
    """Restored with the same words from another file, or founded with the same members: refused, on both sides, for
    the cluster's id."""
    one, two, three = cluster.nodes.values()
    for sim, data in ((one, None), (two, None), (three, backup_bytes(12)[0])):
        if sim is three and origin == "founded empty":
            continue
        put_backup(sim.disk, data)
        restore(sim.world(), FILE, plan_for(sim, founders(cluster)), CONFIG)
    await cluster.start()
    leader = await cluster.until_leader()
    assert leader.node_id != three.node_id
    assert three.node.cluster_id != leader.cluster_id
    await cluster.until(
        lambda: "belongs to the cluster" in str(leader.transport.links()[three.node_id].refused), 30, "it is refused"
    )
    assert three.node.raft.leader is None


def test_a_restore_that_is_cut_off_anywhere_leaves_nothing_that_starts():
    """The power goes out before each operation on the disk: the directory is whole or not there, and the next try,
    with the same words, makes it (F87)."""

    def tried(number):
        cut = []

        async def story(cluster):
            sim = cluster.nodes[1]
            put_backup(sim.disk)
            sim.disk.mkdir("/var")
            plan = plan_for(sim, founders(cluster), data_dir=PLACE)
            work = functools.partial(restore, sim.world(), FILE, plan, CONFIG)
            cut.append(cut_off(sim.disk, number, work))
            if not sim.disk.is_dir(PLACE):
                put_backup(sim.disk)
                restore(sim.world(), FILE, plan, CONFIG)
            assert sim.disk.listdir("/var") == ["data"]
            opened = open_directory(Options(node_id=1, data_dir=PLACE, config=CONFIG), sim.world())
            assert opened.store.applied.index == backup_bytes(11)[1].snapshot.index
            assert opened.view.last_index == opened.store.applied.index + 1, "what it goes on from"
            close_directory(opened)

        play(KeyValue, story, seed=number, started=False)
        return cut[0]

    number = 1
    while tried(number):
        number += 1 if number < 12 else 3
    assert number > 40, "all of it was met"


@scenario(KeyValue, seed=4, started=False)
async def test_what_can_not_be_restored_changes_nothing(cluster):
    """A directory that is in use, a damaged backup, none at all, a founder that is not among the members, no name."""
    sim = cluster.nodes[1]
    put_backup(sim.disk)
    members = founders(cluster)
    sim.disk.mkdir(f"{PLACE}/log")
    with pytest.raises(InvalidArgument, match="is not empty"):
        restore(sim.world(), FILE, plan_for(sim, members, data_dir=PLACE), CONFIG)
    assert sim.disk.listdir(PLACE) == ["log"]
    sim.disk.remove_tree(PLACE)
    with pytest.raises(ConfigError, match="not among the members"):
        restore(sim.world(), FILE, plan_for(sim, members[1:], data_dir=PLACE), CONFIG)
    with pytest.raises(ConfigError, match="name of its own"):
        restore(sim.world(), FILE, plan_for(sim, members, name="", data_dir=PLACE), CONFIG)
    with pytest.raises(ConfigError, match="name of the data directory is empty"):
        restore(sim.world(), FILE, plan_for(sim, members, data_dir=""), CONFIG)
    with pytest.raises(InvalidArgument, match="no such file"):
        restore(sim.world(), "/backups/none", plan_for(sim, members, data_dir=PLACE), CONFIG)
    damaged = bytearray(backup_bytes(11)[0])
    damaged[-200] ^= 1
    put_backup(sim.disk, bytes(damaged))
    with pytest.raises(SnapshotCorruption):
        restore(sim.world(), FILE, plan_for(sim, members, data_dir=PLACE), CONFIG)
    assert sim.disk.listdir("/var") == []


@scenario(KeyValue, seed=5, started=False)
async def test_other_members_than_it_was_restored_with_are_refused_at_the_start(cluster):
    """With what it was made with in the text; without members it starts."""
    sim = cluster.nodes[1]
    put_backup(sim.disk)
    restore(sim.world(), FILE, plan_for(sim, founders(cluster)), CONFIG)
    other = (Member(1, "elsewhere:1", "elsewhere:2"),)
    with pytest.raises(WrongDataDir, match="restored from a backup"):
        open_directory(Options(node_id=1, data_dir="/data", members=other, config=CONFIG), sim.world())
    close_directory(open_directory(Options(node_id=1, data_dir="/data", config=CONFIG), sim.world()))


@scenario(KeyValue, seed=6, started=False, without=("LogTimeIsBounded",))
async def test_log_time_never_goes_back_when_the_clocks_are_behind_it(cluster):
    """An hour behind: that is said, the cluster serves, and its entries' times go on from the backup's."""
    head = backup_bytes(11)[1]
    for sim in cluster.nodes.values():
        sim.clock.set_wrong(-3_600_000)
        put_backup(sim.disk)
        made = restore(sim.world(), FILE, plan_for(sim, founders(cluster)), CONFIG)
        assert made.clock_behind_ms > 3_590_000
    await cluster.start()
    leader = await cluster.until_leader()
    client = cluster.client()
    await fill(client, 5, start=KEYS)
    log = leader.raft.log
    times = [log.time_ms(index) for index in range(log.first_index, log.last_index + 1)]
    assert times == sorted(times) and times[0] >= head.snapshot.time_ms
    assert times[-1] - head.snapshot.time_ms < 60_000
    await client.close()


@scenario(KeyValue, seed=7, started=False)
async def test_only_what_an_earlier_try_has_left_is_removed_where_it_is_built(cluster):
    """Somebody may have named something of his own like that: it stays, whether it looks like a node's directory or
    not. What a try has left makes way."""
    sim = cluster.nodes[1]
    put_backup(sim.disk)
    plan = plan_for(sim, founders(cluster), data_dir=PLACE)
    aside = PLACE + UNFINISHED
    sim.disk.mkdir(f"{aside}/log")
    for lock in (None, b"", b"other"):
        if lock is not None:
            sim.disk.write_synced(f"{aside}/LOCK", lock)
        before = sim.disk.listdir(aside)
        with pytest.raises(InvalidArgument, match=r"is in the way.* move it away"):
            restore(sim.world(), FILE, plan, CONFIG)
        assert sim.disk.listdir(aside) == before and not sim.disk.exists(PLACE)
    sim.disk.write_synced(f"{aside}/LOCK", MARK)
    restore(sim.world(), FILE, plan, CONFIG)
    assert not sim.disk.exists(aside) and sim.disk.read_bytes(f"{PLACE}/LOCK") == b""


@pytest.mark.parametrize("auth_off", [False, True])
@scenario(KeyValue, seed=7, started=False)
async def test_a_restored_cluster_asks_who_one_is_unless_that_is_not_wanted(cluster, auth_off):
    """As in the cluster that the backup is of; when nobody can sign in any more, users stay, and everybody gets in."""
    data, _ = backup_bytes(11, made_on=True)
    for sim in cluster.nodes.values():
        put_backup(sim.disk, data)
        restore(sim.world(), FILE, plan_for(sim, founders(cluster), auth_off=auth_off), CONFIG)
    await cluster.start()
    leader = await cluster.until_leader()
    await cluster.until(lambda: leader.requests.knows_all, 10, "it has applied all")
    await cluster.until_equal()
    for node in cluster.running:
        assert node.access.is_on is not auth_off and set(node.access.users) == {"ann", "boss"}
    client = cluster.client()
    if auth_off:
        await read_all(cluster, client, KEYS)
        await fill(client, 5, start=KEYS)
    else:
        with pytest.raises(Unauthenticated):
            await fill(client, 1)
    await client.close()


@scenario(KeyValue, seed=8, started=False, without=OF_ONE_CLUSTER)
async def test_founders_with_and_without_it_are_strangers(cluster):
    """Said for one of them alone, it opens no other's cluster."""
    data, _ = backup_bytes(11, made_on=True)
    made = []
    for sim in cluster.nodes.values():
        put_backup(sim.disk, data)
        plan = plan_for(sim, founders(cluster), auth_off=sim.node_id == 1)
        made.append(restore(sim.world(), FILE, plan, CONFIG).founding.cluster_id)
    assert made[0] != made[1] == made[2]
