"""What a world may do to a node's disk is something that the node must notice."""

from __future__ import annotations

import random

import pytest

from raftkv.disk.simulated import SECTOR_BYTES, SimDisk
from raftkv.errors import Corruption, FormatError
from raftkv.kv import KeyValue
from raftkv.log import Log, VoteFile
from raftkv.testing.faults import harming
from raftkv.testing.world.cluster import SimCluster
from raftkv.testing.world.loop import SimLoop

WRITES = 60


@pytest.fixture(scope="module")
def disks():
    """A node's disk after some writes, and after many more; the power is cut each time."""
    found = []

    async def story():
        cluster = SimCluster(KeyValue, 1, seed=1)
        await cluster.start()
        client = cluster.client()
        for _ in range(2):
            for number in range(WRITES):
                await client.remote.put(b"key-%d" % number, bytes(100))
            cluster.nodes[1].crash()
            found.append(cluster.nodes[1].disk.copy())
            await cluster.start()
        await client.close()
        await cluster.stop()

    SimLoop().run(story())
    return found


def last_index(disk):
    """Open the log as a node does after a crash: its last entry."""
    log = Log.open(
        disk,
        harming.LOG,
        owner=VoteFile.look(disk, harming.VOTE).identity,
        segment_bytes=16_384,
        cache_bytes=1_000,
        durable_index=0,
    )
    try:
        return log.last_index
    finally:
        log.close()


@pytest.mark.parametrize("seed", range(8))
def test_rot_in_the_newest_batch_looks_like_a_torn_write(disks, seed):
    """The log opens without that batch, and with all before it: what a crash leaves, too."""
    disk = disks[1].copy()
    whole = last_index(disk.copy())
    place = harming.at_the_end(disk, random.Random(seed))
    disk.flip(place.path, place.at)
    assert 0 < last_index(disk) < whole


def logs(disk):
    """What may be harmed of its log."""
    return {path: data for path, data in harming.harmable(disk).items() if path.startswith(harming.LOG + "/")}


def test_the_last_segment_may_be_harmed_up_to_its_last_whole_batch(disks):
    """Each byte there counts (F9): the log is refused, or as it was; behind it, a batch may look torn."""
    disk, whole = disks[1], last_index(disks[1].copy())
    path = max(path for path in logs(disk) if path.endswith(".log"))
    end = len(logs(disk)[path])
    assert SECTOR_BYTES < end < len(disk.image()[path])
    refused = 0
    for at in range(0, end, 37):
        harmed = disk.copy()
        harmed.flip(path, at)
        try:
            assert last_index(harmed) == whole
        except (Corruption, FormatError):
            refused += 1
    assert refused > end // 37 // 2
    torn = disk.copy()
    torn.flip(path, end)
    assert last_index(torn) < whole


def test_rot_meets_every_file_and_the_last_segment_too(disks):
    """Also the one that is being written to: it is the one with what was acknowledged last (F9)."""
    dice, disk = random.Random(1), disks[1]
    paths = {harming.any_byte(disk, dice).path for _ in range(3_000)}
    assert paths == set(harming.harmable(disk))
    assert max(path for path in logs(disk) if path.endswith(".log")) in paths


def test_a_stale_sector_is_as_it_was_then(disks):
    """In place, of the same file, and other than now (F19)."""
    dice = random.Random(2)
    then, now = disks
    for _ in range(50):
        place = harming.stale(now, [then], dice)
        end = place.at + SECTOR_BYTES
        assert place.at % SECTOR_BYTES == 0
        assert then.image()[place.path][place.at : end] == place.data != now.image()[place.path][place.at : end]
    assert harming.stale(now, [now], dice) is None
    assert harming.stale(now, [], dice) is None


def test_a_misdirected_sector_is_another_ones(disks):
    """Of this disk, in the wrong place, and other than what belongs there (F19)."""
    dice, disk = random.Random(3), disks[1]
    sectors = {
        data[at : at + SECTOR_BYTES] for data in disk.image().values() for at in range(0, len(data), SECTOR_BYTES)
    }
    places = [place for _ in range(50) if (place := harming.misdirected(disk, dice)) is not None]
    assert len(places) > 10
    for place in places:
        assert place.data in sectors
        assert disk.image()[place.path][place.at : place.at + SECTOR_BYTES] != place.data


def test_an_empty_disk_has_nothing_to_harm():
    """A node that was never started."""
    dice, disk = random.Random(4), SimDisk()
    assert harming.harmable(disk) == {}
    assert harming.any_byte(disk, dice) is harming.misdirected(disk, dice) is harming.stale(disk, [disk], dice) is None
