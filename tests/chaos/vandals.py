"""Faults of files: damaged, gone, older than they should be, whole directories too; and the ways back."""

from __future__ import annotations

import asyncio
import random
import shutil
from collections.abc import Sequence
from pathlib import Path

import msgspec

from raftkv.client import Admin
from raftkv.disk import RealDisk
from raftkv.processes.cluster import NodeProcess
from raftkv.processes.ports import free_ports
from raftkv.state.rocks import RocksStates
from raftkv.testing.faults.foreign import found_elsewhere
from tests.chaos.damage import (
    Advice,
    Damage,
    StartVerdict,
    copy_directory,
    do_damage,
    durable_files,
    empty_directory,
    judge_end,
    part_of,
    start_and_judge,
    take_snapshot,
)
from tests.chaos.fault import RealFault
from tests.chaos.stage import ChaosStage

FILE_FLIPPED = "a bit of a file flipped"

REPAIRS_MAX = 6
"""One damage may hide another one: a state that has to be rebuilt, and then the snapshot that it was to come from."""


class FilesDamaged(RealFault):
    """A node is stopped, one of its files damaged (or bits of up to three), and the node started again; several times.

    It serves all the same, or says what to do, and then that is done. Where the advice is to give the node up, the
    files from before the damage are put back instead, as it has acknowledged nothing since: else no cluster had
    nodes left after some hundred of these. `tests.integration` follows that advice, too.
    """

    def __init__(self, dice: random.Random, kinds: Sequence[Damage] = (Damage.FLIP,), times: int = 25) -> None:
        self._dice, self._kinds, self._times = dice, tuple(kinds), times
        self.kind = FILE_FLIPPED if self._kinds == (Damage.FLIP,) else "a file cut, gone or old"
        self.rows = "F8 F9 F10 F61 F70" if self._kinds == (Damage.FLIP,) else "F8 F11 F19"

    async def inject(self, stage: ChaosStage) -> None:
        node = stage.cluster.nodes[self._dice.choice(sorted(stage.cluster.nodes))]
        good, older = stage.directory / "good", stage.directory / "older"
        await take_snapshot(node)
        await _stop(node)
        await asyncio.to_thread(copy_directory, node.data_dir, older)
        await asyncio.to_thread(copy_directory, node.data_dir, good)
        await _repair(stage, node, await start_and_judge(stage, node), good)
        for _ in range(self._times):
            await _stop(node)
            await asyncio.to_thread(copy_directory, node.data_dir, good)
            done = self._damage(Path(node.data_dir), older)
            verdict = await start_and_judge(stage, node)
            if done:
                stage.met(self.kind, len(done))
                stage.note(f"node {node.node_id}, {', '.join(done)}: {verdict.said or 'it serves all the same'}")
            await _repair(stage, node, verdict, good)
        await _stop(node)
        # What no start looks at (a block that was not read) would be found at any time later.
        await _repair(stage, node, await start_and_judge(stage, node, "--rebuild"), good)

    def _damage(self, data_dir: Path, older: Path) -> list[str]:
        """One file or more, each of another part, which are as likely as each other; says what was done to them."""
        names = durable_files(data_dir)
        parts = sorted({part_of(name) for name in names})
        told = []
        for part in self._dice.sample(parts, k=min(len(parts), self._files())):
            name = self._dice.choice([name for name in names if part_of(name) == part])
            done = do_damage(self._dice.choice(self._kinds), data_dir / name, self._dice, older / name)
            told += [f"{part}: {done}"] if done else []
        return told

    def _files(self) -> int:
        """How many are damaged at a time: where bits flip, they do in more than one place."""
        return self._dice.choice((1, 2, 3)) if self._kinds == (Damage.FLIP,) else 1

    def describe(self) -> str:
        return f"{self.kind}: {self._times} times"


