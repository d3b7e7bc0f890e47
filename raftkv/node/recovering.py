"""Lets one survivor go on alone, as a new cluster, when the majority of the old one is lost for good.

The directory is made anew beside its old content: a snapshot of what is applied, the rest of the log behind it, and at
its end an entry that says what it goes on from, and one that makes the survivor the only member.

The new cluster has another id, so no node of the old one is ever let in again: what it acknowledged may be missing
here. All other members count as removed, and their ids never come back.

    recovered.new/         being built; means nothing
    recovering             the old content is being exchanged for the new one: nothing starts, the same command goes on
    before-recovery-<n>/   the old content
    recovery-<n>.json      what was done, and what may be lost
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterator
from contextlib import ExitStack, suppress

import msgspec

from raftkv import failpoints
from raftkv.access import TurnOff
from raftkv.config import Config
from raftkv.core.log import LogView
from raftkv.disk import Disk
from raftkv.entry import Entry, make_entry
from raftkv.errors import Corruption, DiskError, InvalidArgument, StateCorruption
from raftkv.log import Identity
from raftkv.machine import access_payload, lineage_payload
from raftkv.model import EntryKind, HardState, Index, Membership, NodeId, SnapshotMeta, Term, encode_membership
from raftkv.node.building import Beginning, build_directory
from raftkv.node.directory import Opened, open_directory
from raftkv.node.identity import RECOVERED, Founding, Lineage, cluster_id_of, load_founding
from raftkv.node.paths import Options, Paths
from raftkv.node.peers.moved import placed
from raftkv.node.world import World
from raftkv.state import Store

ASIDE = "before-recovery-"
REPORT = "recovery-"
_CHUNK_BYTES = 4 << 20

failpoints.declare(
    __name__,
    {
        "recover.built": "a new lineage is built beside the old directory",
        "recover.begun": "the old content of a directory is about to be moved aside",
        "recover.aside": "the old content of a directory is aside, and there is no new one",
        "recover.placed": "the new content of a directory is in its place, and nothing may start yet",
    },
    raises=DiskError,
)


class Regained(msgspec.Struct, frozen=True, kw_only=True):
    """What was done to a survivor; it is also the report that is left in its directory."""

    node_id: NodeId
    cluster_name: str
    old_cluster_id: str
    new_cluster_id: str
    old_members: Membership
    new_members: Membership
    applied_index: Index
    """Up to here the node had applied, and everything is certainly what was acknowledged."""
    last_index: Index
    """Up to here it had entries, which all are committed now, whether they were before or not."""
    last_term: int
    last_time_ms: int
    """The leader's time of the last entry; what was acknowledged after it is not here."""
    nothing_lost: bool
    """Whether the lost nodes can't have acknowledged anything without this one."""
    auth_off: bool = False
    """Whether everybody may do everything in the new cluster, though users had to sign in before."""
    kept_in: str
    """Where the old content is."""
    done_ms: int


class _Exchange(msgspec.Struct, frozen=True, kw_only=True):
    """How far the exchange of the directory's content is; the file `recovering` has it."""

    is_aside: bool
    """Whether all of the old content was moved, so that what lies there is the new one."""
    regained: Regained


def regain(
    world: World, data_dir: str, config: Config = Config(), *, nothing_lost: bool, auth_off: bool = False
) -> Regained:
    """Make a survivor's directory the only one of a new cluster, or go on with what was cut off. Blocking; durable on
    return. What is in the directory is checked as for a start. `auth_off`: nobody has to sign in to the new cluster.

    Raises `InvalidArgument`, and what `open_directory` raises; the old content is in its place as long as the file
    `recovering` is not there.
    """
    disk, paths = world.disk, Paths(data_dir.rstrip("/") or "/")
    with ExitStack() as last:
        if disk.exists(paths.recovering):
            last.callback(disk.lock(paths.lock).release)
            return _exchange(disk, paths, _read_exchange(disk, paths))
        disk.remove_tree(paths.recovered)
        opened = open_directory(Options(node_id=_node_id(disk, paths), data_dir=paths.root, config=config), world)
        last.callback(opened.lock.release)
        try:
            regained = _build(world, config, paths, opened, nothing_lost=nothing_lost, auth_off=auth_off)
        except BaseException:
            with suppress(DiskError):
                disk.remove_tree(paths.recovered)  # it may take as much space as the state
            raise
        finally:
            for close in (opened.store.close, opened.log.close, opened.vote.close):
                close()
        failpoints.reach("recover.built")
        exchange = _Exchange(is_aside=False, regained=regained)
        _write_exchange(disk, paths, exchange)
        failpoints.reach("recover.begun")
        return _exchange(disk, paths, exchange)


