"""Damaged, lost, old and copied files of real nodes: noticed, said, and mended as the README says."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from raftkv.client import Admin
from raftkv.errors import RaftKVError
from raftkv.processes.cluster import NodeProcess, ProcessCluster, member_argument
from tests.chaos.clients import MACHINE, recorded
from tests.chaos.damage import Advice, Damage, durable_files, part_of, start_and_judge
from tests.chaos.fault import RealFault
from tests.chaos.stage import ChaosStage
from tests.chaos.transfers import SETTINGS
from tests.chaos.vandals import DirectoryLost, FilesDamaged, ForeignFiles, impostor
from tests.forked import ForkedCluster
from tests.integration.nodes import start, tell

MORE = ("--set", "snapshot_entries=50", "--set", "state_flush_entries=20")
"""So that there are snapshots, and states in several files, after a moment."""


@pytest.mark.parametrize(
    "makes",
    [
        [lambda dice: FilesDamaged(dice, times=6)],
        [lambda dice: FilesDamaged(dice, [Damage.CUT, Damage.GONE, Damage.OLDER], times=5)],
        [DirectoryLost, lambda dice: ForeignFiles(dice, times=1)],
    ],
    ids=["flipped", "cut", "of others"],
)
def test_files_that_are_damaged_are_noticed_or_do_no_harm(
    makes: Sequence[Callable[[random.Random], RealFault]], tmp_path: Path
) -> None:
    """F8 to F11, F19, F61: flipped bits in any file, files that end early, are missing, or are as they were before.

    No node serves or votes from damaged data, it says what to do, and that helps. F20, F21, F22: who comes with an
    empty, an older or a copied directory must not count, nor anybody twice. F77: nothing is believed that was brought
    from another node or cluster.
    """

    async def story(stage: ChaosStage) -> None:
        await stage.leader()
        async with recorded(stage.cluster.addresses, clients=12) as clients:
            await clients.more(150)
            for make in makes:
                fault = make(stage.dice)
                await fault.inject(stage)
                assert stage.fired[fault.kind] >= 2, f"{fault.kind} did too little: {stage.notes}"
                await stage.leader()
                await clients.more(20)
        await stage.until_equal()

    with ForkedCluster(tmp_path, 3, arguments=[*MACHINE, *SETTINGS, *MORE]) as cluster:
        tell(story(start(cluster, tmp_path)))


def test_a_node_with_a_damaged_log_is_replaced_as_the_readme_says(tmp_path: Path) -> None:
    """F9: removed, and a new one added under a new id, which gets everything from the others."""

    async def story(stage: ChaosStage) -> None:
        cluster = stage.cluster
        await stage.leader()
        async with recorded([cluster.nodes[node_id].member.client_address for node_id in (1, 2)]) as clients:
            await clients.more(100)
            node = cluster.nodes[3]
            assert node.terminate() == 0
            (segment, *_) = [name for name in durable_files(node.data_dir) if part_of(name) == "log segment"]
            with (Path(node.data_dir) / segment).open("r+b") as file:
                file.seek(8)
                file.write(b"\xff" * 8)
            verdict = await start_and_judge(stage, node)
            assert verdict.advice is Advice.REPLACE
            assert "new id" in verdict.said
            others = [cluster.nodes[node_id].member.client_address for node_id in (1, 2)]
            async with Admin(others) as admin:
                await admin.remove(3)
                del cluster.nodes[3]
                new = cluster.add(4)
                new.start()
                await admin.add_learner(new.member)
                await admin.promote(4)
            await clients.more(20)
        await stage.until_equal()

    with ForkedCluster(tmp_path, 3, arguments=[*MACHINE, *SETTINGS, *MORE]) as cluster:
        tell(story(start(cluster, tmp_path)))


def told_of(other: ProcessCluster, node: NodeProcess, data_dir: Path) -> NodeProcess:
    """The node with the peer list of another cluster: that one's nodes 1 and 2, and itself."""
    stray = impostor(node, data_dir)
    words = iter(stray.arguments)
    kept = [word for word in words if word != "--member" or not next(words)]
    members = [*(other.nodes[node_id].own for node_id in (1, 2)), stray.own]
    stray.arguments = kept + [word for member in members for word in ("--member", member_argument(member))]
    return stray


def test_nodes_that_are_told_of_another_cluster_are_refused(tmp_path: Path) -> None:
    """F23: with its own data it does not start; with none it is refused by each node of the other cluster."""

    async def story(stage: ChaosStage, other: ChaosStage) -> None:
        node = stage.cluster.nodes[3]
        await stage.leader()
        await other.leader()
        assert node.terminate() == 0
        stray = told_of(other.cluster, node, Path(node.data_dir))
        stray.start()
        assert stray.process is not None
        assert stray.process.wait(30) == 5
        assert "belongs to the cluster" in stray.log_path.read_text()
        fresh = told_of(other.cluster, node, tmp_path / "fresh")
        fresh.start()
        try:
            await other.until(lambda: _refused(fresh), "both peers refusing the stranger")
        finally:
            fresh.kill()
        node.start()
        await stage.until_equal()
        await other.until_equal()

    with (
        ForkedCluster(tmp_path / "one", 3, arguments=MACHINE) as one,
        ForkedCluster(tmp_path / "two", 3, arguments=MACHINE) as two,
    ):
        tell(story(start(one, tmp_path), start(two, tmp_path)))


async def _refused(node: NodeProcess) -> bool | None:
    try:
        async with Admin([node.own.client_address]) as admin:
            peers = (await admin.status(2.0))["peers"]
    except RaftKVError:
        return None
    return all("belongs to the cluster" in (peer["refused"] or "") for peer in peers) or None
