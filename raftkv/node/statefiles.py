"""The applied state on disk: which node it belongs to, whether it is sound, and how it is rebuilt when it is not.

The state is a RocksDB database. The file `OWNER` beside its files says in which data directory it was made. Another
node's state is refused, but not removed; a lost or damaged one is rebuilt from a snapshot and the log.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable

from raftkv import failpoints
from raftkv.core.log import LogView
from raftkv.disk import Disk
from raftkv.errors import (
    Corruption,
    DiskError,
    Diverged,
    NoAgreement,
    NodeStopped,
    SafetyViolation,
    StateCorruption,
    WrongDataDir,
)
from raftkv.log import Identity, load_owned, save_owned
from raftkv.logs import EventLog
from raftkv.model import Index, SnapshotMeta
from raftkv.node.paths import Options, Paths
from raftkv.node.world import World
from raftkv.snapshot import SnapshotStore
from raftkv.state import OWNER_FILE, Store

logger = EventLog(__name__)

_DIVERGED = "diverged"
_NO_AGREEMENT = re.compile(r"no agreement after (\d+): ", re.ASCII)
_MAGIC = b"RKVowns\n"

failpoints.declare(
    __name__,
    {
        "install.state_linked": "a snapshot's state is beside the old one",
        "install.state_aside": "the old state was moved away, and there is none",
        "install.state_renamed": "the new state is in its place, and that is not durable",
        "install.before_removal": "the new state is in its place durably, and the old one is still there",
        "install.opened": "the new state is open, and not looked at",
    },
    raises=DiskError,
)


def check_state_owner(disk: Disk, paths: Paths, owner: Identity) -> None:
    """Raises `WrongDataDir` when the state was made in another data directory; nothing of it is opened."""
    try:
        found = load_owned(disk, _owner_path(paths.state), _MAGIC, bool)
    except Corruption:
        return  # then it is damaged, and rebuilt
    if found is not None and not found.owner.is_same(owner):
        raise WrongDataDir(
            f"the state in {paths.state} belongs to {found.owner.describe()}, but this directory is that of "
            f"{owner.describe()}: it was brought here from elsewhere, and was not opened. Put this node's own back, or "
            "move this one away: then the state is rebuilt from a snapshot and the log"
        )


def _owner_path(directory: str) -> str:
    return posixpath.join(directory, OWNER_FILE)


def _new_state(world: World, paths: Paths, owner: Identity) -> Store:
    """Make an empty state. `OWNER` is written first, so there is never a state without it."""
    world.disk.mkdir(paths.state)
    save_owned(world.disk, _owner_path(paths.state), _MAGIC, owner, True)
    return world.states.open(paths.state)


def open_state(
    options: Options,
    world: World,
    paths: Paths,
    snapshots: SnapshotStore,
    view: LogView,
    owner: Identity,
) -> Store:
    """Open the state. If it is missing, behind or damaged, rebuild it from local files as far as possible."""
    states, disk = world.states, world.disk
    leftovers = [path for path in (paths.new_state, paths.old_state) if disk.is_dir(path)]
    was_there = disk.is_dir(paths.state)
    for leftover in leftovers:
        disk.remove_tree(leftover)
    needed = view.start.index
    if (found := _NO_AGREEMENT.match(mark := _read_mark(disk, paths) or "")) is not None:
        agreed = int(found[1])
        if not options.rebuild:
            raise NoAgreement(mark[found.end() :], agreed)
        return _state_before(agreed, world, paths, snapshots, needed, owner)
    # No snapshot is ahead of the state that it was made of. If one is, the state was lost, even if an empty one opens.
    newest = max((snapshot.index for snapshot in snapshots.list()), default=0)
    try:
        return _open_sound_state(options, world, paths, max(needed, newest), owner)
    except _StateBehind as exc:
        if _is_install_cut_off(exc.applied if was_there else None, needed, newest, bool(leftovers)):
            logger.warning("install_resumed", snapshot=newest, reason="it was cut off by a crash; nothing is lost")
        else:
            _say_damaged(exc)
    except StateCorruption as exc:
        _say_damaged(exc)
    # It is not known since when a state that has diverged was wrong, so its snapshots can't be trusted either.
    distrusted = snapshots.list() if (_read_mark(disk, paths) or "").startswith(_DIVERGED) else []
    for candidate in reversed(snapshots.list()):
        if candidate.index < needed or distrusted:
            break
        try:
            snapshots.verify(candidate)
            store = restore_state(world, paths, snapshots, candidate, owner)
            _unmark(disk, paths)
            return store
        except Corruption as exc:
            # Else this node would refuse a leader's offer of the same snapshot, because it seems to have it.
            snapshots.mark_damaged(candidate, str(exc))
            logger.error("snapshot_damaged", index=candidate.index, error=str(exc))
    states.destroy(paths.state)
    if needed == 0 or options.rebuild or options.config.rebuild_damaged_state:
        # A log that is complete is replayed. Otherwise the core asks the leader for a snapshot, and neither leads nor
        # applies anything before it has arrived.
        for candidate in distrusted:
            snapshots.drop(candidate)  # for good: a later start would not know of it any more
        _unmark(disk, paths)
        return _new_state(world, paths, owner)
    raise StateCorruption(
        f"the state in {paths.state} is damaged or missing, and so is every local snapshot that the log "
        f"(from entry {needed + 1}) could continue. Nothing is lost as long as the other nodes have it: "
        "start this node with --rebuild, and it gets a snapshot from a peer."
    )


def _state_before(
    agreed: Index, world: World, paths: Paths, snapshots: SnapshotStore, needed: Index, owner: Identity
) -> Store:
    """The state from when a majority agreed, for the log to continue. Until that is there, nothing is given up.

    No replica's state is known to be right, so no peer's is taken instead. Raises `NoAgreement` when the log does not
    reach back so far.
    """
    base = None
    for candidate in reversed(snapshots.list()):
        if needed <= candidate.index <= agreed:
            try:
                snapshots.verify(candidate)
            except Corruption as exc:
                snapshots.mark_damaged(candidate, str(exc))
                logger.error("snapshot_damaged", index=candidate.index, error=str(exc))
            else:
                base = candidate
                break
    if base is None and needed > 0:
        raise NoAgreement(
            f"no state has a majority, and this node can't make its own anew: its log begins behind entry {needed}, "
            f"and it has no snapshot from there up to entry {agreed}, where a majority agreed for the last time. "
            "Nothing was changed. Start the others with --rebuild; when a majority of them serves, remove this node, "
            "and add it under a new id with an empty directory",
            agreed,
        )
    for snapshot in snapshots.list():
        if snapshot.index > agreed:
            snapshots.drop(snapshot)
    if base is not None:
        store = restore_state(world, paths, snapshots, base, owner)
    else:
        world.states.destroy(paths.state)
        store = _new_state(world, paths, owner)
    logger.warning("state_made_anew", since=store.applied.index, agreed=agreed)
    _unmark(world.disk, paths)
    return store


def _say_damaged(error: StateCorruption) -> None:
    logger.error("state_damaged", error=str(error), action="rebuilding it from the newest local snapshot")


class _StateBehind(StateCorruption):
    """The state is sound, but lacks entries that it should have applied."""

    def __init__(self, text: str, applied: Index) -> None:
        super().__init__(text)
        self.applied = applied


def _is_install_cut_off(applied: Index | None, start: Index, newest: Index, left: bool) -> bool:
    """Whether a state that is behind was about to be replaced by a snapshot when the node crashed.

    `applied` is the state's index, None without a state; `left` says whether an old state was moved aside. A leader's
    snapshot is ahead of the state until it is installed (`Installing._install`), which moves the old state aside
    first. A state that was lost leaves nothing behind, and opens as an empty one. An empty state is fine only in a new
    node, whose log begins with the snapshot.
    """
    if applied is None:
        return left
    return newest > applied > 0 or (applied == 0 and start == newest)


def _open_sound_state(options: Options, world: World, paths: Paths, needed: Index, owner: Identity) -> Store:
    """Open the state on disk. Raises `StateCorruption` if it is damaged, or has applied fewer than `needed` entries."""
    if (reason := _read_mark(world.disk, paths)) is not None:
        raise StateCorruption(reason)
    if not world.disk.is_dir(paths.state) or not world.disk.listdir(paths.state):
        store = _new_state(world, paths, owner)
    else:
        _check_says_whose_it_is(world.disk, paths)
        store = world.states.open(paths.state)
    try:
        if store.applied.index < needed:
            applied = store.applied.index
            raise _StateBehind(f"{paths.state} has applied {applied}, but {needed} entries were before", applied)
        if options.rebuild:
            store.verify()
    except BaseException:
        give_up(store.close)
        raise
    return store


def give_up(close: Callable[[], None]) -> None:
    """Close what can't be used. Should that fail as well, it must not hide why."""
    try:
        close()
    except NodeStopped as exc:
        logger.warning("not_closed", error=str(exc))


