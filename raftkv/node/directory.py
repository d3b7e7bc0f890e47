"""A node's data directory: found it, join with it, recover from it. What is doubtful is refused, never guessed.

What happens to a file that should not be where it is. *Foreign* is from a node of another cluster, *copied* from
another node of this one, *older* and *newer* are this node's own of another time. `tests/node/test_belongings.py` reads
this table and tries each cell.

    file          | foreign | copied  | older   | newer   | missing | other version
    cluster       | wrong   | wrong   | used    | used    | corrupt | format
    vote          | wrong   | wrong   | corrupt | corrupt | corrupt | format
    starts        | wrong   | wrong   | used    | corrupt | corrupt | format
    peers         | wrong   | wrong   | used    | used    | used    | format
    receipts      | wrong   | wrong   | members | used    | used    | format
    log/MANIFEST  | wrong   | wrong   | corrupt | corrupt | corrupt | format
    log/SEGMENT   | wrong   | wrong   | corrupt | corrupt | corrupt | format
    log           | wrong   | wrong   | corrupt | corrupt | corrupt | format
    snapshots/NEW | ignored | ignored | used    | ignored | members | format
    snapshots     | members | members | members | used    | members | format
    state         | wrong   | wrong   | used    | corrupt | rebuilt | format
    state/OWNER   | wrong   | wrong   | used    | used    | rebuilt | format
    state.new     | removed | removed | removed | removed | used    | removed
    state.old     | removed | removed | removed | removed | used    | removed
    state.unfit   | rebuilt | rebuilt | rebuilt | rebuilt | used    | rebuilt
    tmp           | removed | removed | removed | removed | used    | removed
    staging       | kept    | kept    | kept    | kept    | used    | kept

- wrong, corrupt, format: the node does not start (`WrongDataDir`, `Corruption`, `FormatError`), and the file is
  as it was.
- members: nobody here can say who the members were where the log begins. The node does not start unless it is told to
  get a snapshot from a peer (`--rebuild`).
- ignored: the node starts, does not use it, leaves it there, and says so.
- rebuilt: the state is made anew from a snapshot of this node and the log.
- used: nothing is lost by it. An older state is caught up from the log; older `starts` are found out by the peers that
  met later ones; a missing record of peers or receipts is begun anew, and without receipts a snapshot counts if the log
  has its entry; an older or newer `cluster` says the same as long as the node has not joined another one since.
- removed, kept: leftovers of what a crash cut off, never believed. What a transfer left is used file by file, where the
  checksums are those that a leader names.

What this can't tell: the log was exchanged for an older one, and the vote file has not been told how far the newer one
reached. It is told at a node's end, with each vote, and every 10,000 entries. A leader to which the node had
acknowledged more tells (see `met`).
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from raftkv import failpoints
from raftkv.config import Config
from raftkv.core.log import LogView
from raftkv.disk import Disk
from raftkv.disk import Lock as DirectoryLock
from raftkv.errors import ConfigError, Corruption, DiskError, InvalidArgument, StateCorruption, WrongDataDir
from raftkv.log import Identity, Log, VoteFile
from raftkv.logs import EventLog
from raftkv.model import HardState, Index, LogStart, Member, Membership, NodeId, SnapshotMeta
from raftkv.node.identity import (
    DEFAULT_NAME,
    Founding,
    cluster_id_of,
    founding_membership,
    load_founding,
    save_founding,
)
from raftkv.node.paths import Options, Paths
from raftkv.node.peers.met import load_known
from raftkv.node.peers.moved import Moved, load_moved, moved, save_moved
from raftkv.node.starts import begin_starts, load_starts, record_start
from raftkv.node.statefiles import check_state_owner, open_state
from raftkv.node.world import World
from raftkv.snapshot import Receipts, SnapshotStore
from raftkv.state import Store
from raftkv.wire import Acquaintance

logger = EventLog("raftkv")

_START_OVER = "Remove this node from the cluster and add it under a new id."

failpoints.declare(
    __name__,
    {
        "start.counted": "a start is counted in the vote file, and not recorded",
        "start.recovered": "everything is recovered, and the start is not counted",
    },
    raises=DiskError,
)


class _Who(msgspec.Struct, kw_only=True):
    """Whose directory it is, as all of its small files say alike."""

    founding: Founding
    vote: VoteFile
    starts: list[tuple[int, str]]
    """Before this one."""
    known: dict[NodeId, Acquaintance]
    receipts: Receipts


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
    known: dict[NodeId, Acquaintance]
    """Whom this node has met."""
    moved: Moved | None
    """Addresses that replace those of the newest membership, if an operator has said so."""


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
    who = _open_identity(options, world, paths)
    vote = who.vote
    addresses = load_moved(disk, paths.addresses, vote.identity)
    snapshots = SnapshotStore.open(disk, paths.snapshots, who.receipts)
    log, view = _open_log(disk, paths, config, vote, who.founding)
    if who.receipts.is_missing:
        _admit_confirmed(snapshots, view, who.founding.cluster_id)
        who.receipts.begin()
    for reason in [*snapshots.damaged().values(), *snapshots.refused().values()]:
        logger.error("snapshot_refused", reason=reason)
    snapshot = snapshots.latest()
    _check_log_is_newest(paths, vote, snapshots, view, snapshot)
    if snapshot is not None:
        _continue_from(vote, log, view, snapshot)
    if view.start.index > 0 and (snapshot is None or snapshot.index < view.start.index):
        _membership_is_lost(options, world, paths, view.start.index)
    store = open_state(options, world, paths, snapshots, view, vote.identity)
    try:
        if snapshot is not None and view.start.index <= store.applied.index < snapshot.index:
            # It has turned out to be damaged, as the state was: the log is whole, and all of it is applied again.
            older = [each for each in snapshots.list() if each.index <= store.applied.index]
            snapshot = older[-1] if older else None
        _check_state_is_of_log(paths, store, view)
        if snapshot is not None and store.applied.index >= snapshot.index:
            snapshots.settle()
        failpoints.reach("start.recovered")
        vote.new_boot()
        failpoints.reach("start.counted")
        starts = record_start(disk, paths.starts, vote.identity, who.starts, vote.boot, world.nonce)
    except BaseException:
        store.close()
        raise
    return Opened(
        lock=lock,
        vote=vote,
        log=log,
        view=view,
        snapshots=snapshots,
        snapshot=snapshot,
        store=store,
        founding=who.founding,
        starts=starts,
        known=who.known,
        moved=addresses,
    )


def rewrite_addresses(options: Options, world: World, members: Sequence[Member]) -> Membership:
    """Let the node in this directory, which does not run, find the others at other addresses. Blocking; durable.

    The directory is opened as for a start, with all that this checks. Returns the membership with these addresses.
    Raises `InvalidArgument`, and what `open_directory` raises.
    """
    disk, paths = world.disk, Paths(options.data_dir)
    if is_new(disk, paths):
        raise InvalidArgument(f"{paths.root} is no data directory of a node: there are no members to rewrite")
    opened = open_directory(options, world)
    try:
        view = opened.view
        if view.membership.member(options.node_id) is None:
            raise InvalidArgument(f"node {options.node_id} is no member itself ({view.membership.describe()})")
        # What was said before and is not in the log yet goes on to count for those who are not named now.
        named = {each.node_id for each in members}
        before = opened.moved.members if opened.moved is not None else ()
        kept = [each for each in before if each.node_id not in named and view.membership.member(each.node_id)]
        found = moved(view.membership_index, view.membership, [*members, *kept])
        save_moved(disk, paths.addresses, opened.vote.identity, found)
        return found.applied_to(view.membership)
    finally:
        close_directory(opened)


def _open_identity(options: Options, world: World, paths: Paths) -> _Who:
    """Compare what the small files say of whose they are; nothing is changed before that."""
    disk = world.disk
    seen = VoteFile.look(disk, paths.vote)
    founding, owner = _open_founding(options, world, paths, seen.identity if seen is not None else None)
    starts = load_starts(disk, paths.starts, owner)
    known = load_known(disk, paths.peers, owner)
    receipts = Receipts.open(disk, paths.receipts, owner)
    check_state_owner(disk, paths, owner)
    if seen is None:
        if starts or (disk.is_dir(paths.log) and disk.listdir(paths.log)):
            raise Corruption(
                f"{paths.vote} is missing although {paths.root} has data: the vote is not known any more. {_START_OVER}"
            )
        # The vote file comes last: where it is, the others must be.
        begin_starts(disk, paths.starts, owner)
        receipts.begin()
        vote = VoteFile.create(disk, paths.vote, owner, HardState())
    else:
        if not disk.exists(paths.starts):
            raise Corruption(
                f"{paths.starts} is missing, so this directory can't be told from an older copy of it. {_START_OVER}"
            )
        if starts and starts[-1][0] > seen.boot:
            # A start is counted in the vote file before it is recorded, so a record of a later one shows an older vote.
            raise Corruption(
                f"{paths.vote} is an older copy: it knows of {seen.boot} starts, {paths.starts} of {starts[-1][0]}. "
                f"What this node voted since then is not known any more. {_START_OVER}"
            )
        vote = VoteFile.open(disk, paths.vote)
        vote.join(founding.cluster_id)
    return _Who(founding=founding, vote=vote, starts=starts, known=known, receipts=receipts)


def _open_founding(
    options: Options, world: World, paths: Paths, identity: Identity | None
) -> tuple[Founding, Identity]:
    """What the file `cluster` says, compared with the vote file's `identity` and with what the operator says."""
    disk = world.disk
    found = load_founding(disk, paths.founding)
    if found is None:
        if identity is not None or disk.is_dir(paths.log):
            raise Corruption(f"{paths.founding} is missing although {paths.root} has data. {_START_OVER}")
        founding = _found(options)
        owner = Identity(cluster_id=founding.cluster_id, node_id=options.node_id, incarnation=world.nonce)
        save_founding(disk, paths.founding, owner, founding)
        return founding, owner
    founding, owner = found.value, found.owner
    if identity is not None and not owner.is_same(identity):
        raise WrongDataDir(
            f"{paths.founding} belongs to {owner.describe()}, but {paths.vote} to {identity.describe()}: one of "
            f"the two was brought here from elsewhere, and nothing was changed. Put this node's own back; if that is "
            f"gone: {_START_OVER}"
        )
    if owner.node_id != options.node_id:
        raise WrongDataDir(
            f"{paths.root} belongs to node {owner.node_id}, not to node {options.node_id}: "
            "give the right id or another data directory"
        )
    if identity is not None and identity.cluster_id and not founding.cluster_id:
        raise Corruption(
            f"{paths.founding} is an older copy: this node had not joined the cluster {identity.cluster_id} then. "
            f"{_START_OVER}"
        )
    _check_options(options, paths, founding)
    return founding, owner


