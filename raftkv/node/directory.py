"""A node's data directory: found it, join with it, recover from it. What is doubtful is refused, never guessed."""

from __future__ import annotations

import posixpath

import msgspec

from raftkv import failpoints
from raftkv.config import Config
from raftkv.core.log import LogView
from raftkv.disk import Disk
from raftkv.disk import Lock as DirectoryLock
from raftkv.errors import ConfigError, Corruption, DiskError, Diverged, SafetyViolation, StateCorruption, WrongDataDir
from raftkv.log import Identity, Log, VoteFile
from raftkv.logs import EventLog
from raftkv.model import HardState, Index, LogStart, Member, Membership, NodeId, SnapshotMeta
from raftkv.node.identity import (
    DEFAULT_NAME,
    FORMAT,
    Founding,
    cluster_id_of,
    founding_membership,
    load_founding,
    save_founding,
)
from raftkv.node.starts import load_starts, record_start
from raftkv.node.world import World
from raftkv.snapshot import SnapshotStore
from raftkv.state import Store

logger = EventLog("raftkv")

_DIVERGED = "diverged"


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """Who this node is and where it keeps its data."""

    node_id: NodeId
    data_dir: str
    members: tuple[Member, ...] = ()
    """The founders of a new cluster, the same on each of them; empty for a node that joins one."""
    cluster_name: str = ""
    """Empty: as in the directory, and `DEFAULT_NAME` for a new cluster."""
    peer_address: str = ""
    """Where other nodes reach this one; for a node that joins, so that those who dial it can be answered."""
    client_address: str = ""
    """Where it listens for clients; empty where that is not known."""
    rebuild: bool = False
    """Rebuild a damaged state from a peer's snapshot, if there is no good one here."""
    config: Config = Config()


class Opened(msgspec.Struct, kw_only=True):
    """An open data directory, with everything recovered."""

    lock: DirectoryLock
    vote: VoteFile
    log: Log
    view: LogView
    snapshots: SnapshotStore
    snapshot: SnapshotMeta | None
    store: Store
    founding: Founding
    starts: list[tuple[int, str]]
    """Of this directory, this one last."""


class Paths:
    """Where things are in a data directory."""

    def __init__(self, data_dir: str) -> None:
        self.root = data_dir
        self.lock = posixpath.join(data_dir, "LOCK")
        self.founding = posixpath.join(data_dir, "cluster")
        self.vote = posixpath.join(data_dir, "vote")
        self.peers = posixpath.join(data_dir, "peers")
        self.starts = posixpath.join(data_dir, "starts")
        self.log = posixpath.join(data_dir, "log")
        self.snapshots = posixpath.join(data_dir, "snapshots")
        self.state = posixpath.join(data_dir, "state")
        self.new_state = posixpath.join(data_dir, "state.new")
        self.old_state = posixpath.join(data_dir, "state.old")
        self.unfit_state = posixpath.join(data_dir, "state.unfit")


def is_new(disk: Disk, paths: Paths) -> bool:
    """Whether to open the directory would be to found a cluster, or to join one."""
    return not disk.exists(paths.founding)


def open_directory(options: Options, world: World) -> Opened:
    """Open a data directory, or make it. Blocking; raises a `NodeStopped` that says what to do, or `ConfigError`."""
    disk, paths = world.disk, Paths(options.data_dir)
    _found(options)  # what is wrong with it is to be said before anything is made
    try:
        disk.mkdir(paths.root)
    except FileNotFoundError as exc:
        raise DiskError(f"{paths.root} can't be made: {exc}") from exc
    lock = disk.lock(paths.lock)
    try:
        return _open_locked(options, world, paths, lock)
    except BaseException:
        lock.release()
        raise


def close_directory(opened: Opened) -> None:
    """Close everything again, so that it can be opened anew. Blocking."""
    opened.store.close()
    opened.log.close()
    opened.vote.close()
    opened.lock.release()