def begun(disk: Disk, data_dir: str) -> Regained | None:
    """What a recovery that was cut off was about to do; None when there is none. Raises `Corruption`."""
    paths = Paths(data_dir)
    return _read_exchange(disk, paths).regained if disk.exists(paths.recovering) else None


def _node_id(disk: Disk, paths: Paths) -> NodeId:
    found = load_founding(disk, paths.founding)
    if found is None:
        raise InvalidArgument(f"{paths.root} is no data directory of a node: {paths.founding} is missing")
    return found.owner.node_id


def _build(
    world: World, config: Config, paths: Paths, opened: Opened, *, nothing_lost: bool, auth_off: bool
) -> Regained:
    """Build the new content beside the old one, which is not changed."""
    view, founding = opened.view, opened.founding
    before, alone = _memberships(paths, opened)
    beginning = _beginning(world, opened, alone, nothing_lost=nothing_lost, auth_off=auth_off)
    build_directory(world, config, Paths(paths.recovered), beginning)
    return Regained(
        node_id=beginning.owner.node_id,
        cluster_name=founding.name,
        old_cluster_id=founding.cluster_id,
        new_cluster_id=beginning.owner.cluster_id,
        old_members=before,
        new_members=alone,
        applied_index=opened.store.applied.index,
        last_index=view.last_index,
        last_term=view.last_term,
        last_time_ms=view.last_time_ms,
        nothing_lost=nothing_lost,
        auth_off=auth_off,
        kept_in=posixpath.join(paths.root, _free(world.disk, paths.root)),
        done_ms=world.now_ms(),
    )


def _memberships(paths: Paths, opened: Opened) -> tuple[Membership, Membership]:
    """The old members, and the survivor as the only one. Raises `InvalidArgument`, `StateCorruption` when it can't be
    that."""
    view, node_id, applied = opened.view, opened.vote.identity.node_id, opened.store.applied
    before = placed(view.membership, opened.moved)
    own = before.member(node_id)
    if own is None:
        raise InvalidArgument(f"node {node_id} is no member itself ({before.describe()}): choose another survivor")
    if applied.index < view.start.index:
        raise StateCorruption(
            f"the state in {paths.state} has to come from another node first (its log begins behind {view.start.index}"
            f", the state is at {applied.index}): choose another survivor"
        )
    others = [each.node_id for each in before.members if each.node_id != node_id]
    alone = Membership(voters=(node_id,), members=(own,), removed=tuple(sorted({*before.removed, *others})))
    return before, alone


def _beginning(world: World, opened: Opened, alone: Membership, *, nothing_lost: bool, auth_off: bool) -> Beginning:
    """What the new cluster begins with: all that the survivor has, and entries that make it a cluster of its own."""
    view, store, old, applied = opened.view, opened.store, opened.founding, opened.store.applied
    (node_id,) = alone.voters
    lineage = Lineage(
        kind=RECOVERED,
        cluster_id=old.cluster_id,
        cluster_name=old.name,
        index=view.last_index,
        term=view.last_term,
        mark=world.nonce,
    )
    founders = Membership(voters=alone.voters, members=alone.members)
    cluster_id = cluster_id_of(old.name, founders, lineage)
    term = max(opened.vote.hard_state.term, view.last_term) + 1
    snapshot = _snapshot(opened, alone) if applied.index else None
    # Behind what is applied, the old cluster may have other entries in the place of the survivor's.
    common = view.last_index if nothing_lost else applied.index
    ends = _ends(view, term, alone, lineage_payload(old.cluster_id, common), auth_off=auth_off)
    return Beginning(
        owner=Identity(cluster_id=cluster_id, node_id=node_id, incarnation=world.nonce),
        founding=Founding(
            cluster_id=cluster_id, membership=founders, name=old.name, machine=old.machine, lineage=lineage
        ),
        hard_state=HardState(term=term, vote=node_id),
        snapshot=snapshot,
        fill=lambda draft: _checkpoint(store, draft),
        entries=lambda: _entries(opened, applied.index + 1, ends),
    )