def _check_options(options: Options, paths: Paths, founding: Founding) -> None:
    """Raises `WrongDataDir` when the directory is of another cluster or state machine than the operator says."""
    if options.machine and founding.machine not in ("", options.machine):
        raise WrongDataDir(
            f"{paths.root} holds the data of the state machine {founding.machine}, not of {options.machine}, which "
            "would read them as something else. Give the right machine (--machine), or another data directory."
        )
    if options.cluster_name and not founding.is_called(options.cluster_name):
        raise WrongDataDir(
            f"{paths.root} belongs to the cluster {founding.name or founding.cluster_id}, which is not called "
            f"{options.cluster_name!r}. Give the name that it was founded with, or none, or another data directory."
        )
    if options.members and founding.membership.voters:
        name = options.cluster_name or founding.name or DEFAULT_NAME
        expected = cluster_id_of(name, founding_membership(options.members))
        if expected != founding.cluster_id:
            raise WrongDataDir(
                f"{paths.root} belongs to the cluster {founding.cluster_id}, the members given make {expected}. "
                "Give the same members as at the first start, or none, or another data directory."
            )


def _found(options: Options) -> Founding:
    if not options.members:
        return Founding(cluster_id="", membership=Membership(), name=options.cluster_name, machine=options.machine)
    membership = founding_membership(options.members)
    if membership.member(options.node_id) is None:
        raise ConfigError(
            f"members: node {options.node_id} is not among {[m.node_id for m in options.members]}; "
            "a node that joins a cluster later is started without members"
        )
    name = options.cluster_name or DEFAULT_NAME
    cluster_id = cluster_id_of(name, membership)
    return Founding(cluster_id=cluster_id, membership=membership, name=name, machine=options.machine)


