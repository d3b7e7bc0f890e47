"""Data directories, as they lie there: what a start of the node would come to."""

from __future__ import annotations

from collections.abc import Iterator

from raftkv.doctor.evidence import (
    FREE,
    NEVER,
    ONLY_THAT,
    DirectorySeen,
    Evidence,
    Trial,
    ending,
    rebuild,
    spared,
    sparing,
    starting,
    typed,
)
from raftkv.doctor.finding import Sign
from raftkv.model import NodeId
from raftkv.node.directory import unfinished_text
from raftkv.node.watchdog import bytes_text

OLDER = ("is an older copy", "an older log")
"""How a start says that a file is this node's own, from before."""

IN_MEMORY = ("tmpfs", "ramfs")

KEEP = "Don't remove or edit files in it before you have a copy of all of them."


def _id(seen: DirectorySeen) -> NodeId | None:
    return seen.owner.node_id if seen.owner is not None else None


def _ends(evidence: Evidence, *errors: str) -> Iterator[tuple[DirectorySeen, Trial]]:
    """The directories with which a start would end with one of these errors."""
    for seen in evidence.directories:
        if seen.trial is not None and seen.trial.error in errors:
            yield seen, seen.trial


def _sign(seen: DirectorySeen, trial: Trial, what: str, do: str, commands: tuple[str, ...], dont: str = KEEP) -> Sign:
    return Sign(
        what=f"{what}: {seen.path}",
        why=(f"a start would end with {trial.error}: {trial.text}",),
        do=do,
        commands=commands,
        dont=dont,
    )


def no_directory(evidence: Evidence) -> Iterator[Sign]:
    """An empty one, or one of something else (F11)."""
    for seen in evidence.directories:
        if not seen.has_data:
            yield Sign(
                what=f"no node has data in {seen.path}",
                why=(
                    f"{seen.path}: {'empty, or files of others only' if not seen.strangers else list(seen.strangers)}",
                ),
                do="give the directory that the node was started with (--data-dir)",
                commands=(typed("doctor", "DIR"),),
                dont="Don't start a member of a cluster here: it would have forgotten everything.",
            )


def directory_foreign(evidence: Evidence) -> Iterator[Sign]:
    """A file says that it is another node's (F77)."""
    for seen, trial in _ends(evidence, "WrongDataDir"):
        if trial.text == unfinished_text(seen.path):
            continue
        yield _sign(
            seen,
            trial,
            "something in the directory is of another node or cluster",
            "put this node's own file back; if that is gone, replace the node by one with a new id",
            evidence.replacing(_id(seen)),
        )


def recovery_unfinished(evidence: Evidence) -> Iterator[Sign]:
    """A cut-off `raftkv recover` (F87 F88)."""
    for seen, trial in _ends(evidence, "WrongDataDir"):
        if trial.text == unfinished_text(seen.path):
            yield _sign(
                seen,
                trial,
                "a recovery was begun and not finished",
                "give the same command again, and it goes on",
                (typed("recover", seen.path),),
                "Don't start the node before that, nor any other of the old cluster.",
            )


def _is_older(trial: Trial) -> bool:
    return any(words in trial.text for words in OLDER)


def directory_older(evidence: Evidence) -> Iterator[Sign]:
    """A file of this node's, from before (F21)."""
    for seen, trial in _ends(evidence, "Corruption"):
        if _is_older(trial):
            yield _sign(
                seen,
                trial,
                "a file in the directory is an older copy",
                "put the newest one back; if that is gone, replace the node by one with a new id",
                evidence.replacing(_id(seen)),
            )


def directory_damaged(evidence: Evidence) -> Iterator[Sign]:
    """A file is not what was written, or is gone (F9 F11 F18 F19)."""
    for seen, trial in _ends(evidence, "Corruption", "CorruptRecord"):
        if _is_older(trial):
            continue
        what, file = "a file in the directory is damaged or missing", spared(trial.text)
        if file is not None:
            keeps = "remove that one file, and start the node again: nothing else is lost. See to the disk"
            yield _sign(seen, trial, what, keeps, sparing(file, _id(seen), seen.path), ONLY_THAT)
            continue
        yield _sign(
            seen,
            trial,
            what,
            "do what the text says: mostly the node is replaced by one with a new id; see to the disk",
            (typed("log", "inspect", seen.path), *evidence.replacing(_id(seen))),
        )


def directory_other_version(evidence: Evidence) -> Iterator[Sign]:
    """Files of an older or a newer raftkv (F24)."""
    for seen, trial in _ends(evidence, "FormatError"):
        yield _sign(
            seen,
            trial,
            "the directory is of another version of raftkv",
            "install the version that wrote it",
            (typed("--version"),),
            "Don't remove the file: nothing in it is damaged.",
        )


def directory_state_lost(evidence: Evidence) -> Iterator[Sign]:
    """Neither the state nor a snapshot can be used (F10 F70)."""
    for seen, trial in _ends(evidence, "StateCorruption", "SnapshotCorruption"):
        yield _sign(
            seen,
            trial,
            "the state in the directory is lost, and no snapshot there helps",
            "start the node with --rebuild, beside its other options: it gets a snapshot from a peer",
            (rebuild(_id(seen), seen.path),),
            "Don't do it while the others don't have a majority without this node.",
        )


