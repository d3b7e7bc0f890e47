"""Replicas that differ at an index: the majority decides who stops (F76)."""

from __future__ import annotations

import msgspec
import pytest

from raftkv.errors import (
    Diverged,
    StateCorruption,
)
from raftkv.kv import KeyValue
from raftkv.model import Membership
from raftkv.node.divergence import DigestComparer
from raftkv.testing import scenario
from raftkv.testing.world.harm import Harm
from tests.node.steps import fill, follower_of

OWN = {10: 111, 11: 222, 12: 333}


def comparer():
    """A comparer of node 1, which knows its own digests."""
    return DigestComparer(1, OWN.get)


def test_equal_digests_accuse_nobody():
    """Reports that agree say nothing."""
    digests = comparer()
    assert digests.report(2, 10, 111, Membership.of((1, 2, 3))) is None
    assert digests.compared == 1


def test_an_index_that_is_not_known_here_says_nothing():
    """The leader has not applied it yet, or has long left it behind."""
    digests = comparer()
    assert digests.report(2, 99, 1, Membership.of((1, 2, 3))) is None
    assert digests.compared == 0


def test_one_of_three_differs_and_is_named_once_a_third_opinion_is_there():
    """With two against one the one is wrong; before the third has spoken nobody is accused."""
    digests, three = comparer(), Membership.of((1, 2, 3))
    assert digests.report(2, 10, 999, three) is None
    assert digests.report(3, 11, 222, three) == (2, 10), "nobody need report again for that"
    assert digests.report(3, 12, 333, three) is None, "it was told"
    assert digests.report(2, 12, 998, three) == (2, 12), "but has not heard"


def test_a_process_that_ended_takes_its_case_with_it():
    """It may have been rebuilt meanwhile: an opinion from before says nothing of what it is now."""
    digests, three = comparer(), Membership.of((1, 2, 3))
    assert digests.report(2, 10, 999, three) is None
    digests.forget(2)
    assert digests.report(3, 11, 222, three) is None


def test_the_leader_is_named_when_the_majority_differs_from_it():
    """The leader may be the corrupt one (cockroach#837)."""
    digests, three = comparer(), Membership.of((1, 2, 3))
    assert digests.report(2, 10, 999, three) is None
    assert digests.report(3, 10, 999, three) == (1, 10)


def test_a_learner_that_differs_is_named_when_voters_agree():
    """A learner has no vote on the truth."""
    digests = comparer()
    membership = Membership.of((1, 2, 3), (4,))
    assert digests.report(2, 12, 333, membership) is None
    assert digests.report(4, 10, 5, membership) == (4, 10)


def test_of_two_the_follower_stops():
    """There is no majority to ask; the follower can be rebuilt from the leader."""
    assert comparer().report(2, 10, 999, Membership.of((1, 2))) == (2, 10)


def test_learners_never_outvote_a_leader():
    """The only voter of a cluster that begins to grow, and a leader with one other opinion against it (F54)."""
    digests = comparer()
    assert digests.report(2, 10, 999, Membership.of((1,), (2,))) == (2, 10)
    digests, three = comparer(), Membership.of((1, 2, 3), (4, 5))
    assert digests.report(2, 10, 999, three) is None
    assert digests.report(4, 10, 998, three) is None
    assert digests.report(5, 10, 997, three) is None
    assert digests.report(3, 12, 333, three) == (2, 10)


def test_a_stranger_has_no_opinion():
    """Who is no member may say what it likes."""
    digests = comparer()
    assert digests.report(9, 10, 999, Membership.of((1,))) is None
    assert digests.report(9, 10, 999, Membership.of((1, 2, 3))) is None
    assert digests.compared == 0


@scenario(KeyValue, seed=1, without=["DigestsAgree"])  # they do not, on purpose
async def test_a_diverged_replica_is_found_and_stopped(cluster):
    """F76: one replica's state is changed behind its back; it stops, says so, and the others go on."""
    client = cluster.client()
    await fill(client, 20)
    await cluster.until_equal()
    sim = follower_of(cluster)
    sim.harm = Harm.ROT
    runner = sim.node.applier.runner
    runner.applied = msgspec.structs.replace(runner.applied, digest=runner.applied.digest ^ 1)
    runner.store.write({}, runner.applied)
    await fill(client, 20, start=20)
    await cluster.until(lambda: sim.node.failure is not None, 10, "it stops")
    assert isinstance(sim.node.failure, Diverged)
    assert "deterministic" in str(sim.node.failure)
    await fill(client, 20, start=40)
    await cluster.until(lambda: sim.disk.exists("/data/state.unfit"), 5, "it is written down")
    sim.crash()
    await sim.start()
    await cluster.until_equal()
    await fill(client, 500, start=60)
    await cluster.until_equal()
    await sim.node.orders.take_snapshot()
    runner = sim.node.applier.runner
    runner.applied = msgspec.structs.replace(runner.applied, digest=runner.applied.digest ^ 1)
    runner.store.write({}, runner.applied)
    await fill(client, 20, start=600)
    await cluster.until(lambda: sim.node.failure is not None, 10, "it stops again")
    await cluster.until(lambda: sim.disk.exists("/data/state.unfit"), 5, "it is written down")
    sim.crash()
    with pytest.raises(StateCorruption, match="--rebuild"):
        await sim.start()
    await sim.start(rebuild=True)
    await cluster.until_equal()
    await client.close()
