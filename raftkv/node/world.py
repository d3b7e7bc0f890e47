"""A node's interfaces to the world, as one value: the real world in a server, a simulated one in tests."""

from __future__ import annotations

import random
import secrets
import time
from collections.abc import Callable
from typing import NamedTuple

import msgspec

from raftkv import failpoints, logs
from raftkv.disk import Disk, RealDisk
from raftkv.extras import needs
from raftkv.logs import LogHealth
from raftkv.node.workers import ThreadWorker, Worker, monotonic_clock_ms, wall_clock_ms
from raftkv.state import States

SCANS_AT_ONCE = 2
"""Two, so that one long query does not hold up a short one. More threads would only compete for the interpreter."""

SIGN_INS_AT_ONCE = 2
"""Each takes a core for tens of milliseconds, and as many megabytes."""


class OpenFiles(NamedTuple):
    """Files and connections that a process has open, about, and may have; 0 where that is not known."""

    used: int = 0
    limit: int = 0


class World(msgspec.Struct, kw_only=True):
    """Files, state, threads, clocks and dice. The network is no part of it, because a transport belongs to one node."""

    disk: Disk
    states: States
    log_worker: Worker
    """Writes and reads the log and the small files that handshakes wait for. Nothing slow may run here: clients and
    peers wait for this worker."""
    background_worker: Worker
    """All that may take long: flushes, snapshots, checksums."""
    transfer_worker: Worker
    """Reads snapshots that are being sent, so that a transfer goes on while another snapshot is taken."""
    scan_workers: tuple[Worker, ...]
    """Run queries that read much, one on each worker."""
    sign_in_workers: tuple[Worker, ...] = ()
    """Try passwords, each one at a time; without any, nobody signs in by one."""
    clock: Callable[[], float]
    """Seconds of a clock that never goes back, from any zero; may be called on any thread."""
    pause: Callable[[float], None]
    """Puts the calling thread to sleep for so many seconds."""
    now_ms: Callable[[], int]
    """The wall clock in milliseconds since the epoch; it may be wrong."""
    monotonic_ms: Callable[[], int]
    """Milliseconds of a clock that never goes back, from any zero."""
    draw: Callable[[int], int]
    """`draw(n)` gives a number from 0 to n - 1."""
    nonce: str
    """A random word, another one for every start of a node."""
    log_health: Callable[[], LogHealth] = logs.health
    """Whether the lines that are logged get through to where the log goes."""
    open_files: Callable[[], OpenFiles] = OpenFiles
    """How near the process is to its limit of open files."""

    @classmethod
    def real(cls) -> World:
        """Real files and RocksDB, threads, the system's clocks and dice; failpoints as the environment says.

        Raises `ConfigError` when the environment's failpoints can't be read, and `MissingExtra` without RocksDB.
        """
        with needs("server", "a node"):
            from raftkv.state.rocks import RocksStates

        failpoints.arm()
        return cls(
            disk=RealDisk(),
            states=RocksStates(),
            log_worker=ThreadWorker("raftkv-log"),
            background_worker=ThreadWorker("raftkv-background"),
            transfer_worker=ThreadWorker("raftkv-transfer"),
            scan_workers=tuple(ThreadWorker(f"raftkv-scan-{number}") for number in range(SCANS_AT_ONCE)),
            sign_in_workers=tuple(ThreadWorker(f"raftkv-sign-in-{number}") for number in range(SIGN_INS_AT_ONCE)),
            clock=time.monotonic,
            pause=time.sleep,
            now_ms=wall_clock_ms,
            monotonic_ms=monotonic_clock_ms,
            draw=random.SystemRandom().randrange,
            nonce=secrets.token_hex(8),
        )

    async def close(self) -> None:
        """Wait for what the workers were given, and end their threads. It may be repeated."""
        alone = (self.log_worker, self.background_worker, self.transfer_worker)
        for worker in (*alone, *self.scan_workers, *self.sign_in_workers):
            await worker.close()