def directory_no_agreement(evidence: Evidence) -> Iterator[Sign]:
    """The mark of a stop in which nobody could tell who was right (F86)."""
    for seen, trial in _ends(evidence, "NoAgreement"):
        yield _sign(
            seen,
            trial,
            "the replicas' states differed, and no start goes on from there",
            "keep a copy of every node's directory, mend the state machine's class, start all nodes with it and "
            "--rebuild",
            (rebuild(_id(seen), seen.path),),
            "Don't start some nodes with the old class and some with the new one.",
        )


def directory_unreadable(evidence: Evidence) -> Iterator[Sign]:
    """The disk or its rights (F15 F18)."""
    for seen, trial in _ends(evidence, "DiskError", "DiskFull", "SafetyViolation"):
        yield _sign(
            seen,
            trial,
            "the directory can't be read",
            "see to the disk, the rights of its files, and the kernel's log",
            (typed("doctor", seen.path),),
        )


def state_rebuilt(evidence: Evidence) -> Iterator[Sign]:
    """From a snapshot or from the log, by itself (F10 F60 F88)."""
    for seen in evidence.directories:
        if seen.trial is not None and seen.trial.rebuilds is not None:
            said = [each.describe() for each in seen.trial.events if each.name in ("state_damaged", "install_resumed")]
            yield Sign(
                what=f"the next start makes the state anew: {seen.path}",
                why=(f"a start would take it from {seen.trial.rebuilds}", *said),
                do="start the node; it takes a while, and nothing is lost. If the disk is to blame, see to it first",
                commands=(starting(_id(seen), seen.path),),
            )


def directory_mended(evidence: Evidence) -> Iterator[Sign]:
    """What a crash leaves: a torn write, half a vote (F8)."""
    for seen in evidence.directories:
        trial = seen.trial
        names = ("vote_file_mended", "log_tail_cut", "snapshot_confirmed", "log_reset_to_snapshot", "torn_tail_cut")
        said = [] if trial is None else [each.describe() for each in trial.events if each.name in names]
        if said:
            yield Sign(
                what=f"a crash has left something half done, which the next start mends: {seen.path}",
                why=tuple(said),
                do="start the node; nothing that was acknowledged is lost by it",
                commands=(starting(_id(seen), seen.path),),
            )


def snapshot_refused(evidence: Evidence) -> Iterator[Sign]:
    """Foreign or damaged (F61 F77)."""
    for seen in evidence.directories:
        for event in seen.trial.events if seen.trial is not None else ():
            if event.name in ("snapshot_refused", "snapshot_damaged"):
                yield Sign(
                    what=f"a snapshot in the directory is not used: {seen.path}",
                    why=(event.fields.get("reason") or event.fields.get("error") or event.describe(),),
                    do="a foreign one is moved to where it belongs, a damaged one goes when there are sound ones",
                    commands=(typed("snapshot", "verify", seen.path),),
                )


def directory_in_use(evidence: Evidence) -> Iterator[Sign]:
    """By a node that answers, or that was not asked (F22)."""
    for seen in evidence.directories:
        if seen.in_use and not evidence.hangs(seen):
            yield Sign(
                what=f"a node runs on the directory, which was only looked at as far as its lock allows: {seen.path}",
                why=(_holder(seen),),
                do="ask the node itself; for a full look stop it first",
                commands=(evidence.asking("status"),) if evidence.options else (typed("doctor", "-a", "HOST:7001"),),
            )


def _holder(seen: DirectorySeen) -> str:
    holder = "a process" if seen.used_by is None else f"process {seen.used_by}"
    return f"{seen.path}/LOCK is held by {holder}"


def directory_held(evidence: Evidence) -> Iterator[Sign]:
    """By a process whose node does not answer (F16 F22)."""
    for seen in evidence.directories:
        if evidence.hangs(seen):
            stop = f"process {seen.used_by}" if seen.used_by is not None else "the process that has it open"
            yield Sign(
                what=f"a process holds the directory of node {_id(seen)}, and the node does not answer: {seen.path}",
                why=(
                    _holder(seen),
                    *[f"node {node}: {why}" for node, why in evidence.silent.items() if node == _id(seen)],
                ),
                do=f"see what {stop} does (stopped, hanging in its disk, or listening elsewhere). If it hangs, end it: "
                "it loses nothing that was acknowledged. Only then start the node again",
                commands=(ending(seen), starting(_id(seen), seen.path)),
                dont="Don't remove the file LOCK: the lock is the process's, not the file's. Don't start a second "
                "process beside this one: it would end at once.",
            )