def _open_log(disk: Disk, paths: Paths, config: Config, vote: VoteFile, founding: Founding) -> tuple[Log, LogView]:
    view = LogView(membership=founding.membership)

    def begin(start: LogStart) -> None:
        # Where the log was compacted a snapshot says who the members were, but only one that the log confirms.
        view.reset(start, founding.membership if start.index == 0 else Membership())

    log = Log.open(
        disk,
        paths.log,
        owner=vote.identity,
        segment_bytes=config.segment_bytes,
        cache_bytes=config.log_cache_bytes,
        durable_index=vote.durable_index,
        on_start=begin,
        on_entries=view.extend,
    )
    return log, view


def _admit_confirmed(snapshots: SnapshotStore, view: LogView, cluster_id: str) -> None:
    """Without a record of which snapshots are this node's, those count whose last entry stands in the log."""
    for sealed in snapshots.foreign():
        snapshot = sealed.manifest.snapshot
        is_here = view.start.index <= snapshot.index <= view.last_index
        if sealed.manifest.cluster_id == cluster_id and is_here and _log_agrees(view, snapshot):
            logger.warning(
                "snapshot_confirmed", index=snapshot.index, reason="its receipt is gone, the log has its entry"
            )
            snapshots.admit(sealed)


def _check_log_is_newest(
    paths: Paths, vote: VoteFile, snapshots: SnapshotStore, view: LogView, snapshot: SnapshotMeta | None
) -> None:
    """Raises `Corruption` when the vote file or a snapshot of this node knows of more than the log has."""
    if view.last_index > view.start.index and view.last_term > vote.hard_state.term:
        # The vote file is always written first (`Writer`), so it knew of that term once.
        raise Corruption(
            f"{paths.vote} is an older copy: it knows of term {vote.hard_state.term}, but {paths.log} has an entry of "
            f"term {view.last_term}. {_START_OVER}"
        )
    if snapshot is not None and not _log_agrees(view, snapshot) and not snapshots.has_arrived(snapshot):
        raise Corruption(
            f"{paths.log} does not have entry {snapshot.id}, of which this node took or installed the snapshot "
            f"{snapshots.path(snapshot)}: it ends at {view.last_id}, so it is an older log or "
            f"another one. {_START_OVER}"
        )


