"""Nodes that have stopped by themselves: what a status or the last line of a log says, by what has to be done."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

import msgspec

from raftkv.doctor.evidence import FREE, NEVER, ONLY_THAT, Evidence, rebuild, spared, sparing, starting, typed
from raftkv.doctor.finding import Sign
from raftkv.model import NodeId

KEEP = "Don't remove or edit any of its files before you have a copy of all of them."


class Stop(msgspec.Struct, frozen=True, kw_only=True):
    """That a node has stopped, and who says so."""

    node_id: NodeId | None
    error: str
    text: str
    source: str
    data_dir: str = ""
    lasting_s: float | None = None
    at: str | None = None

    @property
    def node(self) -> str:
        return "a node" if self.node_id is None else f"node {self.node_id}"


def stops(evidence: Evidence) -> list[Stop]:
    """Every node that has stopped. A status says more than the log of the same node."""
    found: dict[object, Stop] = {}
    for log in evidence.logs:
        last = log.events[-1] if log.events else None
        if last is not None and last.name == "process_ended":
            error, text = last.fields.get("error", ""), last.fields.get("reason", "")
            source = f"last line of {log.path}, {last.timestamp}"
            found[log.node_id or log.path] = Stop(
                node_id=log.node_id, error=error, text=text, source=source, at=last.timestamp or None
            )
    running = {node.node_id for node in evidence.nodes if node.stopped is None}
    found = {key: each for key, each in found.items() if each.node_id not in running}  # it was started again
    for node in evidence.nodes:
        if node.stopped is not None:
            found[node.node_id] = Stop(
                node_id=node.node_id,
                error=node.stopped_error or "",
                text=node.stopped,
                source=f"status of node {node.node_id}",
                data_dir=node.data_dir,
                lasting_s=node.lasting_s.get("stopped"),
            )
    return [found[key] for key in sorted(found, key=str)]


Advice = Callable[[Evidence, Stop], Sign]


def _sign(stop: Stop, because: str, do: str, commands: tuple[str, ...], dont: str = KEEP) -> Sign:
    return Sign(
        what=f"{stop.node} has stopped: {because}",
        why=(f"{stop.source}: {stop.error}: {stop.text}",),
        do=do,
        commands=commands,
        dont=dont,
        lasting_s=stop.lasting_s,
        at=stop.at,
    )


CORRUPT = ("Corruption", "CorruptRecord")
STATE = ("StateCorruption", "SnapshotCorruption")
DISK = ("DiskError", "DiskFull")
VERSION = ("WrongVersion", "SchemaChanged", "UnknownCommand", "FormatError")
DIRECTORY = ("WrongDataDir", "DataDirLocked")
USAGE = ("ConfigError", "InvalidArgument", "MachineError", "Unavailable", "MissingExtra")
KNOWN = (
    *CORRUPT,
    *STATE,
    *DISK,
    *VERSION,
    *DIRECTORY,
    *USAGE,
    "Diverged",
    "NoAgreement",
    "MachineFailed",
    "NodeRemoved",
)


def _those(evidence: Evidence, *errors: str) -> list[Stop]:
    return [stop for stop in stops(evidence) if stop.error in errors]


def _here(stop: Stop) -> str:
    """Its directory, as far as it is known."""
    return stop.data_dir or "DIR"


def stopped_corrupt(evidence: Evidence) -> Iterator[Sign]:
    """The log or the vote: the node is replaced (F9 F11 F18 F19)."""
    for stop in _those(evidence, *CORRUPT):
        file = spared(stop.text)
        if file is not None:
            keeps = "remove that one file, and start the node again: nothing else is lost. See to its disk"
            commands = sparing(file, stop.node_id, stop.data_dir or os.path.dirname(file))
            yield _sign(stop, "a file is not what was written that it goes on without", keeps, commands, ONLY_THAT)
            continue
        yield _sign(
            stop,
            "its log or its vote is not what was written",
            "keep a copy of its files, see to its disk, and replace the node by one with a new id: what it had "
            "acknowledged, the others have as well",
            (typed("log", "inspect", _here(stop)), *evidence.replacing(stop.node_id)),
            "Don't start it again with an empty directory under the same id: it has forgotten for whom it voted.",
        )


def stopped_state(evidence: Evidence) -> Iterator[Sign]:
    """The state or snapshots: the node takes another one (F10 F61 F70)."""
    for stop in _those(evidence, *STATE):
        yield _sign(
            stop,
            "its state or its snapshots are damaged",
            "start it with --rebuild, beside the options that it has: it takes a snapshot, its own or another node's",
            (rebuild(stop.node_id, stop.data_dir),),
        )


def stopped_diverged(evidence: Evidence) -> Iterator[Sign]:
    """It was in a minority (F76)."""
    for stop in _those(evidence, "Diverged"):
        yield _sign(
            stop,
            "its state differs from that of a majority",
            "keep a copy of its files, then start it with --rebuild; if it happens again, a command is not "
            "deterministic",
            (rebuild(stop.node_id, stop.data_dir),),
            "Don't start it with another version of the application than the others have.",
        )


def stopped_no_agreement(evidence: Evidence) -> Iterator[Sign]:
    """There was no majority (F76 F86)."""
    for stop in _those(evidence, "NoAgreement"):
        yield _sign(
            stop,
            "the replicas' states differ, and none has a majority",
            "stop all nodes, keep a copy of every node's files, mend the state machine's class, then start all nodes "
            "with it and --rebuild",
            (rebuild(stop.node_id, stop.data_dir),),
            "Don't start some nodes with the old class and some with the new one.",
        )


def stopped_disk(evidence: Evidence) -> Iterator[Sign]:
    """A write failed, or did not end (F13 F15 F16 F17)."""
    for stop in _those(evidence, *DISK):
        yield _sign(
            stop,
            "its disk is full" if stop.error == "DiskFull" else "its disk has failed or hangs",
            f"{FREE}; then start it again"
            if stop.error == "DiskFull"
            else "look at the disk and the kernel's log; if the disk is sound, start the node again, and if not, "
            "replace it",
            (typed("doctor", _here(stop)), starting(stop.node_id, stop.data_dir)),
            f"Don't remove files in its directory{NEVER}.",
        )


def stopped_version(evidence: Evidence) -> Iterator[Sign]:
    """Of raftkv or of the application (F24 F85)."""
    for stop in _those(evidence, *VERSION):
        yield _sign(
            stop,
            "its program does not fit what is in the log or on its disk",
            "install the version that the text names, then start it",
            (starting(stop.node_id, stop.data_dir),),
            "Don't empty its directory: nothing in it is damaged.",
        )


def stopped_machine(evidence: Evidence) -> Iterator[Sign]:
    """A command met what other nodes need not have met (F75)."""
    for stop in _those(evidence, "MachineFailed"):
        yield _sign(
            stop,
            "a command failed in a way that need not be the same on every node",
            "mend the command, so that it does without what failed, or raises an error of its own; start all nodes "
            "with the mended class",
            (starting(stop.node_id, stop.data_dir),),
            "Don't start some nodes with the old class and some with the new one.",
        )


def stopped_removed(evidence: Evidence) -> Iterator[Sign]:
    """It ends for good, as it should (F37 F53)."""
    for stop in _those(evidence, "NodeRemoved"):
        yield _sign(
            stop,
            "it was removed from its cluster",
            "nothing; its directory is of no more use. To have a node there again, add one under a new id",
            (evidence.asking("member", "add", f"{evidence.new_id()}=NEWHOST:8001/NEWHOST:7001"),),
            "Don't start it again.",
        )


def stopped_directory(evidence: Evidence) -> Iterator[Sign]:
    """Another's, or in use (F20 F22 F77)."""
    for stop in _those(evidence, *DIRECTORY):
        yield _sign(
            stop,
            "its directory is used by another process, or is not its own",
            "see whose the directory is, and give the node its own",
            (typed("doctor", _here(stop)),),
        )


def not_started(evidence: Evidence) -> Iterator[Sign]:
    """A wrong option, or an address that is taken (F83)."""
    for stop in _those(evidence, *USAGE):
        yield Sign(
            what=f"{stop.node} could not start: it was told something wrong",
            why=(f"{stop.source}: {stop.error}: {stop.text}",),
            do="correct the option or setting that the text names, and start it again",
            commands=(typed("serve", "--help"),),
        )


def stopped_otherwise(evidence: Evidence) -> Iterator[Sign]:
    """A bug of raftkv: an invariant did not hold, or an error that nobody has foreseen (F25 F26)."""
    for stop in stops(evidence):
        if stop.error not in KNOWN:
            yield _sign(
                stop,
                "something happened that must not happen",
                "keep a copy of its files and its log, and report it",
                (typed("log", "inspect", _here(stop)),),
            )
    for log in evidence.logs:
        if log.events and log.events[-1].name == "process_failed":
            last = log.events[-1]
            yield Sign(
                what=f"a process has failed with an error that nobody has foreseen ({log.path})",
                why=(f"last line of {log.path}: {last.describe()[:500]}",),
                do="keep the log, and report it; the node may be started again",
                commands=(starting(log.node_id, ""),),
                at=last.timestamp or None,
            )
