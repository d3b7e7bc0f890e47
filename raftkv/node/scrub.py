"""Reads snapshots and log again, a little at a time, to find damaged files before they are needed.

Damage is reported (log, status, metrics), and mended where that is safe: a damaged snapshot is not used or sent any
more, and another one is taken, unless the state shares the damaged file. A damaged state or log is not touched. The
node goes on, because all data is checked when it is read, and its status says what to do.
"""

from __future__ import annotations

import asyncio
import posixpath
from collections.abc import Callable, Generator, Iterator
from typing import TypeAlias

import msgspec
import xxhash

from raftkv.disk import Disk
from raftkv.errors import CorruptRecord, DiskError, SnapshotCorruption
from raftkv.log import Log
from raftkv.log.scrub import STEP_BYTES, scrub_segment
from raftkv.logs import EventLog
from raftkv.model import EntryId, SnapshotMeta
from raftkv.node.workers import Worker, error_of
from raftkv.snapshot import SnapshotFile, SnapshotStore

logger = EventLog(__name__)

FIRST_S_MAX = 60.0
"""The longest wait after a start. The first pass does not begin at once: recovery has just read most files."""


class Rot(msgspec.Struct, frozen=True):
    """A file whose bytes are not those that were written."""

    path: str
    text: str
    snapshot: SnapshotMeta | None = None
    """The snapshot that it belongs to; None for the log."""
    is_state: bool = False
    """Whether the live state uses the same file (by a hard link)."""


class Healed(msgspec.Struct, frozen=True):
    """The state does not use a damaged file any more."""

    name: str


Found: TypeAlias = int | Rot | Healed
"""One step of a pass: how many bytes were read, or what was found."""


