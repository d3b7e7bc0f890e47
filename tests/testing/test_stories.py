"""Stories by hand: a test that gets a cluster, in virtual time, looked at all the time."""

from __future__ import annotations

import pytest

from raftkv.testing import Failure, SimCluster, play, scenario
from raftkv.testing.judging.checks import ElectionSafety
from tests.testing.machines import Inventory


@scenario(Inventory)
async def test_what_was_acknowledged_stays(cluster: SimCluster) -> None:
    """The leader crashes, and another one knows (F4)."""
    inventory = cluster.client().remote
    await inventory.receive("apple", 3)
    leader = await cluster.until_leader()
    cluster.nodes[leader.node_id].crash()
    assert await inventory.on_hand("apple") == 3


@scenario(Inventory, size=1)
async def test_a_story_may_use_fixtures(cluster, tmp_path, monkeypatch):
    """All but the first argument are pytest's."""
    assert tmp_path.is_dir()
    assert len(cluster.nodes) == 1
    monkeypatch.setattr(cluster, "events", [])


def test_a_story_that_fails_tells_its_seed():
    """What it raised comes out, with the seed of its world."""

    async def story(cluster):
        raise LookupError("lost")

    with pytest.raises(LookupError, match="lost") as caught:
        play(Inventory, story, seed=5)
    assert caught.value.__notes__ == ["in the simulated world of seed 5"]


def test_invariants_are_looked_at_meanwhile(monkeypatch):
    """A story needn't check what raftkv promises."""

    def never(self, node):
        raise AssertionError("two leaders")

    monkeypatch.setattr(ElectionSafety, "look_at", never)

    async def story(cluster):
        await cluster.client().remote.receive("apple", 3)

    with pytest.raises(Failure, match="ElectionSafety: two leaders"):
        play(Inventory, story)


def test_the_same_seed_is_the_same_story():
    """And another seed another one."""

    def told(seed):
        events = []

        async def story(cluster):
            await cluster.client().remote.receive("apple", 3)
            leader = await cluster.until_leader()
            events.append((leader.node_id, cluster.loop.time()))

        play(Inventory, story, seed=seed)
        return events

    assert told(1) == told(1) != told(2)
