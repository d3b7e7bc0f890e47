"""A node's data directory: to found a cluster with, to join one with, to recover from. Doubtful files are refused.

The table says what happens to a file that should not be there. A *foreign* file is from a node of another cluster, a
*copied* one from another node of this cluster; *older* and *newer* ones are this node's own, of another time.
`tests/node/test_belongings.py` reads this table and tries each cell.

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

- wrong, corrupt, format: the node does not start (`WrongDataDir`, `Corruption`, `FormatError`), and the file is left
  as it was.
- members: the membership where the log begins is not known here. The node does not start unless it is told to get a
  snapshot from a peer (`--rebuild`).
- ignored: the node starts without using the file, leaves it there, and says so in its log and status.
- rebuilt: the state is made anew from one of this node's snapshots and the log; after a stop without agreement
  (`NoAgreement`) only when an operator says so (`--rebuild`), and from before the replicas differed.
- used: nothing is lost. An older state catches up from the log. Older `starts` are noticed by peers that have met later
  ones. Missing `peers` or `receipts` are begun anew; without receipts, a snapshot counts if the log has its entry. An
  older or newer `cluster` says the same, as long as the node has not joined a cluster in between.
- while there is a file `recovering`, the node does not start: the old content is being exchanged (see
  `raftkv.node.recovering`).
- removed, kept: leftovers of work that a crash cut off; they are never believed. Files that a transfer left are used
  one by one, if they have the checksums that a leader names.

What is not noticed here: the log was replaced by an older one that still reaches as far as the vote file says. The vote
file learns how far the log reaches when the node stops, with each vote, and every 10,000 entries. A leader to which the
node had acknowledged more notices it then (see `met`).
"""

from __future__ import annotations

import posixpath
from collections.abc import Sequence
from contextlib import ExitStack

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
from raftkv.node.live import LiveSettings, load_settings
from raftkv.node.paths import Options, Paths
from raftkv.node.peers.met import load_known
from raftkv.node.peers.moved import Moved, load_moved, moved, save_moved
from raftkv.node.starts import begin_starts, load_starts, record_start
from raftkv.node.statefiles import check_state_owner, give_up, open_state
from raftkv.node.world import World
from raftkv.snapshot import Receipts, SnapshotStore
from raftkv.state import Store
from raftkv.wire import Acquaintance

logger = EventLog(__name__)

_START_OVER = "Remove this node from the cluster and add it under a new id."


def unfinished_text(root: str) -> str:
    """What to say of a directory in which a recovery was cut off."""
    return (
        f"a recovery of {root} was begun and not finished, so it is neither the old node nor the new one: run the same "
        "command again (raftkv recover), and it goes on"
    )


failpoints.declare(
    __name__,
    {
        "start.counted": "a start is counted in the vote file, and not recorded",
        "start.recovered": "everything is recovered, and the start is not counted",
    },
    raises=DiskError,
)


class _Who(msgspec.Struct, kw_only=True):
    """What the small files say of the node that the directory belongs to; they agree with each other."""

    founding: Founding
    vote: VoteFile
    starts: list[tuple[int, str]]
    """Earlier starts, without the one under way."""
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
    """All starts of this directory that are remembered; the one under way comes last."""
    known: dict[NodeId, Acquaintance]
    """The peers that this node has met, as the file `peers` has them."""
    moved: Moved | None
    """Addresses that an operator has written (`raftkv member rewrite`) in place of the newest membership's."""
    live: LiveSettings


def is_new(disk: Disk, paths: Paths) -> bool:
    """Whether there is no data yet, so that a start founds a cluster or joins one."""
    return not disk.exists(paths.founding) and not disk.exists(paths.recovering)


def open_directory(options: Options, world: World) -> Opened:
    """Open a data directory, or make a new one. Blocking. Raises `ConfigError`, or a `NodeStopped` with what to do."""
    disk, paths = world.disk, Paths(options.data_dir)
    _found(options)  # raises what is wrong with the options, before anything is made
    _check_place(disk, paths.root)
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


def _check_place(disk: Disk, root: str) -> None:
    """Raises `ConfigError` where a file is in the way: that is no fault of the disk, and nothing is in doubt."""
    place = root
    while place != posixpath.dirname(place):
        if disk.exists(place):
            if not disk.is_dir(place):
                what = "it" if place == root else place
                raise ConfigError(
                    f"data_dir = {root!r}: {what} is a file: give the directory in which the node keeps its data, or "
                    "is to keep it if it is new"
                )
            return
        place = posixpath.dirname(place)


def close_directory(opened: Opened) -> None:
    """Close all files and release the lock, so that the directory can be opened again. Blocking.

    Raises `StateCorruption` or `DiskError` after all of that: the files are closed even so.
    """
    with ExitStack() as last_first:
        for close in (opened.lock.release, opened.vote.close, opened.log.close, opened.store.close):
            last_first.callback(close)