async def _stop(node: NodeProcess) -> None:
    """Ask a node to end; one that has found damage meanwhile has ended by itself."""
    if node.is_running:
        code = await asyncio.to_thread(node.terminate)
        if code == 0:
            return
    judge_end(node)


async def _repair(stage: ChaosStage, node: NodeProcess, verdict: StartVerdict, good: Path) -> None:
    """Do what the node says until it serves."""
    for _ in range(REPAIRS_MAX):
        match verdict.advice:
            case None:
                return
            case Advice.REPLACE:
                node.kill()
                await _put_back(stage, node, good)
                verdict = await start_and_judge(stage, node)
            case Advice.REMOVE_FILE:
                (Path(node.data_dir) / _file_to_remove(verdict.said)).unlink()
                verdict = await start_and_judge(stage, node)
            case Advice.RESTART:
                verdict = await start_and_judge(stage, node)
            case Advice.REBUILD:
                verdict = await start_and_judge(stage, node, "--rebuild")
    raise AssertionError(f"node {node.node_id} says after {REPAIRS_MAX} repairs: {verdict.said}")


def _file_to_remove(said: str) -> str:
    """One of the two that a node can do without."""
    return next(name for name in ("peers", "receipts") if f"/{name} " in said or f"/{name}:" in said)


async def _put_back(stage: ChaosStage, node: NodeProcess, source: Path) -> None:
    """Replace a node's files by a copy, durably where power may be cut: the node relies on what it had synced."""
    await asyncio.to_thread(copy_directory, source, node.data_dir)
    if (image := stage.images.get(node.node_id)) is not None:
        await asyncio.to_thread(image.sync)


class ForeignFiles(RealFault):
    """A node is stopped, gets a file or directory of another node or of another cluster, and is started again.

    What takes the place of its own is refused by name. A snapshot lies beside its own, and is passed over: who
    believed it would lead a cluster of one.
    """

    kind = "a file of another node or cluster"
    rows = "F77"

    def __init__(self, dice: random.Random, times: int = 4) -> None:
        self._dice, self._times = dice, times

    async def inject(self, stage: ChaosStage) -> None:
        nodes = stage.cluster.nodes
        node = nodes[self._dice.choice(sorted(nodes))]
        other = next(each for node_id, each in sorted(nodes.items()) if each is not node)
        good, elsewhere, beside = stage.directory / "good", stage.directory / "elsewhere", stage.directory / "beside"
        await asyncio.to_thread(_make_elsewhere, elsewhere, node.node_id)
        await take_snapshot(other)
        await _stop(other)
        await asyncio.to_thread(copy_directory, other.data_dir, beside)
        await _expect(stage, other, None)
        await _stop(node)
        await asyncio.to_thread(copy_directory, node.data_dir, good)
        for source in (elsewhere, beside):
            for path in sorted((source / "snapshots").glob("0*")):
                target = Path(node.data_dir) / "snapshots" / path.name
                if not target.exists():
                    await asyncio.to_thread(copy_directory, path, target)
                    self._met(stage, node, f"snapshot {path.name} of {source.name}: it serves all the same")
        await _expect(stage, node, None)
        await self._check_members(stage, node)
        for name in self._dice.sample(OWNED, k=self._times):
            await _stop(node)
            await asyncio.to_thread(copy_directory, node.data_dir, good)
            source = self._dice.choice([source for source in (elsewhere, beside) if (source / name).exists()])
            await asyncio.to_thread(_exchange, Path(node.data_dir), source, name)
            verdict = await start_and_judge(stage, node)
            assert verdict.advice is Advice.REPLACE, f"a foreign {name} leads to {verdict}"
            self._met(stage, node, verdict.said)
            await _put_back(stage, node, good)
            await _expect(stage, node, None)

    def _met(self, stage: ChaosStage, node: NodeProcess, said: str) -> None:
        stage.met(self.kind)
        stage.note(f"node {node.node_id}: {said}")

    @staticmethod
    async def _check_members(stage: ChaosStage, node: NodeProcess) -> None:
        async with Admin([node.own.client_address]) as admin:
            voters = (await admin.status(deadline_s=5.0))["membership"]["voters"]
        assert len(voters) == len(stage.cluster.nodes), f"node {node.node_id} takes {voters} for the voters"

    def describe(self) -> str:
        return self.kind