def _open_locked(options: Options, world: World, paths: Paths, lock: DirectoryLock) -> Opened:
    disk, config = world.disk, options.config
    founding, vote = _open_identity(options, world, paths)
    snapshots = SnapshotStore.open(disk, paths.snapshots)
    snapshot = snapshots.latest()
    log, view = _open_log(disk, paths, config, vote, founding, snapshot)
    if view.last_index > view.start.index and view.last_term > vote.hard_state.term:
        # The vote file is always written first (`Writer`), so it knew of that term once.
        raise Corruption(
            f"{paths.vote} is an older copy: it knows of term {vote.hard_state.term}, but {paths.log} has an entry of "
            f"term {view.last_term}. Remove this node from the cluster and add it under a new id."
        )
    if snapshot is not None and not _log_agrees(view, snapshot):
        # A crash between publishing a snapshot that came from the leader and cutting the log: finish the job.
        state, last_index = vote.hard_state, view.last_index
        if state.term < snapshot.term:
            # The snapshot became durable before the term that this node had heard of with it, so in that term it has
            # not voted: a vote is told only when it is durable.
            state = HardState(term=snapshot.term)
        vote.write(state, min(vote.durable_index, snapshot.index))
        log.reset(snapshot.log_start)
        view.reset(snapshot.log_start, snapshot.membership)
        logger.warning("log_reset_to_snapshot", index=snapshot.index, last_index=last_index)
    if view.start.index > 0 and (snapshot is None or snapshot.index < view.start.index):
        _membership_is_lost(options, world, paths, view.start.index)
    store = _open_state(options, world, paths, snapshots, view)
    if snapshot is not None and view.start.index <= store.applied.index < snapshot.index:
        # It has turned out to be damaged, as the state was: the log is whole, and all of it is applied again.
        older = [each for each in snapshots.list() if each.index <= store.applied.index]
        snapshot = older[-1] if older else None
    if store.applied.index > view.last_index:
        raise Corruption(
            f"the state in {paths.state} has applied {store.applied.index} entries, but the log ends at "
            f"{view.last_index}: entries are missing. Remove this node from the cluster and add it under a new id."
        )
    failpoints.reach("start.recovered")
    return Opened(
        lock=lock,
        vote=vote,
        log=log,
        view=view,
        snapshots=snapshots,
        snapshot=snapshot,
        store=store,
        founding=founding,
        starts=record_start(disk, paths.starts, vote.boot, world.nonce),
    )


# ---------------------------------------------------------------------------- who this is


def _open_identity(options: Options, world: World, paths: Paths) -> tuple[Founding, VoteFile]:
    disk = world.disk
    founding = load_founding(disk, paths.founding)
    if founding is None:
        if disk.exists(paths.vote) or disk.is_dir(paths.log):
            raise Corruption(
                f"{paths.founding} is missing although {paths.root} has data. "
                "Remove this node from the cluster and add it under a new id."
            )
        founding = _found(options)
        save_founding(disk, paths.founding, founding)
    elif options.cluster_name and not founding.is_called(options.cluster_name):
        raise WrongDataDir(
            f"{paths.root} belongs to the cluster {founding.name or founding.cluster_id}, which is not called "
            f"{options.cluster_name!r}. Give the name that it was founded with, or none, or another data directory."
        )
    elif options.members and founding.membership.voters:
        name = options.cluster_name or founding.name or DEFAULT_NAME
        expected = cluster_id_of(name, founding_membership(options.members))
        if expected != founding.cluster_id:
            raise WrongDataDir(
                f"{paths.root} belongs to the cluster {founding.cluster_id}, the members given make {expected}. "
                "Give the same members as at the first start, or none, or another data directory."
            )
    if disk.exists(paths.vote):
        vote = VoteFile.open(disk, paths.vote)
    else:
        if disk.is_dir(paths.log) and disk.listdir(paths.log):
            raise Corruption(
                f"{paths.vote} is missing although {paths.log} has entries: the vote is not known any more. "
                "Remove this node from the cluster and add it under a new id."
            )
        identity = Identity(cluster_id=founding.cluster_id, node_id=options.node_id, incarnation=world.nonce)
        vote = VoteFile.create(disk, paths.vote, identity, HardState())
    if vote.identity.node_id != options.node_id:
        raise WrongDataDir(
            f"{paths.root} belongs to node {vote.identity.node_id}, not to node {options.node_id}: "
            "give the right id or another data directory"
        )
    _check_vote_is_newest(disk, paths, vote)
    vote.new_boot()
    failpoints.reach("start.counted")
    return founding, vote


def _check_vote_is_newest(disk: Disk, paths: Paths, vote: VoteFile) -> None:
    """A start is counted in the vote file before it is recorded, so a record of a later one shows an older vote.

    It is looked at before this start is counted: else the vote would have caught up after a few tries.
    """
    starts = load_starts(disk, paths.starts)
    if starts and starts[-1][0] > vote.boot:
        raise Corruption(
            f"{paths.vote} is an older copy: it knows of {vote.boot} starts, {paths.starts} of {starts[-1][0]}. What "
            "this node voted since then is not known any more. Remove it from the cluster and add it under a new id."
        )