def _ends(view: LogView, term: Term, alone: Membership, origin: bytes, *, auth_off: bool) -> list[Entry]:
    """What it goes on from, and that it is the only member, behind all that it has; and lets everybody in, if that is
    wanted."""
    wanted = [(EntryKind.COMMAND, origin), (EntryKind.MEMBERSHIP, encode_membership(alone))]
    if auth_off:
        wanted.append((EntryKind.COMMAND, access_payload(TurnOff())))
    ends, chain = list[Entry](), view.last_chain
    for index, (kind, payload) in enumerate(wanted, view.last_index + 1):
        ends.append(make_entry(index, term, view.last_time_ms, kind, payload, chain))
        chain = ends[-1].chain
    return ends


def _snapshot(opened: Opened, alone: Membership) -> SnapshotMeta:
    applied = opened.store.applied
    return SnapshotMeta(
        index=applied.index,
        term=applied.term,
        chain=opened.view.chain(applied.index),
        time_ms=applied.time_ms,
        membership=alone,
        digest=applied.digest,
    )


def _checkpoint(store: Store, draft: str) -> None:
    store.flush()
    store.freeze()
    try:
        store.checkpoint(draft)
    finally:
        store.thaw()


def _entries(opened: Opened, first: Index, ends: list[Entry]) -> Iterator[list[Entry]]:
    """The survivor's own entries behind its state, committed or not, and those of the new cluster."""
    while first < ends[0].index:
        entries = opened.log.load(first, ends[0].index - 1, _CHUNK_BYTES)
        yield entries
        first = entries[-1].index + 1
    yield ends


def _free(disk: Disk, root: str) -> str:
    """A name for the old content that is not taken by that of an earlier recovery."""
    names, number = disk.listdir(root), 1
    while f"{ASIDE}{number}" in names:
        number += 1
    return f"{ASIDE}{number}"


def _exchange(disk: Disk, paths: Paths, exchange: _Exchange) -> Regained:
    """Exchange the old content for the new one; each step may be repeated after a crash."""
    regained = exchange.regained
    aside = posixpath.join(paths.root, posixpath.basename(regained.kept_in))
    if not exchange.is_aside:
        disk.mkdir(aside)
        for name in disk.listdir(paths.root):
            if not _stays(name):
                disk.rename(posixpath.join(paths.root, name), posixpath.join(aside, name))
        disk.sync_dir(aside)
        disk.sync_dir(paths.root)
        failpoints.reach("recover.aside")
        _write_exchange(disk, paths, msgspec.structs.replace(exchange, is_aside=True))
    new = Paths(paths.recovered)
    for name in disk.listdir(paths.recovered) if disk.is_dir(paths.recovered) else []:
        disk.rename(posixpath.join(paths.recovered, name), posixpath.join(paths.root, name))
    if not disk.exists(paths.founding):
        raise Corruption(
            f"{new.founding} is missing: what was built there was removed. The old content is in {aside}: remove "
            f"{paths.recovering}, move it back, and begin again"
        )
    disk.sync_dir(paths.root)
    disk.remove_tree(paths.recovered)
    number = posixpath.basename(aside).removeprefix(ASIDE)
    report = posixpath.join(paths.root, f"{REPORT}{number}")
    disk.write_atomic(report + ".json", msgspec.json.format(msgspec.json.encode(regained)) + b"\n")
    failpoints.reach("recover.placed")
    disk.remove(paths.recovering)
    disk.sync_dir(paths.root)
    return regained


def _stays(name: str) -> bool:
    """What is no part of the node's content."""
    return name in ("LOCK", "recovering", "recovered.new") or name.startswith((ASIDE, REPORT))


def _read_exchange(disk: Disk, paths: Paths) -> _Exchange:
    try:
        return msgspec.json.decode(disk.read_bytes(paths.recovering), type=_Exchange)
    except msgspec.MsgspecError as exc:
        raise Corruption(
            f"{paths.recovering} can't be read ({exc}), so it is not known how far the recovery is. The old content is "
            f"in {paths.root} or in the newest {ASIDE}… in it: put it together elsewhere, and recover that"
        ) from exc


def _write_exchange(disk: Disk, paths: Paths, exchange: _Exchange) -> None:
    disk.write_atomic(paths.recovering, msgspec.json.encode(exchange))
