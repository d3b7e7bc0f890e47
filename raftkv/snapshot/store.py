"""The snapshots of one node on its disk: made under a temporary name, published by a rename, kept, pruned.

    snapshots/<index>-<term>/          a published snapshot: its files and MANIFEST
    snapshots/tmp-…/                   being made, checked or removed; means nothing after a restart
    snapshots/staging-<digest>/        being received; outlives a restart (see `staging`)

A directory with a snapshot's name counts only with a receipt (see `receipts`); any other was brought here from
elsewhere. It is neither used, offered nor removed.

Threads: methods marked *loop* only look at or change memory. Those marked *worker* do file work and
are called on one worker thread, one after the other. The two threads share dicts, and each step changes
one item of them, so neither ever sees half a change.
"""

from __future__ import annotations

import posixpath
from typing import TypeAlias

from raftkv import failpoints
from raftkv.disk import Disk
from raftkv.errors import Corruption, DiskError, DiskFull, FormatError, SafetyViolation, SnapshotCorruption
from raftkv.model import SnapshotMeta
from raftkv.snapshot.files import IMMUTABLE_SUFFIXES, checksum_of, link_files
from raftkv.snapshot.manifest import MANIFEST_NAME, Manifest, SealedManifest, SnapshotFile, read_manifest
from raftkv.snapshot.receipts import Receipts
from raftkv.snapshot.staging import STAGING, Source, Sources, Staging
from raftkv.snapshot.verify import (
    SNAPSHOT_NAME,
    TEMPORARY,
    Inspect,
    SnapshotReport,
    content_problems,
    inspect_copy,
    snapshot_name,
    verify_snapshot,
)

Snapshots: TypeAlias = list[SnapshotMeta]
Manifests: TypeAlias = list[SealedManifest]
Names: TypeAlias = list[str]
"""Names of the directories that `retire` hands to `prune`."""

failpoints.declare(
    __name__,
    {
        "snapshot.seal.before": "a snapshot's draft is complete, and nothing of it is certainly durable",
        "snapshot.manifest.before": "a draft's files are durable, and it has no manifest",
        "snapshot.manifest.after": "a draft has its manifest",
        "snapshot.rename.before": "a snapshot is durable under its temporary name",
        "snapshot.rename.after": "a snapshot has its name, which is not durable",
        "snapshot.published": "a snapshot is published and durable, and nobody was told",
        "snapshot.prune.renamed": "an old snapshot has lost its name, and that is not durable",
        "receive.before_sync": "all of a snapshot has arrived, and not all of it is durable",
        "receive.after_sync": "all of a snapshot has arrived durably, and it has no name",
    },
    raises=DiskError,
)