def _found(options: Options) -> Founding:
    if not options.members:
        return Founding(format=FORMAT, cluster_id="", membership=Membership(), name=options.cluster_name)
    membership = founding_membership(options.members)
    if membership.member(options.node_id) is None:
        raise ConfigError(
            f"members: node {options.node_id} is not among {[m.node_id for m in options.members]}; "
            "a node that joins a cluster later is started without members"
        )
    name = options.cluster_name or DEFAULT_NAME
    return Founding(format=FORMAT, cluster_id=cluster_id_of(name, membership), membership=membership, name=name)


# ---------------------------------------------------------------------------- log


def _open_log(
    disk: Disk, paths: Paths, config: Config, vote: VoteFile, founding: Founding, snapshot: SnapshotMeta | None
) -> tuple[Log, LogView]:
    view = LogView(membership=founding.membership)

    def begin(start: LogStart) -> None:
        # Where the log was compacted, the snapshot's membership is the one in force; newer ones are in the log.
        membership = founding.membership if start.index == 0 else Membership()
        if snapshot is not None and snapshot.index >= start.index:
            membership = snapshot.membership
        view.reset(start, membership)

    log = Log.open(
        disk,
        paths.log,
        segment_bytes=config.segment_bytes,
        cache_bytes=config.log_cache_bytes,
        durable_index=vote.durable_index,
        on_start=begin,
        on_entries=view.extend,
    )
    return log, view


def _membership_is_lost(options: Options, world: World, paths: Paths, start: Index) -> None:
    """No snapshot covers the log's beginning, so nobody here knows who the members were then.

    Who takes an old membership for the present one may elect a second leader with nodes that were removed. So
    the state goes too: a node without one does not campaign, and gets both with a snapshot from the leader.
    """
    if not (options.rebuild or options.config.rebuild_damaged_state):
        raise StateCorruption(
            f"every snapshot in {paths.snapshots} that covers the log's beginning (up to entry {start}) is damaged or "
            "missing, and with them the list of members. Nothing is lost as long as the other nodes have it: "
            "start this node with --rebuild, and it gets a snapshot from a peer."
        )
    world.states.destroy(paths.state)


def _log_agrees(view: LogView, snapshot: SnapshotMeta) -> bool:
    """Whether the log holds the snapshot's last entry, or begins behind it."""
    if view.start.index > snapshot.index:
        # Only what a newer snapshot covered is ever cut off; without it the state can't be rebuilt from here.
        return True
    return view.matches(snapshot.index, snapshot.term) and view.chain(snapshot.index) == snapshot.chain


# ---------------------------------------------------------------------------- state


def _open_state(
    options: Options,
    world: World,
    paths: Paths,
    snapshots: SnapshotStore,
    view: LogView,
) -> Store:
    """Open the state; when it is missing, behind or damaged, rebuild it from here as far as possible."""
    states, disk = world.states, world.disk
    leftovers = [path for path in (paths.new_state, paths.old_state) if disk.is_dir(path)]
    was_there = disk.is_dir(paths.state)
    for leftover in leftovers:
        disk.remove_tree(leftover)
    needed = view.start.index
    # No snapshot is ahead of the state that it was made of: then that has been lost, though it opens as an empty one.
    newest = max((snapshot.index for snapshot in snapshots.list()), default=0)
    try:
        return _open_sound_state(options, world, paths, max(needed, newest))
    except _StateBehind as exc:
        if _is_install_cut_off(exc.applied if was_there else None, needed, newest, bool(leftovers)):
            logger.warning("install_resumed", snapshot=newest, reason="it was cut off by a crash; nothing is lost")
        else:
            _say_damaged(exc)
    except StateCorruption as exc:
        _say_damaged(exc)
    if (_read_mark(disk, paths) or "").startswith(_DIVERGED):
        # Nobody knows since when it is wrong, so what was made of it is not to be trusted either.
        for candidate in snapshots.list():
            snapshots.mark_damaged(candidate, "it was made of a state that had diverged")
    for candidate in reversed(snapshots.list()):
        if candidate.index < needed:
            break
        try:
            snapshots.verify(candidate)
            store = restore_state(world, paths, snapshots, candidate)
            _unmark(disk, paths)
            return store
        except Corruption as exc:
            # Else it would be taken for the very one that a leader offers, and not be fetched again.
            snapshots.mark_damaged(candidate, str(exc))
            logger.error("snapshot_damaged", index=candidate.index, error=str(exc))
    states.destroy(paths.state)
    if needed == 0 or options.rebuild or options.config.rebuild_damaged_state:
        # With the whole log at hand it is replayed; else the core asks the leader for a snapshot, and neither
        # leads nor applies anything before it has come.
        _unmark(disk, paths)
        return states.open(paths.state)
    raise StateCorruption(
        f"the state in {paths.state} is damaged or missing, and so is every local snapshot that the log "
        f"(from entry {needed + 1}) could continue. Nothing is lost as long as the other nodes have it: "
        "start this node with --rebuild, and it gets a snapshot from a peer."
    )


