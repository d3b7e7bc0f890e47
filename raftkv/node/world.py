"""The ports that a node stands on, as one value: the real world by default, a simulated one in tests."""

from __future__ import annotations

import random
import secrets
import time
from collections.abc import Callable

import msgspec

from raftkv import failpoints, logs
from raftkv.disk import Disk, RealDisk
from raftkv.logs import LogHealth
from raftkv.node.ports import ThreadWorker, Worker, monotonic_clock_ms, wall_clock_ms
from raftkv.state import RocksStates, States

SCANS_AT_ONCE = 2
"""One long query must not keep the short ones from their turn; more threads would only fight for the interpreter."""


class World(msgspec.Struct, kw_only=True):
    """Files, state, threads, clock and chance. The network comes separately, as it belongs to one node."""

    disk: Disk
    states: States
    log_worker: Worker
    """Writes and reads the log, and who was met, and nothing else: what it does is what clients and peers wait for."""
    background_worker: Worker
    """Flushes, snapshots, checksums: whatever may take long."""
    transfer_worker: Worker
    """Reads snapshots that are being sent, so that a transfer goes on while another snapshot is taken."""
    scan_workers: tuple[Worker, ...]
    """Run queries that read much: as many at once as there are workers."""
    clock: Callable[[], float]
    """Seconds of any clock that never goes back; called on any thread."""
    pause: Callable[[float], None]
    """Lets a thread do nothing for so many seconds."""
    now_ms: Callable[[], int]
    """The wall clock, which may be wrong."""
    monotonic_ms: Callable[[], int]
    """A clock that only goes on, from any zero."""
    draw: Callable[[int], int]
    """`draw(n)` gives a number from 0 to n - 1."""
    nonce: str
    """Different for every start of a node."""
    log_health: Callable[[], LogHealth] = logs.health
    """Whether what is logged arrives anywhere."""

    @classmethod
    def real(cls) -> World:
        """Real files and RocksDB, threads, the system's clocks and dice; failpoints as the environment says.

        Raises `ConfigError` when that can't be read.
        """
        failpoints.arm()
        return cls(
            disk=RealDisk(),
            states=RocksStates(),
            log_worker=ThreadWorker("raftkv-log"),
            background_worker=ThreadWorker("raftkv-background"),
            transfer_worker=ThreadWorker("raftkv-transfer"),
            scan_workers=tuple(ThreadWorker(f"raftkv-scan-{number}") for number in range(SCANS_AT_ONCE)),
            clock=time.monotonic,
            pause=time.sleep,
            now_ms=wall_clock_ms,
            monotonic_ms=monotonic_clock_ms,
            draw=random.SystemRandom().randrange,
            nonce=secrets.token_hex(8),
        )
