"""Damage to the files of a stopped node, and what the node makes of it: it mends itself, or says what to do."""

from __future__ import annotations

import contextlib
import enum
import os
import random
import shutil
import subprocess
from pathlib import Path

import msgspec

from raftkv.client import Admin
from raftkv.errors import RaftKVError
from raftkv.model import Index
from raftkv.processes.cluster import NodeProcess, ProcessCluster
from raftkv.processes.stage import Stage

EXIT_IN_DOUBT = 5
"""How `raftkv serve` ends when it will not go on with what it found."""

VERDICT_S = 60.0
"""Within this a node that was started either serves and has caught up, or has ended; usually in half a second."""

_NO_DATA = ("LOCK", "LOG", "IDENTITY")
"""Files that nothing is read from: locks, RocksDB's own diary, and the name that it gives a database."""


class Damage(enum.StrEnum):
    """What can become of a file."""

    FLIP = "a flipped bit"
    CUT = "cut short"
    GONE = "gone"
    OLDER = "an older copy"


class Advice(enum.StrEnum):
    """What a node that refuses its files tells the operator to do."""

    REPLACE = "remove it from the cluster, add it under a new id"
    REBUILD = "start it with --rebuild"
    RESTART = "start it again"
    REMOVE_FILE = "remove the file"


_WORDS = {
    "own back": Advice.REPLACE,
    "remove the file": Advice.REMOVE_FILE,
    "new id": Advice.REPLACE,
    "--rebuild": Advice.REBUILD,
    "tart the node again": Advice.RESTART,
}


class StartVerdict(msgspec.Struct, frozen=True):
    """What became of a node with its files: it serves (`advice` is None), or what it said why not and what to do.

    Either its own last line, when it has ended, or what its peers answer: they refuse who has forgotten something.
    """

    advice: Advice | None
    said: str


def durable_files(data_dir: str | Path) -> list[str]:
    """Everything in a data directory that a node reads when it is started or later, as paths from there."""
    root = Path(data_dir)
    return sorted(
        str(path.relative_to(root))
        for path in root.rglob("*")
        if path.is_file() and not path.name.startswith(_NO_DATA) and "lost+found" not in path.parts
    )


def part_of(name: str) -> str:
    """Which part of a data directory a file is, for counting: "log segment", "vote", "state: sst" and the like."""
    folder, _, base = name.rpartition("/")
    if folder == "log":
        return "log manifest" if base == "MANIFEST" else "log segment"
    if not folder:
        return base
    what = "snapshot" if folder.startswith("snapshots/") else folder
    kind = base.split("-")[0] if not base[:1].isdigit() else base.rpartition(".")[2]
    return f"{what}: {kind}"


def do_damage(kind: Damage, path: Path, dice: random.Random, older: Path | None = None) -> str:
    """Damage a file in its place, so that whoever has a hard link to it has the damage too; says what was done.

    `older` is what `OLDER` puts there. Returns "" when it makes no difference (an empty file, the same content).
    """
    match kind:
        case Damage.FLIP:
            return _flip(path, dice)
        case Damage.CUT:
            size = path.stat().st_size
            kept = dice.randrange(size) if size else 0
            os.truncate(path, kept)
            return f"{path.name} cut from {size} to {kept} bytes" if size else ""
        case Damage.GONE:
            path.unlink()
            return f"{path.name} removed"
        case Damage.OLDER:
            if older is None or not older.exists() or older.read_bytes() == path.read_bytes():
                return ""
            shutil.copyfile(older, path)
            return f"{path.name} replaced by an older copy"


def _flip(path: Path, dice: random.Random) -> str:
    size = path.stat().st_size
    if not size:
        return ""
    with path.open("r+b") as file:
        # A segment is mostly zeros that were written ahead: half of the flips meet its beginning.
        at = dice.randrange(min(size, 16 << 10) if dice.random() < 0.5 else size)
        file.seek(at)
        (byte,) = file.read(1)
        bit = dice.randrange(8)
        file.seek(at)
        file.write(bytes([byte ^ (1 << bit)]))
    return f"bit {bit} of byte {at} of {path.name} ({size} bytes) flipped"


def copy_directory(source: str | Path, target: str | Path) -> None:
    """Copy a stopped node's data directory, hard links and all; what is at `target` is gone."""
    empty_directory(target)
    subprocess.run(["cp", "-a", f"{source}/.", str(target)], check=True)


def empty_directory(directory: str | Path) -> None:
    """Remove what is in a directory, which may be a mount point, and make it if it isn't there."""
    Path(directory).mkdir(parents=True, exist_ok=True)
    for path in Path(directory).iterdir():
        if path.is_dir() and not path.is_symlink():
            if path.name != "lost+found":
                shutil.rmtree(path)
        else:
            path.unlink()


async def start_and_judge(stage: Stage, node: NodeProcess, *extra: str) -> StartVerdict:
    """Start a node and wait until it serves and has applied all that the others had committed, or has ended.

    Raises `AssertionError` when it ended in a way that leaves the operator alone, and when it did neither in time.
    """
    node.start(*extra)
    return await judge_start(stage, node)


async def judge_start(stage: Stage, node: NodeProcess) -> StartVerdict:
    """The same for one that was started, as where all have ended: alone none of them comes to a leader."""
    target = await _committed(stage.cluster, node)
    async with Admin([node.own.client_address]) as admin:

        async def look() -> StartVerdict | None:
            if not node.is_running:
                return judge_end(node)
            try:
                status = await admin.status(deadline_s=0.5)
            except RaftKVError:
                return None
            refusals = [peer["refused"] for peer in status["peers"]]
            if refusals and all(refusals):
                return StartVerdict(_advice_in(refusals[0]), refusals[0])
            if status["applied_index"] >= target and status["leader"] is not None and status["stopped"] is None:
                return StartVerdict(None, "")
            return None

        return await stage.until(look, f"node {node.node_id} serving or ended (see {node.log_path})", VERDICT_S)


async def _committed(cluster: ProcessCluster, but: NodeProcess) -> Index:
    """What the others have committed."""
    others = [node.own.client_address for node in cluster.nodes.values() if node is not but and node.is_running]
    found = 0
    for address in others:
        async with Admin([address]) as admin:
            try:
                found = max(found, int((await admin.status(deadline_s=2.0))["commit_index"]))
            except RaftKVError:
                continue
    return found


def judge_end(node: NodeProcess) -> StartVerdict:
    """What a node that has ended by itself said. Raises `AssertionError` when that leaves the operator alone."""
    assert node.process is not None
    code, said = node.process.poll(), last_line(node)
    assert code == EXIT_IN_DOUBT, f"node {node.node_id} ended with code {code}, not {EXIT_IN_DOUBT}: {said}"
    return StartVerdict(_advice_in(said), said)


def _advice_in(said: str) -> Advice:
    advice = next((advice for words, advice in _WORDS.items() if words in said), None)
    assert advice is not None, f"it is not said what to do: {said}"
    return advice


async def take_snapshot(node: NodeProcess) -> None:
    """Make a node take a snapshot, if it can just now."""
    with contextlib.suppress(RaftKVError):
        async with Admin([node.own.client_address]) as admin:
            await admin.take_snapshot(5.0)


def last_line(node: NodeProcess) -> str:
    """The last thing that a node's log says."""
    with node.log_path.open("rb") as log:
        log.seek(0, os.SEEK_END)
        log.seek(max(0, log.tell() - 8192))
        lines = log.read().decode("utf-8", "replace").strip().splitlines()
    return lines[-1] if lines else ""