def _say_damaged(error: StateCorruption) -> None:
    logger.error("state_damaged", error=str(error), action="rebuilding it from the newest local snapshot")


class _StateBehind(StateCorruption):
    """It is sound, but entries that it should have applied are missing."""

    def __init__(self, text: str, applied: Index) -> None:
        super().__init__(text)
        self.applied = applied


def _is_install_cut_off(applied: Index | None, start: Index, newest: Index, left: bool) -> bool:
    """Whether a state that has too little (`applied`, None when there is none) was about to be replaced.

    A snapshot that came from a leader is ahead of the state until it is installed (`Snapshotter._install`), which
    moves the old state aside, and leaves that. What was lost leaves nothing, and opens as an empty state: that is a
    new node's only when its log begins with the snapshot.
    """
    if applied is None:
        return left
    return newest > applied > 0 or (applied == 0 and start == newest)


def _open_sound_state(options: Options, world: World, paths: Paths, needed: Index) -> Store:
    """The state as it is on disk. Raises `StateCorruption` when it is damaged, or has not `needed` entries applied."""
    if (reason := _read_mark(world.disk, paths)) is not None:
        raise StateCorruption(reason)
    store = world.states.open(paths.state)
    try:
        if store.applied.index < needed:
            applied = store.applied.index
            raise _StateBehind(f"{paths.state} has applied {applied}, but {needed} entries were before", applied)
        if options.rebuild:
            store.verify()
    except BaseException:
        store.close()
        raise
    return store


def mark_unfit(disk: Disk, paths: Paths, error: StateCorruption | Diverged) -> None:
    """Remember over restarts that the state must be rebuilt, and why. Blocking; durable on return."""
    kind = _DIVERGED if isinstance(error, Diverged) else "damaged"
    disk.write_atomic(paths.unfit_state, f"{kind}: {error}".encode())


def _read_mark(disk: Disk, paths: Paths) -> str | None:
    """Why the state must be rebuilt; None when it need not."""
    if not disk.exists(paths.unfit_state):
        return None
    return disk.read_bytes(paths.unfit_state).decode("utf-8", "replace")


def _unmark(disk: Disk, paths: Paths) -> None:
    """The damaged state is gone, durably."""
    if disk.exists(paths.unfit_state):
        disk.remove(paths.unfit_state)
        disk.sync_dir(paths.root)


def restore_state(world: World, paths: Paths, snapshots: SnapshotStore, snapshot: SnapshotMeta) -> Store:
    """Replace the state, which must not be open, by `snapshot`'s. Blocking.

    A crash leaves the old state or none, and then this is repeated. Who has not just received the snapshot
    verifies it first. Raises `SnapshotCorruption` when a file is missing, `StateCorruption`, `DiskError`.
    """
    disk, states = world.disk, world.states
    if disk.is_dir(paths.new_state):
        disk.remove_tree(paths.new_state)
    snapshots.link_to(snapshot, paths.new_state)
    failpoints.reach("install.state_linked")
    if disk.is_dir(paths.state):
        disk.rename(paths.state, paths.old_state)
    failpoints.reach("install.state_aside")
    disk.rename(paths.new_state, paths.state)
    failpoints.reach("install.state_renamed")
    disk.sync_dir(paths.root)
    if disk.is_dir(paths.old_state):
        failpoints.reach("install.before_removal")
        disk.remove_tree(paths.old_state)
    store = states.open(paths.state)
    failpoints.reach("install.opened")
    if store.applied.index != snapshot.index or store.applied.digest != snapshot.digest:
        found = store.applied
        store.close()
        raise SafetyViolation(
            f"the snapshot at {snapshot.id} holds the state at {found.index} with digest {found.digest:016x} "
            f"instead of {snapshot.digest:016x}: keep the files and report it"
        )
    return store
