"""Watches over a restore and a recovery: what a cursor of the old cluster has behind it is told, or it is refused."""

from __future__ import annotations

import functools
from typing import Any

import msgspec
import pytest

from raftkv import Cursor, OtherLineage, Part, StateMachine, Table, Unavailable, command
from raftkv.disk.simulated import SimDisk
from raftkv.history import Found, lineage_of
from raftkv.node.recovering import regain
from raftkv.node.restoring import RestorePlan, restore
from raftkv.recipes import Locks
from raftkv.snapshot.backup import BackupWriter, SealedHead
from raftkv.testing import elapse, play, scenario
from raftkv.testing.world.settings import CONFIG
from raftkv.wire import BackupAsk, BackupRead, Watching
from tests.node.test_recovering import WITHOUT

FILE = "/backups/a"


class Rows(StateMachine):
    """Rows that are set, and locks."""

    rows = Table(int, int, watch=True)
    locks = Part(Locks)

    @command
    def put(self, key: int, value: int) -> None:
        """Set it."""
        self.rows[key] = value


async def put(client, values):
    """Set row 1 to each of them."""
    for value in values:
        await client.call(Rows.put, 1, value)


async def token(client, owner):
    """Of a lock that nobody else has."""
    return await client.call(Rows.locks.acquire, owner, owner, 60.0)


async def cursors(client, count):
    """Those of the first changes."""
    watch = client.watch(Rows.rows, Cursor(0, 0))
    return [(await anext(watch)).cursor for _ in range(count)]


@functools.cache
def before(how):
    """What is left of an old cluster: its backup, made behind 5 of 15 changes (or its disks, with a snapshot there),
    its cursors, tokens and id."""
    found: dict[str, Any] = {}

    async def story(cluster):
        client = cluster.client()
        await put(client, range(5))
        await token(client, "ann")
        node = await cluster.until_leader()
        if how == "backup":
            head = SealedHead.seal(await node.orders.offer_backup(BackupAsk(), 5.0))
            disk = SimDisk()
            disk.mkdir("/backups")
            writer = BackupWriter(disk, FILE, head)
            writer.append(await node.orders.read_backup(BackupRead(head.digest, 0, head.manifest.total_bytes)))
            writer.finish()
            found.update(backup=disk.read_bytes(FILE), index=head.snapshot.index)
        else:
            await cluster.until_equal()
            for sim in cluster.nodes.values():
                await sim.node.orders.take_snapshot()
        await put(client, range(5, 15))
        found.update(tokens=[await token(client, f"old {number}") for number in range(9)])
        found.update(cursors=await cursors(client, 15), id=node.cluster_id)
        if how == "disks":
            await cluster.until_equal()
            for sim in cluster.nodes.values():
                sim.crash()
            found.update(disks={sim.node_id: sim.disk.copy() for sim in cluster.nodes.values()})
            for sim in cluster.nodes.values():
                await sim.start()
            await cluster.until_leader()
        await client.close()

    play(Rows, story, seed=31)
    return found


@pytest.fixture(scope="module", autouse=True)
def old_clusters():
    """Made before any story begins, as each grows in a world of its own."""
    for how in ("backup", "disks"):
        before(how)


def restored(cluster):
    """Make the directories of all founders."""
    for sim in cluster.nodes.values():
        sim.disk.mkdir("/backups")
        sim.disk.write_synced(FILE, before("backup")["backup"])
        sim.disk.sync_dir("/backups")
        members = tuple(each.member for each in cluster.nodes.values())
        plan = RestorePlan(node_id=sim.node_id, data_dir="/data", members=members, cluster_name="again")
        restore(sim.world(), FILE, plan, CONFIG)


def ask(node, after, heard, wait_s=30.0):
    """Ask as a client does; `heard` gets the values of the changes, or the error."""

    def done(index, result):
        if isinstance(result, bytes):
            found = msgspec.msgpack.decode(result, type=Found)
            assert not found.after.lineage and not any(each.cursor.lineage for each in found.changes)
            result = [msgspec.msgpack.decode(each.value) for each in found.changes]
        heard.append(result)

    try:
        node.requests.watch(Watching("rows", after), done, wait_s, lambda: False)
    except OtherLineage as exc:
        heard.append(exc)


def said(cursor):
    """A cursor as a client notes it, and as one that knows nothing of clusters does."""
    return cursor, Cursor(cursor.index, cursor.position)