class Scrubber:
    """Reads all snapshots and the log, then rests for the interval, then begins again.

    Invariants: one step of at most `STEP_BYTES` is under way at a time, on the background worker, so other background
    work gets its turn between two steps; a pause after each step keeps to the rate.
    """

    def __init__(
        self,
        *,
        disk: Disk,
        worker: Worker,
        log: Log,
        snapshots: SnapshotStore,
        state_directory: str,
        state_rot: dict[str, str],
        rate_bytes_s: int,
        interval_s: float,
        on_snapshot: Callable[[SnapshotMeta, SnapshotCorruption], None],
        on_failure: Callable[[BaseException], None],
    ) -> None:
        """`state_rot`: damaged files of the live state, by name; shared with the part that takes snapshots."""
        self._disk = disk
        self._worker = worker
        self._log = log
        self._snapshots = snapshots
        self._state_directory = state_directory
        self._rate = rate_bytes_s
        self._interval_s = interval_s
        self._on_snapshot = on_snapshot
        self._on_failure = on_failure
        self._timer: asyncio.TimerHandle | None = None
        self._stopped = False
        self._log_rot: dict[str, str] = {}
        self._state_rot = state_rot
        self.passes = 0
        """How often all was read."""
        self.read_bytes = 0
        self.damage_found = 0

    def problems(self) -> list[str]:
        """Files that are damaged or another node's, in sentences that say what to do."""
        paths = {part.path for part in self._log.written()}
        self._log_rot = {path: text for path, text in self._log_rot.items() if path in paths}
        found = [
            f"{text}: should this node have to read them, it will stop; remove it and add a new one before that"
            for text in self._log_rot.values()
        ]
        found += [
            f"{text}, and the state uses the same file: stop this node and start it with --rebuild"
            for text in self._state_rot.values()
        ]
        found += [
            f"the snapshot {name} is damaged ({text}): it is not used, and goes when there are sound ones"
            for name, text in sorted(self._snapshots.damaged().items())
        ]
        return [*found, *self._snapshots.refused().values()]

    def start(self) -> None:
        """Begin the first pass soon. With a rate of 0 there are no passes."""
        if self._rate:
            self._later(min(self._interval_s, FIRST_S_MAX), self._begin)

    def stop(self) -> None:
        """Begin no more steps."""
        self._stopped = True
        if self._timer is not None:
            self._timer.cancel()

    def _later(self, delay_s: float, what: Callable[[], None]) -> None:
        if not self._stopped:
            self._timer = asyncio.get_running_loop().call_later(delay_s, what)

    def _begin(self) -> None:
        files = [
            (snapshot, posixpath.join(self._snapshots.path(snapshot), file.name), file)
            for snapshot in reversed(self._snapshots.list())
            for file in self._snapshots.manifest(snapshot).manifest.files
        ]
        self._step(self._read_all(files))

    def _step(self, reading: Iterator[Found]) -> None:
        if self._stopped:
            return
        future = self._worker.run(next, reading, None)
        future.add_done_callback(lambda done: self._stepped(reading, done))

    def _stepped(self, reading: Iterator[Found], future: asyncio.Future[Found | None]) -> None:
        error = error_of(future)
        if self._stopped or future.cancelled():
            return
        if error is not None:
            self._on_failure(error)
            return
        found = future.result()
        if found is None:
            self.passes += 1
            self._later(self._interval_s, self._begin)
            logger.debug("scrubbed", passes=self.passes, damage_found=self.damage_found)
        elif not isinstance(found, int):
            if isinstance(found, Rot):
                self._note(found)
            else:
                self._state_rot.pop(found.name, None)
            self._later(0.0, lambda: self._step(reading))
        else:
            self.read_bytes += found
            self._later(found / self._rate, lambda: self._step(reading))

    def _note(self, rot: Rot) -> None:
        if rot.snapshot is None:
            if rot.path in self._log_rot or rot.path not in {part.path for part in self._log.written()}:
                return  # known already, or compacted in the meantime
            self._log_rot[rot.path] = rot.text
        elif rot.snapshot not in self._snapshots.list():
            return
        elif rot.is_state:
            self._state_rot[posixpath.basename(rot.path)] = rot.text
        self.damage_found += 1
        if rot.snapshot is not None:
            self._on_snapshot(rot.snapshot, SnapshotCorruption(rot.text))
        logger.error(
            "damage_found",
            path=rot.path,
            text=rot.text,
            of="log" if rot.snapshot is None else "state and snapshot" if rot.is_state else "snapshot",
        )

    def _state_file(self, name: str) -> str:
        return posixpath.join(self._state_directory, name)

    def _read_all(self, files: list[tuple[SnapshotMeta, str, SnapshotFile]]) -> Iterator[Found]:
        sound: dict[tuple[str, int, bytes], str] = {}
        damaged: set[EntryId] = set()
        for name in [name for name in self._state_rot if not self._disk.exists(self._state_file(name))]:
            yield Healed(name)
        for snapshot, path, file in files:
            known = sound.get((file.name, file.size, file.checksum))
            if snapshot.id in damaged or (known is not None and self._disk.same_file(path, known)):
                continue
            text = yield from self._read_file(path, file)
            if text is None:
                sound[file.name, file.size, file.checksum] = path
            else:
                damaged.add(snapshot.id)
                yield Rot(path, text, snapshot, self._disk.same_file(path, self._state_file(file.name)))
        for part in self._log.written():
            try:
                yield from scrub_segment(self._disk, part)
            except FileNotFoundError:
                yield Rot(part.path, f"{part.path} is missing")
            except (CorruptRecord, DiskError) as exc:
                yield Rot(part.path, str(exc))

    def _read_file(self, path: str, file: SnapshotFile) -> Generator[int, None, str | None]:
        """Read a snapshot's file step by step; returns what is wrong with it, or None."""
        hasher, offset = xxhash.xxh3_128(), 0
        try:
            while data := self._read(path, offset):
                hasher.update(data)
                offset += len(data)
                yield len(data)
        except FileNotFoundError:
            return f"{path} is missing"
        except DiskError as exc:
            return f"{path} can't be read: {exc}"
        if offset != file.size:
            return f"{path} has {offset} bytes instead of {file.size}"
        return None if hasher.digest() == file.checksum else f"{path} does not match its checksum"

    def _read(self, path: str, offset: int) -> bytes:
        # Opened for each step, so that the file can be removed, or the node stopped, between two of them.
        file = self._disk.open(path)
        try:
            return file.pread(STEP_BYTES, offset)
        finally:
            file.close()
