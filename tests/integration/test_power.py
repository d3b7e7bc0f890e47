"""Power loss on real file systems: what was acknowledged is there, and without fsync the checkers notice."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from tests.chaos.clients import MACHINE, recorded
from tests.chaos.fault import RealFault
from tests.chaos.filesystem import KINDS, Image, images, missing
from tests.chaos.points import PowerCutAt
from tests.chaos.power import MOMENTS, CutAtMoment, PowerCut, WholePowerCut
from tests.chaos.stage import ChaosStage
from tests.chaos.transfers import SETTINGS
from tests.forked import ForkedCluster
from tests.integration.nodes import start, tell

pytestmark = pytest.mark.root

POINTS = ("atomic.after_rename", "log.segment.created", "snapshot.rename.after", "install.state_renamed")
"""Names that are not durable yet."""

Making = Callable[[str, random.Random], RealFault]


def _or_skipped(kind: str) -> object:
    reason = missing(kind)
    return pytest.param(kind, marks=pytest.mark.skipif(reason is not None, reason=reason or ""))


file_systems = pytest.mark.parametrize("kind", [_or_skipped(kind) for kind in KINDS])


@file_systems
def test_a_cut_takes_what_was_not_synced_and_nothing_else(kind: str, tmp_path: Path) -> None:
    """The fault itself: data and names that were not synced are gone, synced ones are there (F12)."""
    with Image(kind, tmp_path / "image", tmp_path / "disk") as image:
        file = os.open(tmp_path / "disk" / "file", os.O_RDWR | os.O_CREAT)
        os.write(file, b"synced")
        os.fsync(file)
        os.write(file, b", not synced")
        os.close(file)
        (tmp_path / "disk" / "other").write_text("not synced")
        image.cut()
        with pytest.raises(OSError):
            (tmp_path / "disk" / "third").write_text("to a disk without power")
        image.unmount()
        image.mount()
        assert (tmp_path / "disk" / "file").read_bytes() == b"synced"
        assert not (tmp_path / "disk" / "other").exists()
    assert not (tmp_path / "image").exists()
    assert not os.path.ismount(tmp_path / "disk")


def cut(
    tmp_path: Path,
    kind: str,
    faults: Sequence[Making],
    *,
    size: int = 3,
    arguments: Sequence[str] = (),
    module: str = "raftkv",
) -> ChaosStage:
    """These faults one after the other on a cluster whose nodes have a file system each, and the verdict."""
    cluster = ForkedCluster(tmp_path, size, arguments=[*MACHINE, *arguments])
    for node in cluster.nodes.values():
        node.module = module
    with images(kind, {node.node_id: node.data_dir for node in cluster.nodes.values()}) as disks, cluster:
        stage = start(cluster, tmp_path)
        stage.images = disks
        tell(_cut(stage, kind, faults))
        return stage


async def _cut(stage: ChaosStage, kind: str, faults: Sequence[Making]) -> None:
    await stage.leader()
    async with recorded(stage.cluster.addresses) as clients:
        await clients.more(10)
        for make in faults:
            fault = make(kind, stage.dice)
            await fault.inject(stage)
            await fault.heal(stage)
            assert stage.fired[fault.kind], f"{fault.kind} did nothing: {stage.notes}"
            await stage.leader()
            await clients.more(20)
    await stage.until_equal()


@file_systems
def test_nothing_is_lost_when_the_power_of_one_node_or_of_all_goes(kind: str, tmp_path: Path) -> None:
    """The leader's or a follower's disk, then all at once (F1, F2, F4, F7)."""
    cut(tmp_path, kind, [lambda *more: PowerCut(*more, times=2), lambda *more: WholePowerCut(*more, times=2)])


@pytest.mark.parametrize("kind", [_or_skipped("ext4")])
def test_a_cluster_of_one_loses_nothing_either(kind: str, tmp_path: Path) -> None:
    """F5: a leader that counts its own entry before it is synced would, and nobody else has it."""
    cut(tmp_path, kind, [lambda *more: WholePowerCut(*more, times=3)], size=1)


@pytest.mark.parametrize("kind", [_or_skipped("xfs")])
def test_names_that_change_when_the_power_goes_are_the_old_or_the_new_ones(kind: str, tmp_path: Path) -> None:
    """While snapshots are taken and installed, and right after renames (F12, F59, F60).

    Here on the file system that orders less, at some moments; runs of chaos do it on both, at all of them.
    """
    moments = [MOMENTS[0], MOMENTS[-1]]
    cut(
        tmp_path,
        kind,
        [lambda *more: CutAtMoment(*more, moments), lambda *more: PowerCutAt(*more, POINTS)],
        arguments=SETTINGS,
    )


class CutAfterOneSync(WholePowerCut):
    """What there is is synced once from outside, so that careless nodes find sound files again, and too old ones."""

    async def inject(self, stage: ChaosStage) -> None:
        for image in stage.images.values():
            image.sync()
        await super().inject(stage)


@pytest.mark.parametrize("kind", [_or_skipped("ext4")])
def test_nodes_that_do_not_sync_are_found_out(kind: str, tmp_path: Path) -> None:
    """A test of the tests: the same cut, with nodes that lie about fsync, loses what was acknowledged."""
    with pytest.raises(AssertionError, match="is not linearizable"):
        cut(
            tmp_path,
            kind,
            [lambda *more: CutAfterOneSync(*more, times=1, before_s=(1.0, 1.0))],
            module="tests.integration.careless",
        )