class SnapshotStore:
    """All snapshots of a node.

    Invariants:
    - what `list` names is durable, and was whole when it was published;
    - a published directory is never written to and never opened as a database (see `link_to`);
    - only `retire`, `retire_outsized`, `prune` make a snapshot disappear; the newest and pinned ones stay.
    """

    def __init__(self, disk: Disk, directory: str, receipts: Receipts) -> None:
        self.disk = disk
        self.directory = directory
        self._receipts = receipts
        self._foreign: dict[str, SealedManifest] = {}
        self._published: dict[str, SealedManifest] = {}
        self._damaged: dict[str, str] = {}
        self._pins: dict[str, int] = {}
        self._temporaries = 0
        self._receiving: Staging | None = None

    @classmethod
    def open(cls, disk: Disk, directory: str, receipts: Receipts) -> SnapshotStore:
        """Find what is there, and clear away what a crash left over. *Worker.*

        A snapshot with a damaged manifest is no reason to fail, as another one may do: see `damaged`.
        Raises `DiskError`, `FormatError` for a snapshot of a newer raftkv.
        """
        store = cls(disk, directory, receipts)
        disk.mkdir(directory)
        names = disk.listdir(directory)
        leftovers = [name for name in names if name.startswith(TEMPORARY)]
        for name in leftovers:
            disk.remove_tree(store._path(name))
        if leftovers:
            disk.sync_dir(directory)
        for name in names:
            if SNAPSHOT_NAME.fullmatch(name):
                store._load(name)
        return store

    def _load(self, name: str) -> None:
        path = self._path(name)
        try:
            sealed = read_manifest(self.disk, path)
        except SnapshotCorruption as exc:
            self._damaged[name] = str(exc)
            return
        if snapshot_name(sealed.manifest.snapshot) != name:
            self._damaged[name] = f"{path} holds the manifest of {snapshot_name(sealed.manifest.snapshot)}"
            return
        if self._receipts.has(sealed.digest):
            self._published[name] = sealed
        else:
            self._foreign[name] = sealed

    def list(self) -> Snapshots:
        """Every published snapshot that isn't known to be damaged, oldest first. *Loop.*"""
        published = self._published
        return [published[name].manifest.snapshot for name in sorted(published)]

    @property
    def count(self) -> int:
        """How many snapshots `list` has. *Loop.*"""
        return len(self._published)

    def latest(self) -> SnapshotMeta | None:
        """The newest of `list`; None when it is empty. *Loop.*"""
        return max(self.list(), key=lambda snapshot: (snapshot.index, snapshot.term), default=None)

    def damaged(self) -> dict[str, str]:
        """Snapshots that must not be used, by directory name (`<index>-<term>`), and what is wrong. *Loop.*"""
        return dict(self._damaged)

    def refused(self) -> dict[str, str]:
        """Directories without a receipt, by name, and what to do about each. *Loop.*"""
        return {name: self._foreign_text(name) for name in sorted(self._foreign)}

    def _foreign_text(self, name: str) -> str:
        manifest = self._foreign[name].manifest
        return (
            f"{self._path(name)} (of the cluster {manifest.cluster_id}, entry {manifest.snapshot.id}) "
            "was neither taken nor received by this node, so it is not used: remove it, or move it to where it belongs"
        )

    def foreign(self) -> Manifests:
        """Manifests of snapshots that lie here without a receipt, newest first. *Loop.*"""
        return [self._foreign[name] for name in sorted(self._foreign, reverse=True)]

    def admit(self, sealed: SealedManifest) -> None:
        """Give one of the `foreign` snapshots a receipt, when the record was lost and the log confirms it. *Worker.*"""
        name = snapshot_name(sealed.manifest.snapshot)
        self._receipts.accept(sealed.digest, from_leader=False)
        self._published[name] = self._foreign.pop(name)

    def has_arrived(self, snapshot: SnapshotMeta) -> bool:
        """Whether `snapshot` came from a leader and may not be installed yet. *Loop.*"""
        return self.manifest(snapshot).digest == self._receipts.arrived

    def expect(self, snapshot: SnapshotMeta) -> None:
        """The log is about to begin anew behind `snapshot`, which until `settle` may be ahead of the log. Durable on
        return. *Worker.*"""
        if not self.has_arrived(snapshot):
            self._receipts.accept(self.manifest(snapshot).digest, from_leader=True)

    def settle(self) -> None:
        """The snapshot that has arrived is installed, or of no use. Durable on return. *Worker.*"""
        self._receipts.settle()

    def manifest(self, snapshot: SnapshotMeta) -> SealedManifest:
        """The manifest of a published snapshot. Raises `SnapshotCorruption` when there is none. *Loop.*"""
        sealed = self._published.get(snapshot_name(snapshot))
        if sealed is None or sealed.manifest.snapshot != snapshot:
            raise SnapshotCorruption(f"the snapshot at {snapshot.id} is not there any more, or was damaged")
        return sealed

    def find(self, digest: bytes) -> SnapshotMeta | None:
        """The published snapshot with that manifest. *Loop.*"""
        for sealed in list(self._published.values()):
            if sealed.digest == digest:
                return sealed.manifest.snapshot
        return None

    def path(self, snapshot: SnapshotMeta) -> str:
        """The directory of a snapshot once it is published. *Loop.*"""
        return self._path(snapshot_name(snapshot))

    def pin(self, snapshot: SnapshotMeta) -> None:
        """Keep a snapshot while it is being sent or installed; pins are counted. *Loop.*"""
        name = snapshot_name(snapshot)
        self._pins[name] = self._pins.get(name, 0) + 1

    def unpin(self, snapshot: SnapshotMeta) -> None:
        """Take one pin back. *Loop.*"""
        name = snapshot_name(snapshot)
        left = self._pins.pop(name) - 1
        if left:
            self._pins[name] = left

    def mark_damaged(self, snapshot: SnapshotMeta, reason: str) -> None:
        """Never offer or list this snapshot again. Those of its files that are sound need not be sent again. *Loop.*"""
        name = snapshot_name(snapshot)
        self._damaged[name] = reason
        self._published.pop(name, None)

    def drop(self, snapshot: SnapshotMeta) -> None:
        """Remove a published snapshot, which must not be pinned, for good. *Worker.*"""
        name = snapshot_name(snapshot)
        del self._published[name]
        self.prune([name])

    def begin(self) -> str:
        """A directory for `Store.checkpoint` to make and fill; it is not there yet. *Loop.*"""
        self._temporaries += 1
        return self._path(f"{TEMPORARY}{self._temporaries}")

    def publish(
        self,
        draft: str,
        snapshot: SnapshotMeta,
        *,
        cluster_id: str,
        key_count: int | None = None,
        inspect: Inspect | None = None,
    ) -> SnapshotMeta:
        """Turn a directory from `begin`, filled, into the snapshot `snapshot`; durable on return. *Worker.*

        The log may be cut behind it from now on. With `inspect`, a copy of the database is opened and must be the
        state that `snapshot` names; the keys that it counts are used when `key_count` is None. When the very same
        snapshot is there already, that one stays.

        Raises `DiskFull` (nothing changed, the draft is gone), `SnapshotCorruption` (the same),
        `DiskError`; `SafetyViolation` when there is another state for the same index and term.
        """
        try:
            failpoints.reach("snapshot.seal.before")
            sealed = self._seal(draft, snapshot, cluster_id, key_count, inspect)
            self._place(draft, sealed)
        except (DiskFull, Corruption):
            self.discard(draft)
            raise
        return snapshot

    def _seal(
        self, draft: str, snapshot: SnapshotMeta, cluster_id: str, key_count: int | None, inspect: Inspect | None
    ) -> SealedManifest:
        """Make a draft durable under its temporary name, manifest included."""
        files = tuple(self._seal_file(draft, name) for name in self.disk.listdir(draft))
        content = inspect_copy(self.disk, draft, files, inspect) if inspect is not None else None
        if key_count is None and content is not None:
            key_count = content.key_count
        manifest = Manifest(cluster_id=cluster_id, snapshot=snapshot, key_count=key_count, files=files)
        problems = manifest.problems()
        if content is not None:
            problems += content_problems(draft, manifest, content)
        if problems:
            raise SnapshotCorruption(f"the checkpoint can't be the snapshot at {snapshot.id}: {'; '.join(problems)}")
        sealed = SealedManifest.seal(manifest)
        failpoints.reach("snapshot.manifest.before")
        self.disk.write_synced(posixpath.join(draft, MANIFEST_NAME), sealed.data)
        failpoints.reach("snapshot.manifest.after")
        self.disk.sync_dir(draft)
        return sealed

    def _seal_file(self, draft: str, name: str) -> SnapshotFile:
        """Checksum a file of a draft and make it durable."""
        path = posixpath.join(draft, name)
        if (known := self._same_file(path, name)) is not None:
            return known
        size, checksum = checksum_of(self.disk, path, sync=True)
        return SnapshotFile(name, size, checksum)

    def _same_file(self, path: str, name: str) -> SnapshotFile | None:
        """An immutable file that an earlier snapshot shares by a hard link, with the checksum that it had then.

        So a snapshot costs only what has changed; and when the file has rotted since, no new checksum hides that from
        `verify` (F68).
        """
        if not name.endswith(IMMUTABLE_SUFFIXES):
            return None
        for directory, sealed in sorted(self._published.items(), reverse=True):
            known = sealed.manifest.file(name)
            if known is not None and self.disk.same_file(path, posixpath.join(self._path(directory), name)):
                return known
        return None

    def _place(self, directory: str, sealed: SealedManifest, *, from_leader: bool = False) -> None:
        """Give a durable directory its published name; durable on return.

        A damaged snapshot of that name makes way. A snapshot from the leader also replaces a sound one that differs at
        the same index and term: this replica had diverged.
        """
        snapshot = sealed.manifest.snapshot
        name = snapshot_name(snapshot)
        listed = self._published.get(name)
        if listed is not None and listed.manifest.snapshot == snapshot:
            self.discard(directory)
            return
        if listed is not None and not from_leader:
            raise SafetyViolation(
                f"two states at {snapshot.id}: the snapshot there says {listed.manifest.snapshot}, "
                f"the new one {snapshot}. Keep the files and report it"
            )
        self._receipts.accept(sealed.digest, from_leader=from_leader)
        aside = None
        if self.disk.is_dir(self._path(name)):
            aside = self.begin()
            self.disk.rename(self._path(name), aside)
        failpoints.reach("snapshot.rename.before")
        self.disk.rename(directory, self._path(name))
        failpoints.reach("snapshot.rename.after")
        self.disk.sync_dir(self.directory)
        self._damaged.pop(name, None)
        self._foreign.pop(name, None)
        self._published[name] = sealed
        failpoints.reach("snapshot.published")
        if aside is not None:
            self.disk.remove_tree(aside)

    def discard(self, draft: str) -> None:
        """Remove a draft that won't be published; nothing happens when it is gone. *Worker.*"""
        self.disk.remove_tree(draft)

    def verify(self, snapshot: SnapshotMeta, inspect: Inspect | None = None) -> SnapshotReport:
        """Read every byte of a published snapshot and compare it with the manifest. *Worker.*

        Raises `SnapshotCorruption`, which names every problem; then call `mark_damaged`.
        """
        report = verify_snapshot(self.disk, self.path(snapshot), inspect)
        if report.snapshot is not None and report.snapshot != snapshot:
            report.problems.append(f"{report.path} says that it is {report.snapshot} instead of {snapshot}")
        if report.problems:
            raise SnapshotCorruption("; ".join(report.problems))
        return report

    def link_to(self, snapshot: SnapshotMeta, directory: str) -> None:
        """Make `directory`, which must not exist, a copy of a snapshot for a database to open. *Worker.*

        Durable on return. Immutable files are hard links and cost no space; the others are copied.
        Raises `SnapshotCorruption` when the snapshot is not there, `DiskError`.
        """
        sealed = self.manifest(snapshot)
        try:
            link_files(self.disk, self.path(snapshot), sealed.manifest.files, directory)
        except FileNotFoundError as exc:
            raise SnapshotCorruption(f"a file of the snapshot at {snapshot.id} is missing: {exc}") from exc

    def retire(self, keep: int) -> Names:
        """Take all snapshots but the newest `keep` and the pinned off the list, for `prune` to remove. *Loop.*

        From now on nobody can pin them. Damaged ones go, too, once there are `keep` sound ones. Nothing
        on disk changes yet: after a crash they are all back.
        """
        names = sorted(self._published)
        retired = [name for name in names[: max(0, len(names) - max(1, keep))] if name not in self._pins]
        for name in retired:
            del self._published[name]
        if len(names) >= keep:
            damaged = [name for name in list(self._damaged) if name not in self._pins]
            for name in damaged:
                del self._damaged[name]
            retired += damaged
        return retired

    def size(self, snapshot: SnapshotMeta) -> int:
        """How many bytes a published snapshot has in all of its files; 0 when it is gone. *Loop.*"""
        sealed = self._published.get(snapshot_name(snapshot))
        return sealed.manifest.total_bytes if sealed is not None else 0

    def outsized(self, spare_bytes: int) -> Names:
        """Snapshots that hold more than twice of what the newest does, and `spare_bytes`, and are not pinned:
        the state has shrunk, and they keep what is gone on the disk. *Loop.*"""
        names = sorted(self._published)
        if len(names) < 2:
            return []
        most = 2 * self._published[names[-1]].manifest.total_bytes + spare_bytes
        older = [name for name in names[:-1] if name not in self._pins]
        return [name for name in older if self._published[name].manifest.total_bytes > most]

    def retire_outsized(self, spare_bytes: int) -> Names:
        """Take those off the list, for `prune` to remove, as `retire` does. *Loop.*"""
        names = self.outsized(spare_bytes)
        for name in names:
            del self._published[name]
        return names

    def prune(self, retired: Names) -> None:
        """Remove the directories that were retired, and those of transfers that are of no use now. *Worker.*

        Each is renamed first, durably, so that a half-removed directory is never taken for a snapshot.
        """
        doomed = []
        for name in retired:
            doomed.append(self.begin())
            self.disk.rename(self._path(name), doomed[-1])
            failpoints.reach("snapshot.prune.renamed")
        if doomed:
            self.disk.sync_dir(self.directory)
        for path in doomed:
            self.disk.remove_tree(path)
        self._receipts.keep(sealed.digest for sealed in list(self._published.values()))
        newest = self.latest()
        for name in self._stagings():
            if newest is not None and self._staged_index(name) <= newest.index:
                self.disk.remove_tree(self._path(name))

    def stage(self, sealed: SealedManifest) -> Staging:
        """A place for the files of a snapshot that is to be received; `Staging.prepare` comes next. *Worker.*"""
        self._receiving = Staging(self.disk, self._path(STAGING + sealed.digest.hex()), sealed)
        return self._receiving

    def sources(self) -> Sources:
        """Every file on this disk that some manifest describes, by content: published, damaged, staged. *Worker.*"""
        found: Sources = {}
        for name in self.disk.listdir(self.directory):
            is_staging = name.startswith(STAGING)
            if not is_staging and not SNAPSHOT_NAME.fullmatch(name):
                continue
            if self._receiving is not None and self._path(name) == self._receiving.directory:
                continue
            try:
                manifest = read_manifest(self.disk, self._path(name)).manifest
            except (SnapshotCorruption, FormatError):
                continue  # nobody knows what its files are
            for file in manifest.files:
                source = Source(posixpath.join(self._path(name), file.name), may_be_partial=is_staging)
                found.setdefault(file.content, []).append(source)
        return found

    def drop_other_stagings(self) -> None:
        """Remove what earlier transfers left, once the files that are of use were taken over. *Worker.*"""
        for name in self._stagings():
            self.disk.remove_tree(self._path(name))

    def publish_received(self, staging: Staging) -> SnapshotMeta:
        """Publish what was received, when `staging.missing()` is empty; durable on return. *Worker.*

        Raises `DiskError`, `DiskFull`.
        """
        failpoints.reach("receive.before_sync")
        staging.make_durable()
        failpoints.reach("receive.after_sync")
        self._place(staging.directory, staging.sealed, from_leader=True)
        self._receiving = None
        return staging.sealed.manifest.snapshot

    def end_receiving(self, staging: Staging, *, remove: bool) -> None:
        """Close a transfer that ends or is interrupted. Its files stay for the next try, unless `remove`. *Worker.*"""
        staging.close()
        self._receiving = None
        if remove:
            self.disk.remove_tree(staging.directory)

    def _stagings(self) -> Names:
        """Names of the directories that transfers left, without the one under way."""
        used = self._receiving.directory if self._receiving is not None else None
        names = self.disk.listdir(self.directory)
        return [name for name in names if name.startswith(STAGING) and self._path(name) != used]

    def _staged_index(self, name: str) -> int:
        try:
            return read_manifest(self.disk, self._path(name)).manifest.snapshot.index
        except (SnapshotCorruption, FormatError):
            return 0  # it can't be resumed, so it is of no use

    def _path(self, name: str) -> str:
        return posixpath.join(self.directory, name)
