"""Makes a backup: reads a snapshot from one node, piece by piece, into a file."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Protocol

import msgspec

from raftkv.disk import Disk, RealDisk
from raftkv.errors import InvalidArgument, SnapshotCorruption, ViewExpired
from raftkv.model import SnapshotMeta
from raftkv.snapshot.backup import BackupHead, BackupWriter, SealedHead, begun_digest
from raftkv.snapshot.throttle import Throttle
from raftkv.wire import BackupAsk, BackupRead

PIECE_BYTES = 512 << 10
"""Small enough that a slow link brings one within its deadline."""
PIECES_AT_ONCE = 4
PIECE_S = 30.0
OFFERS_MAX = 3
"""How often it is begun anew because the node holds the snapshot no more; then the node or its disk is at fault."""


class Backup(msgspec.Struct, frozen=True, kw_only=True):
    """A backup that was made, or is being made."""

    path: str
    head: BackupHead
    snapshot: SnapshotMeta
    """The index, term, digest, members and log time of the state in it."""
    size: int
    """How many bytes the whole file has."""
    total_bytes: int
    """How many bytes there are to read …"""
    done_bytes: int
    """… how many of them are there …"""
    resumed_bytes: int = 0
    """… and how many were there already, from an earlier try."""
    begun_anew: bool = False
    """Whether an earlier try was given up, because the node does not have its snapshot any more."""


class Source(Protocol):
    """One node, as a backup reads it."""

    async def offer_backup(self, ask: BackupAsk, deadline_s: float) -> BackupHead:
        """Have a snapshot held."""

    async def read_backup(self, asked: BackupRead, deadline_s: float) -> bytes:
        """Read a part of it."""


class BackupPlan(msgspec.Struct, frozen=True, kw_only=True):
    """What a backup is to be like."""

    path: str
    deadline_s: float
    """For taking the snapshot; reading takes as long as it takes, but no piece longer than `PIECE_S`."""
    rate_bytes_s: int = 0
    """0: no limit."""
    age_s: float = 0.0
    stale: bool = False

    def __post_init__(self) -> None:
        if self.rate_bytes_s < 0 or self.age_s < 0:
            raise InvalidArgument("rate_bytes_s and age_s must be 0 or more")


async def back_up(
    source: Source, plan: BackupPlan, progress: Callable[[Backup], None], disk: Disk | None = None
) -> Backup:
    """Make a backup of one node's state. Raises `InvalidArgument` when the file exists, `ViewExpired` when the node
    lets go of its snapshots again and again, `DiskError`, and what the node raises."""
    disk = disk if disk is not None else RealDisk()
    begun = await asyncio.to_thread(begun_digest, disk, plan.path)
    was_begun = await asyncio.to_thread(disk.exists, plan.path + ".part")
    for tries_left in reversed(range(OFFERS_MAX)):
        ask = BackupAsk(digest=begun, age_ms=int(plan.age_s * 1000), stale=plan.stale)
        head = SealedHead.seal(await source.offer_backup(ask, plan.deadline_s))
        writer = await asyncio.to_thread(BackupWriter, disk, plan.path, head)
        try:
            reading = _Reading(source, plan, writer, begun_anew=was_begun and not writer.resumed, progress=progress)
            return await reading.run()
        except ViewExpired:
            if not tries_left:
                raise
            begun, was_begun = head.digest, True
        finally:
            await _in_thread(writer.close)
    raise AssertionError("the last try returns or raises")


async def _in_thread(work: Callable[[], None]) -> None:
    """Do file work to its end, even if the caller is cancelled meanwhile."""
    await asyncio.shield(asyncio.to_thread(work))


class _Reading:
    """Reads from where the writer is to the end, some pieces at once; they are written in order."""

    def __init__(
        self,
        source: Source,
        plan: BackupPlan,
        writer: BackupWriter,
        *,
        begun_anew: bool,
        progress: Callable[[Backup], None],
    ) -> None:
        self._source = source
        self._plan = plan
        self._writer = writer
        self._begun_anew = begun_anew
        self._progress = progress
        self._throttle = Throttle(plan.rate_bytes_s, asyncio.get_running_loop().time())
        self._asked: deque[asyncio.Task[bytes]] = deque()

    async def run(self) -> Backup:
        refetched = False
        self._progress(self._state())
        while self._writer.position < self._writer.total:
            try:
                await self._read_on()
            except SnapshotCorruption:
                # One file came wrong: it is read again, once. The node's own checks find out if it is damaged there.
                if refetched:
                    raise
                refetched = True
            finally:
                await self._drop()
        await asyncio.to_thread(self._writer.finish)
        state = self._state()
        self._progress(state)
        return state

    async def _read_on(self) -> None:
        at = self._writer.position
        while self._writer.position < self._writer.total:
            while at < self._writer.total and len(self._asked) < PIECES_AT_ONCE:
                size = min(PIECE_BYTES, self._writer.total - at)
                if delay := self._throttle.delay(asyncio.get_running_loop().time()):
                    await asyncio.sleep(delay)
                self._throttle.take(size)
                self._asked.append(asyncio.ensure_future(self._read(at, size)))
                at += size
            await asyncio.to_thread(self._writer.append, await self._asked[0])
            self._asked.popleft()
            self._progress(self._state())

    def _read(self, offset: int, size: int) -> Awaitable[bytes]:
        return self._source.read_backup(BackupRead(self._writer.head.digest, offset, size), PIECE_S)

    async def _drop(self) -> None:
        for task in self._asked:
            task.cancel()
        await asyncio.gather(*self._asked, return_exceptions=True)
        self._asked.clear()

    def _state(self) -> Backup:
        writer = self._writer
        return Backup(
            path=writer.path,
            head=writer.head.head,
            snapshot=writer.head.snapshot,
            size=writer.head.size,
            total_bytes=writer.total,
            done_bytes=writer.position,
            resumed_bytes=writer.resumed,
            begun_anew=self._begun_anew,
        )


def free_path(path: str | Path) -> str:
    """`path` as text, if a backup can be written there. Raises `InvalidArgument`."""
    found = Path(path)
    with suppress(OSError):
        if not found.absolute().parent.is_dir():
            raise InvalidArgument(f"{found.parent} is no directory: make it first")
        if found.exists():
            raise InvalidArgument(f"{found} exists already: give another name, or remove it")
    return str(found)