@scenario(Rows, seed=1, started=False)
async def test_after_a_restore_cursors_of_before_the_backup_go_on_and_later_ones_are_refused(cluster):
    """At each node; also when the new log has gone by them, and whether they say of which cluster they are or not."""
    restored(cluster)
    await cluster.start()
    client, old = cluster.client(), before("backup")
    await put(client, range(100, 130))
    await cluster.until_equal()
    new = list(range(100, 130))
    assert cluster.leader.applier.applied_index > old["cursors"][-1].index
    for node in cluster.running:
        for number, cursor in enumerate(old["cursors"]):
            assert cursor.lineage == lineage_of(old["id"]) != lineage_of(node.cluster_id)
            for after in said(cursor):
                heard: list[Any] = []
                ask(node, after, heard)
                await cluster.until(lambda heard=heard: bool(heard), 5)
                if number < 5:
                    assert heard == [[*range(number + 1, 5), *new]]
                else:
                    assert isinstance(heard[0], OtherLineage) and heard[0].common == old["index"]
    with pytest.raises(OtherLineage, match=f"up to entry {old['index']} they are the same") as refused:
        await anext(client.watch(Rows.rows, old["cursors"][9]))
    assert refused.value.cursor == old["cursors"][9]
    watch = client.watch(Rows.rows, old["cursors"][4])
    got = [await anext(watch) for _ in new]
    assert [each.value for each in got] == new
    assert {each.cursor.lineage for each in got} == {lineage_of(cluster.leader.cluster_id)}
    assert (await anext(client.watch(Rows.rows, got[-2].cursor))).value == new[-1]
    await client.close()


@scenario(Rows, seed=2, started=False)
async def test_no_token_of_the_old_cluster_is_handed_out_again(cluster):
    """The new cluster's are above all of them, though its state knows but the first."""
    restored(cluster)
    await cluster.start()
    client, old = cluster.client(), before("backup")
    new = [await token(client, f"new {number}") for number in range(30)]
    assert min(new) > max(old["tokens"]) and new == sorted(set(new))
    await client.close()


@scenario(Rows, seed=3, started=False)
async def test_a_node_that_does_not_know_yet_what_its_cluster_goes_on_from_refuses_nothing(cluster):
    """It has applied what is in the backup, and not the entry that says of what it is: it lets clients wait, and says
    nothing in their cursors' place when their time is over."""
    restored(cluster)
    old, held = before("backup"), None
    for sim in cluster.nodes.values():
        await sim.start()
        sim.node.applier.hold()
    leader = await cluster.until_leader()
    held = next(node for node in cluster.running if node is not leader)
    assert held.applier.applied_index == old["index"]
    heard: list[Any] = []
    short: list[Any] = []
    refused: list[Any] = []
    ask(held, old["cursors"][1], heard)
    ask(held, old["cursors"][1], short, wait_s=0.5)
    ask(held, old["cursors"][9], refused)
    await elapse(2.0)
    assert not heard and not refused
    assert isinstance(short[0], Unavailable)
    for node in cluster.running:
        node.applier.release()
    await cluster.until(lambda: bool(heard and refused), 10)
    assert heard == [[2, 3, 4]] and isinstance(refused[0], OtherLineage)


@pytest.mark.parametrize("nothing_lost", [False, True])
@scenario(Rows, seed=4, started=False, without=WITHOUT)
async def test_a_recovered_survivor_goes_on_behind_what_is_certainly_the_same(cluster, nothing_lost):
    """What it had applied; or all that it had, if the others can't have decided anything without it."""
    sim, old = cluster.nodes[1], before("disks")
    sim.disk = old["disks"][1].copy()
    done = regain(sim.world(), "/data", CONFIG, nothing_lost=nothing_lost)
    common = done.last_index if nothing_lost else done.applied_index
    assert old["cursors"][4].index <= done.applied_index < old["cursors"][14].index <= done.last_index
    cluster.founders = ()
    await sim.start()
    await cluster.until(lambda: sim.node.raft.is_leader, 10)
    client = cluster.client(1)
    await put(client, range(100, 120))
    for number, cursor in enumerate(old["cursors"]):
        for after in said(cursor):
            heard: list[Any] = []
            ask(sim.node, after, heard)
            await cluster.until(lambda heard=heard: bool(heard), 5)
            if cursor.index <= common:
                assert heard == [[*range(number + 1, 15), *range(100, 120)]]
            else:
                assert isinstance(heard[0], OtherLineage) and heard[0].common == common
    lost = Cursor(done.last_index + 5, 0, lineage_of(old["id"]))
    with pytest.raises(OtherLineage):
        await anext(client.watch(Rows.rows, lost))
    assert await token(client, "new") > 1_000 * max(old["tokens"])
    await client.close()
