"""Stories by hand: a test that gets a cluster, in virtual time, looked at all the time."""

from __future__ import annotations

import pytest

from raftkv.errors import InvalidArgument
from raftkv.testing import Failure, SimCluster, elapse, play, scenario
from raftkv.testing.judging.checks import ElectionSafety
from raftkv.testing.judging.watching import Watch
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


def test_a_story_goes_without_what_it_breaks_on_purpose(monkeypatch):
    """By the name that its failure has; a name that there isn't is a mistake."""

    def never(self, node):
        raise AssertionError("two leaders")

    monkeypatch.setattr(ElectionSafety, "look_at", never)

    async def story(cluster):
        await cluster.client().remote.receive("apple", 3)

    play(Inventory, story, without=["ElectionSafety"])
    with pytest.raises(InvalidArgument, match=r"no invariants \['ElectionSavety'\]"):
        play(Inventory, story, without=["ElectionSavety"])


@scenario(Inventory, started=False)
async def test_a_story_may_start_its_nodes_itself(cluster):
    """Nothing runs before it begins."""
    assert not cluster.running
    await cluster.start()
    await cluster.until_leader()


def test_a_slow_story_is_looked_at_less_often(monkeypatch):
    """Each look takes real time."""
    looks = []
    monkeypatch.setattr(Watch, "look", lambda self: looks.append(1))

    async def story(cluster):
        await elapse(100)

    play(Inventory, story, look_s=10.0)
    assert 10 <= len(looks) <= 12


def test_a_story_ends_with_the_end_of_every_node():
    """Also of those that hang, are stopped, or have a failing disk; an end that fails is a failure."""

    async def story(cluster):
        one, two, three = cluster.nodes.values()
        one.hang()
        two.freeze()
        three.fail_at_operation(1)
        left.append(cluster)

    left = []
    play(Inventory, story)
    assert not any(sim.is_up for sim in left[0].nodes.values())

    async def fails(cluster):
        async def stop():
            raise LookupError("lost")

        cluster.nodes[1].node.stop = stop

    with pytest.raises(LookupError, match="lost"):
        play(Inventory, fails)


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