def _open_locked(options: Options, world: World, paths: Paths, lock: DirectoryLock) -> Opened:
    disk, config = world.disk, options.config
    if disk.exists(paths.recovering):
        raise WrongDataDir(unfinished_text(paths.root))
    who = _open_identity(options, world, paths)
    vote = who.vote
    addresses = load_moved(disk, paths.addresses, vote.identity)
    live = LiveSettings(
        config, options.given, load_settings(disk, paths.settings, vote.identity), lambda: vote.identity
    )
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
        if snapshot is not None and (
            snapshot not in snapshots.list() or view.start.index <= store.applied.index < snapshot.index
        ):
            # The snapshot has turned out to be damaged, like the state. The log is applied again if it is whole, and
            # if not, the leader sends a snapshot, which may be an older one than this was.
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
        give_up(store.close)
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
        live=live,
    )


def rewrite_addresses(options: Options, world: World, members: Sequence[Member]) -> Membership:
    """Give a node that does not run other addresses for its peers. Blocking; durable on return.

    The directory is opened and checked as for a start. Returns the membership with the new addresses. Raises
    `InvalidArgument`, and what `open_directory` raises.
    """
    disk, paths = world.disk, Paths(options.data_dir)
    if is_new(disk, paths):
        raise InvalidArgument(f"{paths.root} is no data directory of a node: there are no members to rewrite")
    opened = open_directory(options, world)
    try:
        view = opened.view
        if view.membership.member(options.node_id) is None:
            raise InvalidArgument(f"node {options.node_id} is no member itself ({view.membership.describe()})")
        # Addresses that were written earlier and are not in the log yet stay for the members that aren't named now.
        named = {each.node_id for each in members}
        before = opened.moved.members if opened.moved is not None else ()
        kept = [each for each in before if each.node_id not in named and view.membership.member(each.node_id)]
        found = moved(view.membership_index, view.membership, [*members, *kept])
        save_moved(disk, paths.addresses, opened.vote.identity, found)
        return found.applied_to(view.membership)
    finally:
        close_directory(opened)


def _open_identity(options: Options, world: World, paths: Paths) -> _Who:
    """Compare which node each small file says that it belongs to. Nothing is changed on disk before that."""
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
    """Read the file `cluster`, and compare it with the vote file's `identity` and with the operator's options."""
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
    """Raises `WrongDataDir` when the options name another cluster or state machine than the directory's."""
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
        expected = cluster_id_of(name, founding_membership(options.members), founding.lineage)
        if expected != founding.cluster_id and founding.lineage is not None:
            raise WrongDataDir(
                f"{paths.root} belongs to the cluster {founding.cluster_id}, {founding.lineage.describe()} with "
                f"{founding.membership.describe()}; the members given are others. Give those that it was made with "
                "then, or better none: the directory knows them"
            )
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
        # If the log was compacted, the members come from a snapshot, but only from one that fits to the log.
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
    """When the receipts are missing, accept each snapshot whose last entry is in the log."""
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
    """Raises `Corruption` when the vote file is older than the log, or the log lacks a snapshot's last entry."""
    if view.last_term > vote.hard_state.term:
        # The vote file is always written before the log (`Writer`), also when that begins anew behind a snapshot
        # (`_continue_from`, `Installing`), so it must have had that term once.
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
    """Take the members at the log's beginning from a snapshot; if the log does not agree with it, reset the log."""
    if _log_agrees(view, snapshot):
        if view.start.index > 0 and snapshot.index >= view.start.index:
            view.set_base(snapshot.membership)
        return
    # A crash between publishing a snapshot that came from the leader and cutting the log: finish the job.
    state, last_index = vote.hard_state, view.last_index
    if state.term < snapshot.term:
        # The snapshot became durable, and its term did not. So this node has not voted in that term: a vote is sent
        # only when it is durable.
        state = HardState(term=snapshot.term)
    vote.write(state, min(vote.durable_index, snapshot.index))
    log.reset(snapshot.log_start)
    view.reset(snapshot.log_start, snapshot.membership)
    logger.warning("log_reset_to_snapshot", index=snapshot.index, last_index=last_index)


def _check_state_is_of_log(paths: Paths, store: Store, view: LogView) -> None:
    """Raises `Corruption` when the state has applied entries that the log does not have."""
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
    """No snapshot covers the log's beginning, so the membership at that entry is not known.

    A node that went by an older membership might elect a second leader together with removed nodes. So the state is
    removed too: without a state the node does not campaign, and gets both in a snapshot from the leader.
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
    """Whether the log has the snapshot's last entry, or begins after it."""
    if view.start.index > snapshot.index:
        # The log was cut behind a newer snapshot. If that is gone, `_membership_is_lost` deals with it.
        return True
    return view.matches(snapshot.index, snapshot.term) and view.chain(snapshot.index) == snapshot.chain