def _check_says_whose_it_is(disk: Disk, paths: Paths) -> None:
    """Raises `StateCorruption` when the state's `OWNER` is missing or damaged."""
    try:
        found = load_owned(disk, _owner_path(paths.state), _MAGIC, bool)
    except Corruption as exc:
        raise StateCorruption(f"{paths.state} does not say whose it is: {exc}") from exc
    if found is None:
        raise StateCorruption(f"{paths.state} does not say whose it is: {OWNER_FILE} is missing")


def mark_unfit(disk: Disk, paths: Paths, error: StateCorruption | Diverged) -> None:
    """Write down that the state must be rebuilt at the next start, and why. Blocking; durable on return."""
    kind = _DIVERGED if isinstance(error, Diverged) else "damaged"
    if isinstance(error, NoAgreement):
        kind = f"no agreement after {error.agreed_index}"
    disk.write_atomic(paths.unfit_state, f"{kind}: {error}".encode())


def _read_mark(disk: Disk, paths: Paths) -> str | None:
    """Why the state must be rebuilt; None if it need not be."""
    if not disk.exists(paths.unfit_state):
        return None
    return disk.read_bytes(paths.unfit_state).decode("utf-8", "replace")


def _unmark(disk: Disk, paths: Paths) -> None:
    """Remove the mark, after the damaged state was replaced. Durable on return."""
    if disk.exists(paths.unfit_state):
        disk.remove(paths.unfit_state)
        disk.sync_dir(paths.root)


def restore_state(
    world: World, paths: Paths, snapshots: SnapshotStore, snapshot: SnapshotMeta, owner: Identity
) -> Store:
    """Replace the state, which must not be open, by the snapshot's. Blocking.

    A crash leaves the old state or none, and the next start repeats this. Verify the snapshot first, unless it has
    just been received. Raises `SnapshotCorruption` when a file is missing, `StateCorruption`, `DiskError`.
    """
    disk, states = world.disk, world.states
    if disk.is_dir(paths.new_state):
        disk.remove_tree(paths.new_state)
    snapshots.link_to(snapshot, paths.new_state)
    save_owned(disk, _owner_path(paths.new_state), _MAGIC, owner, True)
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
        give_up(store.close)
        raise SafetyViolation(
            f"the snapshot at {snapshot.id} holds the state at {found.index} with digest {found.digest:016x} "
            f"instead of {snapshot.digest:016x}: keep the files and report it"
        )
    return store
