"""Begins a new cluster with a backup: makes the data directory of one of its founders.

The new cluster's id is made of its name, its founders and the backup, so founders that were restored from the same
file with the same words find each other, and nobody else's node or client is let in: neither those of the cluster that
the backup is of, nor those of another one that was restored.
"""

from __future__ import annotations

import posixpath

import msgspec

from raftkv.access import TurnOff
from raftkv.config import Config
from raftkv.disk import Disk
from raftkv.entry import Entry, make_entry
from raftkv.errors import ConfigError, DataDirLocked, DiskError, InvalidArgument
from raftkv.log import Identity
from raftkv.machine import access_payload, lineage_payload
from raftkv.model import EntryKind, HardState, Member, NodeId, SnapshotMeta
from raftkv.node.building import Beginning, build_directory
from raftkv.node.identity import RESTORED, Founding, Lineage, cluster_id_of, founding_membership
from raftkv.node.paths import Paths
from raftkv.node.world import World
from raftkv.snapshot.backup import SealedHead, check_backup, unpack_backup

UNFINISHED = ".restoring"
"""What the name of a directory ends with that is not complete; the next try removes it."""
MARK = b"made by raftkv restore, and not complete\n"
"""In such a directory's lock file, until it is complete: only what has it is ever removed."""


class Restored(msgspec.Struct, frozen=True, kw_only=True):
    """A data directory that was made of a backup."""

    data_dir: str
    founding: Founding
    snapshot: SnapshotMeta
    """With the new members."""
    clock_behind_ms: int
    """How far this machine's clock is behind the log time in the backup; negative when it is ahead."""


class RestorePlan(msgspec.Struct, frozen=True, kw_only=True):
    """What an operator says of the new cluster, the same for each of its founders but for the first two."""

    node_id: NodeId
    data_dir: str
    members: tuple[Member, ...]
    cluster_name: str
    auth_off: bool = False
    """Whether everybody may do everything in it, whatever the backup says: for when nobody can sign in any more."""


def restore(world: World, path: str, plan: RestorePlan, config: Config = Config()) -> Restored:
    """Make the directory of a founder of a new cluster from the backup at `path`. Blocking; durable on return.

    All or nothing: it is built beside its place, and gets its name when it is complete. Raises `InvalidArgument` when
    there is something at that place, or it can't be replaced, or the backup is not there; `SnapshotCorruption`,
    `FormatError` when the backup is not sound; `ConfigError`, `DiskError`.
    """
    disk = world.disk
    membership = founding_membership(plan.members)
    if membership.member(plan.node_id) is None:
        raise ConfigError(
            f"node {plan.node_id} is not among the members {[each.node_id for each in plan.members]}: name each "
            "founder of the new cluster, and restore each from the same file; or one alone, and add the others later"
        )
    if not plan.cluster_name:
        raise ConfigError("the new cluster needs a name of its own")
    if not plan.data_dir:
        raise ConfigError("the name of the data directory is empty")
    data_dir = plan.data_dir.rstrip("/") or "/"
    _check_empty(disk, data_dir)
    head = check_backup(disk, path)
    lineage = _lineage_of(head, plan)
    cluster_id = cluster_id_of(plan.cluster_name, membership, lineage)
    snapshot = msgspec.structs.replace(head.snapshot, membership=membership)
    founding = Founding(
        cluster_id=cluster_id,
        membership=membership,
        name=plan.cluster_name,
        machine=head.head.machine,
        lineage=lineage,
    )
    beginning = Beginning(
        owner=Identity(cluster_id=cluster_id, node_id=plan.node_id, incarnation=world.nonce),
        founding=founding,
        hard_state=HardState(term=snapshot.term),
        snapshot=snapshot,
        fill=lambda draft: _unpack(disk, path, draft, head),
        key_count=head.manifest.key_count,
        entries=lambda: [_begins(snapshot, head.head.cluster_id, auth_off=plan.auth_off)],
    )
    _build_aside(world, config, data_dir, beginning)
    behind = snapshot.time_ms - world.now_ms()
    return Restored(data_dir=data_dir, founding=founding, snapshot=snapshot, clock_behind_ms=behind)


