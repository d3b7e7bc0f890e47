"""Compares a snapshot with its manifest, for the store and for `raftkv snapshot verify`."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable
from typing import TypeAlias

import msgspec

from raftkv.disk import Disk
from raftkv.errors import Corruption, FormatError, SnapshotCorruption
from raftkv.model import SnapshotMeta
from raftkv.snapshot.files import checksum_of, link_files
from raftkv.snapshot.manifest import MANIFEST_NAME, Manifest, SnapshotFile, read_manifest

SNAPSHOT_NAME = re.compile(r"(\d{20})-(\d{20})")
"""Index and term, zero padded so that names sort as snapshots do."""

TEMPORARY = "tmp-"
"""The prefix of directories that mean nothing after a restart."""


class Content(msgspec.Struct, frozen=True):
    """What the database in a snapshot's files holds; `key_count` is None when its keys were not counted."""

    index: int
    term: int
    digest: int
    key_count: int | None = None


Inspect: TypeAlias = Callable[[str], Content]
"""Opens the database in a directory (a copy of a snapshot's files), reads what it holds, closes it.

Passed in, because only `raftkv.state` knows databases. May raise `Corruption`.
"""


class SnapshotReport(msgspec.Struct, kw_only=True):
    """What was found in one snapshot's directory."""

    path: str
    snapshot: SnapshotMeta | None = None
    cluster_id: str = ""
    key_count: int | None = None
    files: int = 0
    total_bytes: int = 0
    problems: list[str] = []

    @property
    def is_sound(self) -> bool:
        return not self.problems


class DirectoryReport(msgspec.Struct, kw_only=True):
    """What was found in a directory of snapshots, oldest first."""

    path: str
    snapshots: list[SnapshotReport] = []
    unfinished: list[str] = []
    """Directories of snapshots that are being made or received, or were when the node stopped."""
    problems: list[str] = []
    """Of the directory itself and of all its snapshots, in words."""

    @property
    def is_sound(self) -> bool:
        return not self.problems


def snapshot_name(snapshot: SnapshotMeta) -> str:
    """The name of the directory of a published snapshot."""
    return f"{snapshot.index:020d}-{snapshot.term:020d}"


def verify_directory(disk: Disk, path: str, inspect: Inspect | None = None) -> DirectoryReport:
    """Check one snapshot's directory, or every snapshot in a directory of them. Reads every byte; changes nothing.

    With `inspect` the databases are opened too, in hard-linked copies beside them that are removed
    again. Raises `DiskError`; whatever is wrong with the snapshots is in the report instead.
    """
    path = posixpath.normpath(path)
    report = DirectoryReport(path=path)
    if not disk.is_dir(path):
        report.problems.append(f"{path} is no directory")
        return report
    names = disk.listdir(path)
    if SNAPSHOT_NAME.fullmatch(posixpath.basename(path)) or MANIFEST_NAME in names:
        report.snapshots.append(verify_snapshot(disk, path, inspect))
    else:
        report.unfinished = [name for name in names if name.startswith((TEMPORARY, "staging-"))]
        for name in names:
            if SNAPSHOT_NAME.fullmatch(name):
                report.snapshots.append(verify_snapshot(disk, posixpath.join(path, name), inspect))
        if not report.snapshots:
            report.problems.append(f"{path} holds no snapshot")
    for found in report.snapshots:
        report.problems += found.problems
    return report


def verify_snapshot(disk: Disk, path: str, inspect: Inspect | None = None) -> SnapshotReport:
    """Check one snapshot against its manifest, its directory's name and, with `inspect`, its database."""
    report = SnapshotReport(path=path)
    try:
        manifest = read_manifest(disk, path).manifest
    except (SnapshotCorruption, FormatError) as exc:
        report.problems.append(str(exc))
        return report
    report.snapshot, report.cluster_id, report.key_count = manifest.snapshot, manifest.cluster_id, manifest.key_count
    report.files, report.total_bytes = len(manifest.files), manifest.total_bytes
    name = posixpath.basename(path)
    if SNAPSHOT_NAME.fullmatch(name) and name != snapshot_name(manifest.snapshot):
        report.problems.append(f"{path} holds the snapshot {snapshot_name(manifest.snapshot)}")
    report.problems += _file_problems(disk, path, manifest)
    if inspect is not None and not report.problems:
        try:
            report.problems += content_problems(path, manifest, inspect_copy(disk, path, manifest.files, inspect))
        except Corruption as exc:
            report.problems.append(f"{path} holds a damaged database: {exc}")
    return report


def _file_problems(disk: Disk, path: str, manifest: Manifest) -> list[str]:
    found = []
    for file in manifest.files:
        place = posixpath.join(path, file.name)
        try:
            size, checksum = checksum_of(disk, place)
        except FileNotFoundError:
            found.append(f"{place} is missing")
            continue
        if size != file.size:
            found.append(f"{place} has {size} bytes instead of {file.size}")
        elif checksum != file.checksum:
            found.append(f"{place} does not match its checksum")
    strangers = set(disk.listdir(path)) - {file.name for file in manifest.files} - {MANIFEST_NAME}
    return found + [f"{posixpath.join(path, name)} does not belong to the snapshot" for name in sorted(strangers)]


def inspect_copy(disk: Disk, path: str, files: tuple[SnapshotFile, ...], inspect: Inspect) -> Content:
    """What the database in a directory's `files` holds. Raises what `inspect` raises, and `DiskError`.

    The database is opened in a copy beside the directory, as opening one rewrites some of its files.
    """
    parent, name = posixpath.split(path)
    copy = posixpath.join(parent, f"{TEMPORARY}inspect-{name}")
    disk.remove_tree(copy)
    try:
        link_files(disk, path, files, copy)
        return inspect(copy)
    finally:
        disk.remove_tree(copy)


def content_problems(path: str, manifest: Manifest, content: Content) -> list[str]:
    """Where the database in a snapshot's files is not the state that the manifest names (F61, F68)."""
    said = manifest.snapshot
    found = []
    if (content.index, content.term) != (said.index, said.term):
        found.append(f"{path} holds the state at {content.index}@{content.term} instead of {said.id}")
    if content.digest != said.digest:
        found.append(f"{path} holds a state with digest {content.digest:016x} instead of {said.digest:016x}")
    if None not in (content.key_count, manifest.key_count) and content.key_count != manifest.key_count:
        found.append(f"{path} holds {content.key_count} keys instead of {manifest.key_count}")
    return found
