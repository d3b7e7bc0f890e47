"""Looks at a data directory: whose it is, who uses it, and what a start of its node would come to. Nothing changes."""

from __future__ import annotations

import os

import msgspec

from raftkv import logs
from raftkv.config import Config
from raftkv.disk import Disk, DiskSpace, RealDisk
from raftkv.doctor.evidence import DirectorySeen, Event, Trial
from raftkv.doctor.shadow import MadeAnew, ShadowDisk, ShadowStates
from raftkv.errors import DataDirLocked, InvalidArgument, NodeStopped, RaftKVError
from raftkv.extras import needs
from raftkv.log import Identity, VoteFile
from raftkv.node.directory import close_directory, open_directory
from raftkv.node.identity import load_founding
from raftkv.node.paths import Options, Paths
from raftkv.node.recovering import ASIDE, REPORT
from raftkv.node.watchdog import DiskWatch
from raftkv.node.world import World
from raftkv.state import States

LEFT_OVER = (".tmp", ".log")
"""How a name may end that is at home there all the same: half of a small file, and what a node has printed."""


def examine(directory: str) -> DirectorySeen:
    """Look at one directory. Raises `InvalidArgument` when there is none."""
    if not os.path.isdir(directory):
        raise InvalidArgument(f"{directory!r}: there is no such directory")
    path = os.path.abspath(directory)
    paths, disk = Paths(path), RealDisk()
    own = {name for name in map(os.path.basename, vars(paths).values()) if name} - {os.path.basename(path)}
    names = set(disk.listdir(path))
    space, reserve = _room(disk, path)
    seen = DirectorySeen(
        path=path,
        has_data=bool(names & (own - {"LOCK"})),
        strangers=tuple(sorted(name for name in names - own if not _is_at_home(name))),
        has_addresses=disk.exists(paths.addresses),
        free_bytes=space.free_bytes,
        total_bytes=space.total_bytes,
        reserve_bytes=reserve,
        filesystem=filesystem_of(path),
    )
    if not seen.has_data:
        return seen
    owner, starts = _owner(ShadowDisk(path), paths)
    seen = msgspec.structs.replace(seen, owner=owner, starts=starts)
    try:
        trial = try_start(path, owner.node_id if owner is not None else 1)
    except DataDirLocked:
        return msgspec.structs.replace(seen, in_use=True, used_by=holder_of(paths.lock))
    return msgspec.structs.replace(seen, trial=trial)


def _is_at_home(name: str) -> bool:
    return name.endswith(LEFT_OVER) or name.startswith((ASIDE, REPORT))


def _room(disk: RealDisk, path: str) -> tuple[DiskSpace, int]:
    """The space where the directory is, and the reserve that a node with the usual settings keeps there."""
    watch = DiskWatch(Config())
    watch.saw(disk.free(path))
    return watch.space, watch.reserve_bytes


def _owner(disk: Disk, paths: Paths) -> tuple[Identity | None, int]:
    """Whose directory it is by its vote file, or else by its file `cluster`; and how often its node was started."""
    owner, starts = None, 0
    try:
        if (founding := load_founding(disk, paths.founding)) is not None:
            owner = founding.owner
    except RaftKVError:
        owner = None  # the trial says what is wrong with it
    try:
        if (vote := VoteFile.look(disk, paths.vote)) is not None:
            owner, starts = owner or vote.identity, vote.boot
    except RaftKVError:
        starts = 0
    return owner, starts


def try_start(path: str, node_id: int, look: States | None = None) -> Trial:
    """What a start would come to, tried on a copy in memory. Raises `DataDirLocked` while a node runs there.

    `look` opens the state that is there, and changes nothing; without it, it is RocksDB's.
    """
    if look is None:
        with needs("server", "a look into a data directory"):
            from raftkv.state.rocks import RocksStates
        look = RocksStates(read_only=True)
    events: list[Event] = []

    def note(_: str, level: str, event: str, fields: dict[str, object]) -> None:
        events.append(
            Event(event, level, "", {name: str(value) for name, value in fields.items() if value is not None})
        )

    error, text, rebuilds = None, "", None
    with logs.written_to(note):
        disk = None
        try:
            disk = ShadowDisk(path)
            states = ShadowStates(disk, look)
            world = msgspec.structs.replace(World.real(), disk=disk, states=states)
            opened = open_directory(Options(node_id=node_id, data_dir=path), world)
            if states.made and opened.view.last_index > 0:
                rebuilds = "its log, from the first entry on"
            close_directory(opened)
        except DataDirLocked:
            raise
        except MadeAnew:
            rebuilds = "its newest sound snapshot, and then its log"
        except NodeStopped as exc:
            error, text = type(exc).__name__, str(exc)
    cuts = [Event("torn_tail_cut", "warning", "", {"reason": cut}) for cut in (disk.cuts if disk is not None else ())]
    return Trial(error=error, text=text, events=(*events, *cuts), rebuilds=rebuilds)


def holder_of(path: str) -> int | None:
    """The process that holds the lock of this file, where the system tells it (Linux)."""
    try:
        inode = os.stat(path).st_ino
        with open("/proc/locks") as file:
            lines = [line.split() for line in file]
    except OSError:
        return None
    # 1: FLOCK  ADVISORY  WRITE 4711 fd:01:1234 0 EOF
    for words in lines:
        if len(words) >= 6 and words[1] == "FLOCK" and words[5].rpartition(":")[2] == str(inode):
            return int(words[4]) if words[4].isdecimal() and int(words[4]) > 0 else None
    return None


def filesystem_of(path: str) -> str:
    """The kind of file system that holds `path`; empty where that can't be told."""
    try:
        with open("/proc/self/mounts") as file:
            mounts = [line.split() for line in file]
    except OSError:
        return ""
    found = [(words[1], words[2]) for words in mounts if len(words) > 2 and _holds(words[1], os.path.realpath(path))]
    return max(found, key=lambda each: len(each[0]))[1] if found else ""


def _holds(mount: str, path: str) -> bool:
    place = mount.replace("\\040", " ").rstrip("/")
    return path == place or path.startswith(place + "/")
