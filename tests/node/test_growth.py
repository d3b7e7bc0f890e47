"""Disks of nodes that run for long and are written to little: what is not needed any more goes."""

from __future__ import annotations

from raftkv.config import KIB, Config
from raftkv.kv import KeyValue
from raftkv.testing import elapse, play

HOURS = 2
NEVER = 1_000_000


def slow(**settings):
    """Whoever lives slowly has few events in many hours, and these bounds are near."""
    return Config(
        tick_ms=1_000,
        heartbeat_ms=6_000,
        election_timeout_ms=30_000,
        segment_bytes=16 * KIB,
        log_cache_bytes=8 * KIB,
        snapshot_interval_s=60.0,
        keep_entries=20,
        keep_bytes=32 * KIB,
        disk_free_bytes_min=0,
        **settings,
    )


def live(config, value_bytes, pause_s):
    """A cluster of one lives for hours with a write now and then; returns its log's largest size, and its snapshots."""
    sizes, found = [], []

    async def story(cluster):
        node = await cluster.nodes[1].start()
        await cluster.until_leader(120)
        client = cluster.client(deadline_s=120.0)
        writes = 0
        while cluster.loop.time() < HOURS * 3600:
            await client.remote.put(b"key-%d" % (writes % 10), bytes(value_bytes))
            writes += 1
            await elapse(pause_s)
            disk = cluster.nodes[1].disk
            sizes.append(sum(len(data) for path, data in disk.image().items() if path.startswith("/data/log/")))
        found.append((writes, node.snapshots.taken))
        await client.close()

    play(KeyValue, story, size=1, seed=1, config=config, started=False, look_s=1.0)
    [(writes, taken)] = found
    assert writes * value_bytes > 2 * max(sizes), "all of it would have fitted: this shows nothing"
    return max(sizes), taken


def test_a_log_is_cut_when_it_has_many_entries_however_slowly_they_come():
    """F35: small commands, far apart: their number is what leads to a snapshot, and the log is cut behind it."""
    largest, taken = live(slow(snapshot_entries=100), 256, 5.0)
    assert taken >= 10
    assert largest < 100 * KIB


def test_a_log_is_cut_when_it_has_many_bytes_however_few_the_entries():
    """F35: few commands, each of them large: their bytes lead to a snapshot long before their number would."""
    config = slow(snapshot_entries=NEVER, snapshot_log_bytes=64 * KIB)
    largest, taken = live(config, 8 * KIB, 50.0)
    assert taken >= 10
    assert largest < 256 * KIB
