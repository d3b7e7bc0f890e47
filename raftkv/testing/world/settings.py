"""The default settings of nodes in a simulated world."""

from __future__ import annotations

from raftkv.config import KIB, Config

CONFIG = Config(
    tick_ms=25,
    heartbeat_ms=100,
    segment_bytes=16 * KIB,
    log_cache_bytes=8 * KIB,
    snapshot_entries=200,
    state_flush_entries=50,
    snapshot_interval_s=2.0,
    keep_entries=40,
    keep_bytes=64 * KIB,
    chunk_bytes=4 * KIB,
    snapshot_rate_bytes_s=0,
    disk_free_bytes_min=16 * KIB,
    scrub_rate_bytes_s=0,
    query_slice_reads=8,
)
"""Small, so that segments fill, snapshots are taken and followers fall behind within seconds."""