def directory_elsewhere(evidence: Evidence) -> Iterator[Sign]:
    """The directory and the addresses are of two clusters (F23)."""
    newest = evidence.newest
    for seen in evidence.directories:
        if newest is None or seen.owner is None:
            continue
        if seen.owner.cluster_id and newest.cluster_id and seen.owner.cluster_id != newest.cluster_id:
            yield Sign(
                what=f"the directory is of another cluster than the one that answers: {seen.path}",
                why=(
                    f"{seen.path} is that of {seen.owner.describe()}",
                    f"the nodes are of cluster {newest.cluster_id}",
                ),
                do="give the addresses of its own cluster, or the directory of a member",
                commands=(typed("doctor", seen.path),),
            )


def directory_of_removed(evidence: Evidence) -> Iterator[Sign]:
    """Nobody should start it (F37)."""
    for seen in evidence.directories:
        if seen.owner is not None and seen.owner.node_id in evidence.membership.removed:
            yield Sign(
                what=f"the directory is of node {seen.owner.node_id}, which was removed from the cluster: {seen.path}",
                why=(f"membership: removed {list(evidence.membership.removed)}",),
                do="it is of no more use; to have a node there again, add one under a new id with an empty directory",
                commands=(evidence.asking("member", "add", f"{evidence.new_id()}=NEWHOST:8001/NEWHOST:7001"),),
                dont="Don't start it.",
            )


def directory_not_met(evidence: Evidence) -> Iterator[Sign]:
    """A new or another directory under an id that is known (F20)."""
    for seen in evidence.directories:
        owner = seen.owner
        if owner is None:
            continue
        met = {peer.incarnation for node in evidence.nodes for peer in node.peers if peer.node_id == owner.node_id} - {
            None
        }
        if met and owner.incarnation not in met:
            yield Sign(
                what=f"the others have met node {owner.node_id} with another directory than this one: {seen.path}",
                why=(f"{seen.path} is directory {owner.incarnation}", f"they have met {sorted(map(str, met))}"),
                do="find the directory that it had; if that is gone, replace the node by one with a new id",
                commands=evidence.replacing(owner.node_id),
                dont="Don't start it with this one: it would be refused.",
            )


def directory_twice(evidence: Evidence) -> Iterator[Sign]:
    """Two with one incarnation (F22)."""
    by: dict[str, list[DirectorySeen]] = {}
    for seen in evidence.directories:
        if seen.owner is not None:
            by.setdefault(seen.owner.incarnation, []).append(seen)
    for seens in by.values():
        if len({seen.path for seen in seens}) > 1:
            yield Sign(
                what="directories are copies of each other: " + ", ".join(seen.path for seen in seens),
                why=tuple(f"{seen.path}: directory {_word(seen)}, started {seen.starts} times" for seen in seens),
                do="keep the one that was started most often, move the others out of reach",
                commands=tuple(typed("log", "inspect", seen.path) for seen in seens),
                dont="Don't start more than one of them, and none but the newest.",
            )


def _word(seen: DirectorySeen) -> str:
    return seen.owner.incarnation if seen.owner is not None else ""


def directory_full(evidence: Evidence) -> Iterator[Sign]:
    """Below the reserve of the usual settings (F13 F14)."""
    running = {node.data_dir for node in evidence.nodes}
    for seen in evidence.directories:
        if seen.total_bytes and seen.free_bytes < seen.reserve_bytes and seen.path not in running:
            yield Sign(
                what=f"the disk of the directory is nearly full: {seen.path}",
                why=(
                    f"{seen.path}: {bytes_text(seen.free_bytes)} of {bytes_text(seen.total_bytes)} are free, a node "
                    f"keeps {bytes_text(seen.reserve_bytes)} in reserve",
                ),
                do=f"{FREE}; below the reserve the node does not lead",
                commands=(typed("doctor", seen.path),),
                dont=f"Don't remove files in the directory{NEVER}.",
            )


def directory_in_memory(evidence: Evidence) -> Iterator[Sign]:
    """A file system that forgets (F4 F5)."""
    for seen in evidence.directories:
        if seen.filesystem in IN_MEMORY:
            yield Sign(
                what=f"the directory is in memory, not on a disk: {seen.path}",
                why=(f"{seen.path}: {seen.filesystem}",),
                do="move the node to a directory on a disk: with a power failure everything here is gone",
                commands=(starting(_id(seen), ""),),
            )


def directory_strangers(evidence: Evidence) -> Iterator[Sign]:
    """Files of somebody else (F77)."""
    for seen in evidence.directories:
        if seen.has_data and seen.strangers:
            yield Sign(
                what=f"files lie in the directory that are not raftkv's: {seen.path}",
                why=(f"{seen.path}: {', '.join(seen.strangers)}",),
                do="move them elsewhere; the node does not look at them",
                commands=(typed("doctor", seen.path),),
            )


def directory_addresses(evidence: Evidence) -> Iterator[Sign]:
    """`member rewrite` was given, and no leader has written it down yet (F83)."""
    for seen in evidence.directories:
        if seen.has_addresses and not seen.in_use:
            yield Sign(
                what=f"addresses were written into the directory that are not in the log yet: {seen.path}",
                why=(f"{seen.path}/addresses",),
                do="write the same into the directory of every node, then start them all: the leader writes them into "
                "the log",
                commands=(typed("member", "rewrite", seen.path, f"{_id(seen) or 1}=HOST:8001/HOST:7001"),),
            )