OWNED = ("cluster", "vote", "starts", "peers", "receipts", "log", "state")
"""What a node has one of, and what says whose it is."""


def _make_elsewhere(directory: Path, node_id: int) -> None:
    empty_directory(directory)
    found_elsewhere(RealDisk(), RocksStates(), str(directory), node_id)


def _exchange(data_dir: Path, source: Path, name: str) -> None:
    """Put another node's file or directory in the place of this node's."""
    if (data_dir / name).is_dir():
        copy_directory(source / name, data_dir / name)
    else:
        shutil.copyfile(source / name, data_dir / name)


class DirectoryLost(RealFault):
    """A node comes back with an empty directory, with an older copy of its own, and twice, with a copy beside it.

    The others must refuse it each time: it has forgotten what it acknowledged, or would be counted twice.
    """

    kind = "a data directory wiped, older or copied"
    rows = "F20 F21 F22"

    def __init__(self, dice: random.Random) -> None:
        self._dice = dice

    async def inject(self, stage: ChaosStage) -> None:
        node = stage.cluster.nodes[self._dice.choice(sorted(stage.cluster.nodes))]
        good, older = stage.directory / "good", stage.directory / "older"
        await _stop(node)
        await asyncio.to_thread(copy_directory, node.data_dir, older)
        for _ in range(2):  # started twice since, so that no number of starts makes the copy the newest
            await _expect(stage, node, None)
            await _stop(node)
        await asyncio.to_thread(copy_directory, node.data_dir, good)
        await asyncio.to_thread(empty_directory, node.data_dir)
        await _expect(stage, node, Advice.REPLACE)
        node.kill()
        await _put_back(stage, node, older)
        await _expect(stage, node, Advice.REPLACE)
        node.kill()
        await _put_back(stage, node, good)
        await _expect(stage, node, None)
        await self._start_copy(stage, node, good)

    async def _start_copy(self, stage: ChaosStage, node: NodeProcess, good: Path) -> None:
        """A second process with the same id, on a copy of the directory from before this start."""
        copy = impostor(node, stage.directory / "copy")
        await asyncio.to_thread(copy_directory, good, copy.data_dir)
        try:
            await _expect(stage, copy, Advice.REPLACE)
        finally:
            copy.kill()
        assert node.is_running, "the copy has stopped the original"

    def describe(self) -> str:
        return self.kind


async def _expect(stage: ChaosStage, node: NodeProcess, advice: Advice | None) -> None:
    """Start a node: it must serve (None), or be told that it does not belong here."""
    verdict = await start_and_judge(stage, node)
    assert verdict.advice is advice, f"node {node.node_id}: expected {advice}, found {verdict}"
    if advice is not None:
        stage.met(DirectoryLost.kind)
        stage.note(f"node {node.node_id}: {verdict.said}")


def impostor(node: NodeProcess, data_dir: Path) -> NodeProcess:
    """A second process of the same id, with another directory and ports of its own."""
    client, peer = (f"127.0.0.1:{port}" for port in free_ports(2))
    own = msgspec.structs.replace(node.own, client_address=client, peer_address=peer)
    changed = {node.data_dir: str(data_dir), node.own.client_address: client, node.own.peer_address: peer}
    arguments = [changed.get(argument, argument) for argument in node.arguments]
    if "--http" in arguments:
        at = arguments.index("--http")
        del arguments[at : at + 2]
    return NodeProcess(node.member, str(data_dir), arguments, dict(node.environment), listens=own, launch=node.launch)