def _continue_from(vote: VoteFile, log: Log, view: LogView, snapshot: SnapshotMeta) -> None:
    """Let the log begin where a snapshot says that it does: who the members were then, and which entries are void."""
    if _log_agrees(view, snapshot):
        if view.start.index > 0 and snapshot.index >= view.start.index:
            view.set_base(snapshot.membership)
        return
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


def _check_state_is_of_log(paths: Paths, store: Store, view: LogView) -> None:
    """Raises `Corruption` when the state has applied what the log does not have."""
    applied = store.applied
    if applied.index > view.last_index:
        raise Corruption(
            f"the state in {paths.state} has applied {applied.index} entries, but the log ends at "
            f"{view.last_index}: entries are missing. {_START_OVER}"
        )
    if applied.index >= view.start.index and view.term(applied.index) != applied.term:
        raise Corruption(
            f"the state in {paths.state} has applied entry {applied.index}@{applied.term}, but {paths.log} has it of "
            f"term {view.term(applied.index)}: one of the two is not this node's. {_START_OVER}"
        )


def _membership_is_lost(options: Options, world: World, paths: Paths, start: Index) -> None:
    """No snapshot covers the log's beginning, so nobody here knows who the members were then.

    Who takes an old membership for the present one may elect a second leader with nodes that were removed. So
    the state goes too: a node without one does not campaign, and gets both with a snapshot from the leader.
    """
    if not (options.rebuild or options.config.rebuild_damaged_state):
        raise StateCorruption(
            f"every snapshot in {paths.snapshots} that covers the log's beginning (up to entry {start}) is damaged, "
            f"missing or without a receipt in {paths.receipts}, and with them the list of members. "
            "Nothing is lost as long as the other nodes have it: "
            "start this node with --rebuild, and it gets a snapshot from a peer."
        )
    world.states.destroy(paths.state)


def _log_agrees(view: LogView, snapshot: SnapshotMeta) -> bool:
    """Whether the log holds the snapshot's last entry, or begins behind it."""
    if view.start.index > snapshot.index:
        # Only what a newer snapshot covered is ever cut off; without it the state can't be rebuilt from here.
        return True
    return view.matches(snapshot.index, snapshot.term) and view.chain(snapshot.index) == snapshot.chain
