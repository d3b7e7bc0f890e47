"""Named places in the product where a test may have a process killed, paused or failed.

    RAFTKV_FAILPOINT=log.batch.after_sync:kill@3,install.state_linked:pause=0.5

kills the process when it comes to the first place for the third time, and holds the thread that comes to the second
one for half a second. `kill` is SIGKILL, `pause` alone is SIGSTOP, `raise` fails the work that is under way (a
`DiskError` where files are written, else a `NodeStopped`), `drop` leaves out what is about to be sent, at the places
that allow it. Without `@n` it is the first time. `RAFTKV_FAILPOINT_LOG` names a file that gets a line for each that
fired, before anything else happens.

Nothing is armed unless the environment says so when a real node is made, and then `reach` is a test of one name.
"""

from __future__ import annotations

import os
import re
import signal
import threading
import time
from collections.abc import Mapping

import msgspec

from raftkv.errors import ConfigError, DiskError, NodeStopped

VARIABLE = "RAFTKV_FAILPOINT"
LOG_VARIABLE = "RAFTKV_FAILPOINT_LOG"

POINTS: dict[str, dict[str, str]] = {
    "raftkv/disk/port.py": {
        "atomic.before_rename": "the new content of a small file is durable under its temporary name",
        "atomic.after_rename": "a small file has its new content, and its name is not durable yet",
    },
    "raftkv/disk/real.py": {
        "disk.before_sync": "a file's data was written, and is not synced",
    },
    "raftkv/log/vote.py": {
        "vote.before_write": "a new term or vote is known in memory only",
        "vote.between_copies": "one of the two copies of the vote is new",
        "vote.after_sync": "both copies of the vote are new and durable, and nobody was told",
    },
    "raftkv/log/log.py": {
        "log.batch.before_sync": "a batch of entries is known in memory only",
        "log.batch.after_sync": "a batch of entries is durable, and nobody was told",
        "log.roll.before": "a segment is full, or the log is cut into an earlier one",
        "log.roll.after": "there is a new segment with nothing in it",
        "log.segment.created": "a segment has its file, whose name is not durable",
        "log.manifest.before": "the log's list of segments is about to change",
        "log.manifest.after": "the log's list of segments has changed, and files that it had are still there",
        "log.segment.removed": "a segment's file was removed, and that is not durable",
        "log.compact.begun": "the log's beginning has moved in memory only",
        "log.reset.before": "the whole log is about to go, for a snapshot",
        "log.reset.after": "the log begins anew behind a snapshot",
    },
    "raftkv/log/segment.py": {
        "log.settle.before_rewrite": "a log was read at start, and its last batch is not certainly durable",
    },
    "raftkv/state/rocks.py": {
        "state.flush.before": "the state's newest changes are in memory only",
        "state.flush.after": "the state is flushed",
        "state.checkpoint.before_links": "the state was flushed for a snapshot",
        "state.checkpoint.between_links": "some of the state's files are in the snapshot's draft",
        "state.thaw.before": "a snapshot's files are complete, and the state's files still stand still",
    },
    "raftkv/machine/sessions.py": {
        "session.opened": "a session is open in memory only",
    },
    "raftkv/snapshot/store.py": {
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
    "raftkv/snapshot/receipts.py": {
        "receipts.before_save": "a snapshot is durable, and has no receipt",
        "receipts.after_save": "a snapshot has a receipt, and no name",
    },
    "raftkv/snapshot/receiver.py": {
        "receive.offer": "another snapshot is offered",
        "receive.prepared": "what was here of an offered snapshot has been made use of",
        "receive.chunk.before_write": "a part of a snapshot is in memory only",
        "receive.chunk.after_write": "a part of a snapshot is written, and not durable",
    },
    "raftkv/node/directory.py": {
        "start.counted": "a start is counted in the vote file, and not recorded",
        "start.recovered": "everything is recovered, and the start is not counted",
    },
    "raftkv/node/statefiles.py": {
        "install.state_linked": "a snapshot's state is beside the old one",
        "install.state_aside": "the old state was moved away, and there is none",
        "install.state_renamed": "the new state is in its place, and that is not durable",
        "install.before_removal": "the new state is in its place durably, and the old one is still there",
        "install.opened": "the new state is open, and not looked at",
    },
    "raftkv/node/starts.py": {
        "start.before_record": "a start is about to be recorded",
    },
    "raftkv/node/met.py": {
        "peers.before_save": "a peer was met, that is in memory only, and the peer waits",
    },
    "raftkv/node/identity.py": {
        "cluster.before_save": "a new directory does not say yet to which cluster it belongs",
    },
    "raftkv/node/writer.py": {
        "writer.after_vote": "the vote is durable, and the entries behind it are not",
        "writer.before_told": "all of a batch is durable, and the core does not know",
    },
    "raftkv/node/engine.py": {
        "propose.before_write": "commands are in the leader's log in memory only",
        "send.before": "what waited for the disk may be sent, votes and acknowledgements among it",
        "send.after": "what waited for the disk was sent, and the core does not know that it is durable",
        "send.timeout_now": "a peer is about to be told to campaign",
    },
    "raftkv/node/applier.py": {
        "apply.before": "entries are committed and not applied",
        "apply.after": "entries are applied, and no client was told",
        "answer.after": "entries are applied, and clients were told",
    },
    "raftkv/node/snapshots.py": {
        "snapshot.begun": "a snapshot is about to be taken",
        "snapshot.before_told": "a snapshot is published, and the core does not know",
        "snapshot.before_log_cut": "the core has forgotten what a snapshot covers, and the log has not",
        "snapshot.before_prune": "the log is cut behind a snapshot, and old snapshots are still there",
        "install.before_bound": "a snapshot is about to take the log's place",
        "install.before_log_reset": "the bound of what must be in the log is lowered, and the log is still there",
        "install.before_swap": "the log continues a snapshot that is not the state yet",
        "install.old_closed": "the old state is closed",
        "install.before_told": "a snapshot is the state, and the core does not know",
    },
    "raftkv/node/receiving.py": {
        "receive.arrived": "a snapshot has arrived, and the core does not know",
    },
    "raftkv/node/sending.py": {
        "transfer.before_offer": "a snapshot is about to be offered",
        "transfer.before_read": "a part of a snapshot is about to be read for a peer",
        "transfer.done": "a peer has all of a snapshot",
    },
    "raftkv/node/node.py": {
        "founding.listening": "the address of a new directory's node is taken, and nothing is written",
        "membership.before_append": "a change of the members was asked for",
        "membership.after_append": "a change of the members is in the leader's log in memory only",
        "membership.committed": "a change of the members is committed, and nobody was told",
        "transfer_leadership.begun": "leadership is about to be handed over",
    },
}
"""Every failpoint: its name and what has happened when it is reached, by the module that it is in."""

DROPPABLE = frozenset({"send.timeout_now"})
"""Where `drop` is allowed."""

_FILE_WORK = (
    "raftkv/disk/",
    "raftkv/log/",
    "raftkv/snapshot/",
    "raftkv/state/",
    "raftkv/node/directory.py",
    "raftkv/node/statefiles.py",
)
_TEXT = re.compile(r"([a-z_.]+):(kill|pause|raise|drop)(?:=([0-9.]+))?(?:@([1-9][0-9]*))?")


class Armed(msgspec.Struct):
    """One failpoint that is to do something."""

    name: str
    action: str
    seconds: float | None
    """Of a pause of one thread; None for one of the whole process."""
    at: int
    """Which time that it is reached."""
    reached: int = 0


_armed: dict[str, list[Armed]] = {}
_log: str | None = None
_lock = threading.Lock()


def reach(name: str) -> bool:
    """The process has come to the failpoint `name`; True when what comes next is to be dropped.

    Any thread. Raises what `raise` says.
    """
    return name in _armed and _reached(name)


def module_of(name: str) -> str:
    """The file that a failpoint is in."""
    (module,) = (module for module, points in POINTS.items() if name in points)
    return module


def names() -> list[str]:
    """All of them, in the order in which they are listed."""
    return [name for points in POINTS.values() for name in points]


def parse(text: str) -> list[Armed]:
    """What a value of the environment's variable says. Raises `ConfigError`."""
    found = []
    for item in filter(None, text.split(",")):
        match = _TEXT.fullmatch(item)
        if match is None:
            raise ConfigError(
                f"{VARIABLE} = {text!r}: {item!r} must be NAME:ACTION@N, with kill, pause, pause=SECONDS, raise or drop"
            )
        name, action, seconds, at = match.groups()
        if name not in names():
            raise ConfigError(f"{VARIABLE} = {text!r}: there is no failpoint {name!r}; see raftkv/failpoints.py")
        if action == "drop" and name not in DROPPABLE:
            raise ConfigError(f"{VARIABLE} = {text!r}: nothing can be dropped at {name}, only at {sorted(DROPPABLE)}")
        if seconds is not None and (action != "pause" or seconds.count(".") > 1 or not seconds.strip(".")):
            raise ConfigError(
                f"{VARIABLE} = {text!r}: {item!r} must have a number of seconds for a pause, and only there"
            )
        found.append(Armed(name, action, float(seconds) if seconds is not None else None, int(at or 1)))
    return found


def arm(environment: Mapping[str, str] = os.environ) -> None:
    """Arm what the environment says, and nothing else. Raises `ConfigError`."""
    global _log
    points = parse(environment.get(VARIABLE, ""))
    with _lock:
        _armed.clear()
        _log = environment.get(LOG_VARIABLE)
        for point in points:
            _armed.setdefault(point.name, []).append(point)


def _reached(name: str) -> bool:
    due = []
    with _lock:
        for point in _armed.get(name, []):
            point.reached += 1
            if point.reached == point.at:
                due.append(point)
                _write_down(point)
    for point in due:
        _do(point)
    return any(point.action == "drop" for point in due)


def _write_down(point: Armed) -> None:
    if _log is not None:
        with open(_log, "a", encoding="utf-8") as log:
            log.write(f"{point.name}:{point.action}@{point.at} pid={os.getpid()}\n")


def _do(point: Armed) -> None:
    match point.action:
        case "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        case "pause" if point.seconds is None:
            os.kill(os.getpid(), signal.SIGSTOP)
        case "pause":
            time.sleep(point.seconds or 0.0)
        case "raise":
            text = f"failpoint {point.name} of {VARIABLE}: unset it and start the node again"
            raise (DiskError if module_of(point.name).startswith(_FILE_WORK) else NodeStopped)(text)
