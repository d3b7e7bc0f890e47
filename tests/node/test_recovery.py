"""A start that is cut off is as if it had not begun: what it finds the next time is what it would have found (F88)."""

from __future__ import annotations

import copy
import random
from types import SimpleNamespace

import pytest

from raftkv.kv import KeyValue
from raftkv.node import Options
from raftkv.node.directory import close_directory, open_directory
from raftkv.state import MemoryStates
from raftkv.testing import elapse, play
from raftkv.testing.world.settings import CONFIG
from raftkv.testing.world.workers import Crash
from tests.campaign.large import IS_LARGE
from tests.node.steps import follower_of

IMAGES_MAX = 14 if IS_LARGE else 8
"""Places of the first crash that are looked at in each story, evenly spread."""


class Camera:
    """Keeps what a loss of power at each operation on a node's disk would leave."""

    def __init__(self, sim):
        self.sim = sim
        self.images = []
        sim.disk.fault = self._shot

    def _shot(self, kind, path):
        self.sim.disk.fault = None
        image = copy.deepcopy(self.sim.disk)
        self.sim.disk.fault = self._shot
        image.crash(random.Random(len(self.images)))
        self.images.append(image)

    def stop(self):
        """Keep no more, and spread what there is over its bound."""
        self.sim.disk.fault = None
        step = max(1, len(self.images) // IMAGES_MAX)
        return self.images[::step]


def look(disk, node_id):
    """Open the directory as a start does: all that the node would go on with."""
    world = SimpleNamespace(disk=disk, states=MemoryStates(disk), nonce="nonce")
    opened = open_directory(Options(node_id=node_id, data_dir="/data", config=CONFIG), world)
    found = (
        opened.view.last_id,
        opened.view.start,
        opened.view.membership,
        opened.vote.hard_state,
        opened.snapshot,
        opened.store.applied,
        opened.founding,
        opened.snapshots.damaged(),
        opened.snapshots.refused(),
    )
    close_directory(opened)
    return found


def crash_at(disk, number):
    """Let the power go at the `number`th operation from now."""
    left = number

    def hook(kind, path):
        nonlocal left
        left -= 1
        if left == 0:
            raise Crash

    disk.fault = hook


def check_second_crashes(images, node_id):
    """Cut each start off at each of its operations; returns how many cuts that were."""
    cuts = 0
    for place, image in enumerate(images):
        expected = look(copy.deepcopy(image), node_id)
        number = 1
        while True:
            disk = copy.deepcopy(image)
            crash_at(disk, number)
            try:
                look(disk, node_id)
            except Crash:
                disk.fault = None
                disk.crash(random.Random(number))
            else:
                break
            assert look(disk, node_id) == expected, f"first crash at {place}, second at operation {number}"
            number, cuts = number + 1, cuts + 1
    return cuts


def images_of(story):
    """The images that `story` returns, and whose they are."""
    found = []

    async def told(cluster):
        found.append(await story(cluster))

    play(KeyValue, told, seed=3)
    return found[0]


async def fill(cluster, count, start=0):
    """Write so many keys."""
    async with cluster.client() as remote:
        for number in range(start, start + count):
            await remote.put(b"key-%05d" % number, b"x" * 64)


async def while_writing(cluster):
    """Entries, a membership among them, and segments that end."""
    await fill(cluster, 60)
    sim = follower_of(cluster)
    camera = Camera(sim)
    await cluster.leader.orders.add_learner(cluster.member(9))
    await fill(cluster, 60, 60)
    return camera.stop(), sim.node_id


async def while_taking_a_snapshot(cluster):
    """The log is cut behind it, and an older one goes."""
    sim = follower_of(cluster)
    await fill(cluster, 80)
    await sim.node.orders.take_snapshot()
    await fill(cluster, 80, 80)
    camera = Camera(sim)
    await sim.node.orders.take_snapshot()
    return camera.stop(), sim.node_id


async def while_installing_a_snapshot(cluster):
    """A brand-new node gets everything."""
    await fill(cluster, 300)
    await cluster.leader.orders.take_snapshot()
    sim = cluster.add(4)
    await sim.start()
    camera = Camera(sim)
    await cluster.leader.orders.add_learner(sim.member)
    await cluster.until(lambda: sim.node.snapshots.installed, 30, "it is installed")
    await elapse(1)
    return camera.stop(), sim.node_id


async def while_a_snapshot_replaces_a_longer_log(cluster):
    """A deposed leader has a durable tail that nobody else has, longer than the snapshot, and a bound above it."""
    old = cluster.nodes[cluster.leader.node_id]
    others = [sim for sim in cluster.nodes.values() if sim is not old]
    await fill(cluster, 30)
    for other in others:
        cluster.network.cut(old.node_id, other.node_id)
    for _ in range(400):
        old.node.engine.submit(b"", lambda index, answer: None)
    await cluster.until(lambda: not old.node.raft.is_leader, 30, "it steps down")
    tail = old.node.opened.log.durable_index
    await cluster.until_leader()
    await fill(cluster, 150, 30)
    for other in others:
        await other.node.orders.take_snapshot()
    await fill(cluster, 10, 180)
    for other in others:
        cluster.network.reset(old.node_id, other.node_id)  # what was sent before must not come now
    camera = Camera(old)
    cluster.network.heal()
    await cluster.until(lambda: old.node.snapshots.installed, 30, "it is installed")
    assert old.node.raft.snapshot.index < tail
    await elapse(1)
    return camera.stop(), old.node_id


async def while_a_cut_off_install_is_resumed(cluster):
    """The first start after a crash in the middle of it, with what had arrived."""
    await fill(cluster, 300)
    await cluster.leader.orders.take_snapshot()
    sim = cluster.add(4)
    sim.disk_s = 0.05  # slow enough to be met in the middle of it
    await sim.start()
    await cluster.leader.orders.add_learner(sim.member)
    receiving = sim.node.snapshots.receiving
    await cluster.until(lambda: (found := receiving()) is not None and found.sent_bytes > 0, 30, "some has arrived")
    sim.crash()
    await sim.start()
    camera = Camera(sim)
    await cluster.until(lambda: sim.node.snapshots.installed, 30, "it is installed")
    await elapse(1)
    return camera.stop(), sim.node_id


@pytest.mark.parametrize(
    "story",
    [
        while_writing,
        while_taking_a_snapshot,
        while_installing_a_snapshot,
        while_a_snapshot_replaces_a_longer_log,
        while_a_cut_off_install_is_resumed,
    ],
)
def test_a_second_crash_anywhere_in_the_recovery_changes_nothing(story):
    """F88: the power goes at operations of something under way, and again at each operation of the start after it."""
    images, node_id = images_of(story)
    assert len(images) >= 8
    assert check_second_crashes(images, node_id) >= 100
