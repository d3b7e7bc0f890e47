"""A node lends snapshots to whoever makes a backup: with all that was acknowledged, held as long as it is read."""

from __future__ import annotations

import asyncio
import posixpath

import pytest

from raftkv.errors import Busy, InvalidArgument, NotLeader, Unavailable, ViewExpired
from raftkv.kv import KeyValue
from raftkv.node.snapshots.lending import LOAN_S, LOANS_MAX, READS_MAX
from raftkv.snapshot.backup import BackupWriter, SealedHead, check_backup
from raftkv.testing import elapse, scenario
from raftkv.testing.world.harm import Harm
from raftkv.wire import BackupAsk, BackupRead
from tests.node.steps import fill, follower_of

ALL = BackupAsk()


async def offered(node, ask=ALL):
    """The head of a backup that the node offers."""
    return SealedHead.seal(await node.orders.offer_backup(ask, 5.0))


async def copied(node, head, disk, path, step=50_000):
    """Read all of it into a file."""
    disk.mkdir(posixpath.dirname(path))
    writer = BackupWriter(disk, path, head)
    while writer.position < writer.total:
        size = min(step, writer.total - writer.position)
        writer.append(await node.orders.read_backup(BackupRead(head.digest, writer.position, size)))
    writer.finish()
    writer.close()


@scenario(KeyValue, seed=1)
async def test_a_backup_from_any_node_has_all_that_was_acknowledged(cluster):
    """A follower asks the leader up to where that is; the file is sound, and says whose state it is."""
    client = cluster.client()
    await fill(client, 50)
    for node in (follower_of(cluster).node, cluster.leader):
        needed = cluster.leader.raft.commit_index
        head = await offered(node)
        assert head.snapshot.index >= needed
        assert (head.head.machine, head.head.cluster_id) == ("KeyValue", cluster.leader.cluster_id)
        assert (head.head.node_id, head.head.version) == (node.node_id, 1)
        disk = cluster.nodes[node.node_id].disk
        await copied(node, head, disk, "/backups/a")
        assert check_backup(disk, "/backups/a").digest == head.digest
    await client.close()


@scenario(KeyValue, seed=2)
async def test_a_snapshot_is_held_as_long_as_it_is_read(cluster):
    """Newer ones come and older ones go, this one stays; a while after the last read it goes too, and that is said."""
    client, node = cluster.client(), cluster.leader
    await fill(client, 20)
    head = await offered(node)
    for number in range(8):
        await fill(client, 5, start=100 * number)
        await node.orders.take_snapshot()
        await elapse(LOAN_S / 3)
        await node.orders.read_backup(BackupRead(head.digest, 0, 1))
    assert (await offered(node, BackupAsk(digest=head.digest))).digest == head.digest
    await elapse(LOAN_S + 1)
    with pytest.raises(ViewExpired, match="Begin the backup again"):
        await node.orders.read_backup(BackupRead(head.digest, 0, 1))
    await node.orders.take_snapshot()
    await fill(client, 5)
    await node.orders.take_snapshot()
    assert head.snapshot not in node.opened.snapshots.list(), "nothing holds it any more"
    await client.close()


@scenario(KeyValue, seed=3)
async def test_what_is_held_and_read_at_once_is_bounded(cluster):
    """More snapshots, more reads, larger ones, or ones beyond the end are refused, by name."""
    client, node = cluster.client(), cluster.leader
    heads = []
    for number in range(LOANS_MAX):
        await fill(client, 3, start=10 * number)
        heads.append(await offered(node))
    await fill(client, 3)
    with pytest.raises(Busy, match="held for backups already"):
        await offered(node)
    assert (await offered(node, BackupAsk(digest=heads[0].digest))).digest == heads[0].digest
    head = heads[-1]
    for offset, size in ((0, 0), (0, 2 << 20), (head.manifest.total_bytes, 1), (-1, 1)):
        with pytest.raises(InvalidArgument, match="ask for 1 to"):
            await node.orders.read_backup(BackupRead(head.digest, offset, size))
    reads = [
        asyncio.ensure_future(node.orders.read_backup(BackupRead(head.digest, 0, 1))) for _ in range(READS_MAX + 1)
    ]
    results = await asyncio.gather(*reads, return_exceptions=True)
    assert sum(isinstance(result, Busy) for result in results) == 1
    await client.close()


@scenario(KeyValue, seed=4)
async def test_an_older_snapshot_will_do_if_one_says_so(cluster):
    """None is taken then; without, one is."""
    client, node = cluster.client(), cluster.leader
    await fill(client, 10)
    first = (await offered(node)).snapshot
    await fill(client, 10)
    assert (await offered(node, BackupAsk(age_ms=3_600_000))).snapshot == first
    assert (await offered(node)).snapshot.index > first.index
    await client.close()


@scenario(KeyValue, seed=5)
async def test_without_a_leader_there_is_a_backup_of_what_the_node_has(cluster):
    """When it is asked for by name; otherwise it is refused, as nobody knows whether that is all: also to one who goes
    on with what another node has begun, and whose snapshot is not here."""
    client = cluster.client()
    await fill(client, 10)
    await cluster.until_equal()
    last = cluster.nodes[1].node
    for sim in cluster.nodes.values():
        if sim.node is not last:
            sim.crash()
    await cluster.until(lambda: last.raft.leader is None, 30, "it has lost its leader")
    for ask in (ALL, BackupAsk(digest=b"of another node!")):
        with pytest.raises((Unavailable, NotLeader)):
            await offered(last, ask)
    head = await offered(last, BackupAsk(stale=True))
    assert head.snapshot.index == last.applier.applied_index
    await client.close()


@scenario(KeyValue, seed=6)
async def test_a_snapshot_that_rots_while_it_is_read_is_not_read_on(cluster):
    """A file that is cut short: whoever reads is told to begin anew, and the node uses that snapshot no more."""
    client, node = cluster.client(), cluster.leader
    await fill(client, 50)
    head = await offered(node)
    cluster.nodes[node.node_id].harm = Harm.HALF_SNAPSHOT
    file = max(head.manifest.files, key=lambda each: each.size)
    disk = cluster.nodes[node.node_id].disk
    handle = disk.open(posixpath.join(node.opened.snapshots.path(head.snapshot), file.name))
    handle.truncate(0)
    handle.close()
    with pytest.raises(ViewExpired, match="damaged here"):
        await node.orders.read_backup(BackupRead(head.digest, 0, head.manifest.total_bytes))
    with pytest.raises(ViewExpired, match="does not hold that snapshot"):
        await node.orders.read_backup(BackupRead(head.digest, 0, 1))
    assert node.failure is None
    await fill(client, 1)
    assert (await offered(node)).snapshot.index > head.snapshot.index
    await client.close()