def _begins(snapshot: SnapshotMeta, cluster_id: str, *, auth_off: bool) -> list[Entry]:
    """What it goes on from, and that everybody may do everything, if that is wanted: the same entries in the log of
    each founder, and so in the new cluster for good."""
    payloads = [lineage_payload(cluster_id, snapshot.index), *([access_payload(TurnOff())] if auth_off else [])]
    found, chain = list[Entry](), snapshot.chain
    for index, payload in enumerate(payloads, snapshot.index + 1):
        found.append(make_entry(index, snapshot.term, snapshot.time_ms, EntryKind.COMMAND, payload, chain))
        chain = found[-1].chain
    return found


def _lineage_of(head: SealedHead, plan: RestorePlan) -> Lineage:
    return Lineage(
        kind=RESTORED,
        cluster_id=head.head.cluster_id,
        cluster_name=head.head.cluster_name,
        index=head.snapshot.index,
        term=head.snapshot.term,
        mark=head.digest.hex() + (" auth off" if plan.auth_off else ""),  # or founders would differ in it
    )


def _unpack(disk: Disk, path: str, draft: str, head: SealedHead) -> None:
    if unpack_backup(disk, path, draft).digest != head.digest:
        raise InvalidArgument(f"{path} was replaced by another backup while it was restored: run the command again")


def _check_empty(disk: Disk, data_dir: str) -> None:
    if disk.exists(data_dir) and not disk.is_dir(data_dir):
        raise InvalidArgument(f"{data_dir} is a file: name a directory that is not there yet, or is empty")
    if disk.is_dir(data_dir) and disk.listdir(data_dir):
        raise InvalidArgument(
            f"{data_dir} is not empty, and nothing in it was changed: name another directory, or move that one away"
        )


def _build_aside(world: World, config: Config, data_dir: str, beginning: Beginning) -> None:
    disk, paths = world.disk, Paths(data_dir + UNFINISHED)
    parent = posixpath.dirname(data_dir) or "."
    disk.mkdir(parent)
    _content_of_earlier_try(disk, paths)
    disk.mkdir(paths.root)
    try:
        lock = disk.lock(paths.lock)
    except DataDirLocked as exc:
        raise InvalidArgument(f"{data_dir} is being restored by another process: wait for it") from exc
    try:
        left = _content_of_earlier_try(disk, paths)
    except BaseException:
        lock.release()
        raise
    try:
        disk.write_synced(paths.lock, MARK)
        disk.sync_dir(paths.root)
        for place in left:
            if disk.is_dir(place):
                disk.remove_tree(place)
            else:
                disk.remove(place)
        _check_replaceable(disk, data_dir, posixpath.join(paths.root, "tried"))
        build_directory(world, config, paths, beginning)
        _check_empty(disk, data_dir)
        disk.rename(paths.root, data_dir)
        disk.sync_dir(parent)
        disk.write_synced(Paths(data_dir).lock, b"")
    except BaseException:
        _give_up(disk, paths.root)
        raise
    finally:
        lock.release()


def _content_of_earlier_try(disk: Disk, paths: Paths) -> list[str]:
    """What lies where the directory is built. Raises `InvalidArgument` when an earlier try has not left it."""
    names = disk.listdir(paths.root) if disk.is_dir(paths.root) else []
    found = [place for name in names if (place := posixpath.join(paths.root, name)) != paths.lock]
    if found and not (disk.exists(paths.lock) and disk.read_bytes(paths.lock) == MARK):
        raise InvalidArgument(
            f"{paths.root} is in the way: the directory is built there, and what is in it was not left by an earlier "
            "try. Nothing in it was changed: move it away"
        )
    return found


def _check_replaceable(disk: Disk, data_dir: str, empty: str) -> None:
    """Raises `InvalidArgument` when nothing can take an empty directory's place: better now than after the work."""
    if not disk.is_dir(data_dir):
        return
    disk.mkdir(empty)
    try:
        disk.rename(empty, data_dir)
    except DiskError as exc:
        reason = exc.__cause__.strerror if isinstance(exc.__cause__, OSError) else exc
        raise InvalidArgument(
            f"{data_dir} is empty and can't be replaced ({reason}): it may be where a file system is mounted, or a "
            "symbolic link. Name a directory in it that is not there yet"
        ) from exc


def _give_up(disk: Disk, unfinished: str) -> None:
    """Remove what was not finished, so that it takes no space; if that fails, the next try does it."""
    try:
        if disk.is_dir(unfinished):
            disk.remove_tree(unfinished)
    except DiskError:
        return
