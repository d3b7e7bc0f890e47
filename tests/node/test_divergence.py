"""Replicas that differ at an index: the majority decides who stops, and without one everybody does (F76)."""

from __future__ import annotations

import itertools
import random

import msgspec
import pytest

from raftkv.errors import (
    Diverged,
    StateCorruption,
)
from raftkv.kv import KeyValue
from raftkv.model import Membership
from raftkv.node.digests import DigestComparer, NoMajority, Outlier
from raftkv.testing import elapse, scenario
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
    assert digests.report(3, 11, 222, three) == Outlier(2, 10), "nobody need report again for that"
    assert digests.report(3, 12, 333, three) is None, "it was told"
    assert digests.report(2, 12, 998, three) == Outlier(2, 12), "but has not heard"


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
    assert digests.report(3, 10, 999, three) == Outlier(1, 10)


def test_a_learner_that_differs_is_named_when_voters_agree():
    """A learner has no vote on the truth."""
    digests = comparer()
    membership = Membership.of((1, 2, 3), (4,))
    assert digests.report(2, 12, 333, membership) is None
    assert digests.report(4, 10, 5, membership) == Outlier(4, 10)


def test_of_two_that_differ_both_are_in_doubt():
    """There is no majority to ask, and the leader is as likely to be wrong."""
    digests, two = comparer(), Membership.of((1, 2))
    assert digests.report(2, 10, 111, two) is None
    assert digests.report(2, 12, 999, two) == NoMajority(12, ((1,), (2,)), agreed_index=10)


def test_what_a_silent_voter_holds_may_decide():
    """One differs and the third is down: the leader can't know that it is right, and waits."""
    digests, three = comparer(), Membership.of((1, 2, 3))
    assert digests.report(3, 10, 111, three) is None
    assert digests.report(2, 12, 999, three) is None
    assert digests.doubt(three) is not None
    assert digests.silent(three) == [3], "it has told nothing of that entry"
    assert digests.report(3, 12, 333, three) == Outlier(2, 12)
    assert digests.doubt(three) is None


def test_a_difference_is_not_forgotten_with_the_process():
    """Whoever differed has gone, and the leader is as doubtful as before, until a majority agrees with it."""
    digests, three = comparer(), Membership.of((1, 2, 3))
    assert digests.report(2, 10, 999, three) is None
    digests.forget(2)
    assert digests.doubt(three) is not None
    assert digests.judge(Membership.of((1, 2))) is None, "what it will hold is not known"
    assert digests.report(2, 11, 222, three) is None
    assert digests.doubt(three) is None, "it has been made anew"


def test_those_that_differ_are_compared_at_one_index():
    """Two that differ from the leader at different entries may have the same state, or not."""
    digests, three = comparer(), Membership.of((1, 2, 3))
    assert digests.report(2, 10, 999, three) is None
    assert digests.report(3, 11, 998, three) is None
    digests.ask(12)
    assert digests.silent(three) == [2, 3]
    assert digests.report(2, 12, 997, three) is None
    assert digests.report(3, 12, 996, three) == NoMajority(12, ((1,), (2,), (3,)), agreed_index=0)


def test_who_differs_will_not_come_round():
    """Though it is not heard at the newest entry: digests are chained."""
    digests = comparer()
    assert digests.report(2, 10, 999, Membership.of((1, 2, 3))) is None
    digests.ask(12)
    assert digests.judge(Membership.of((1, 2, 3))) is None
    assert digests.judge(Membership.of((1, 2))) == NoMajority(12, ((1,),), agreed_index=0)


def test_in_a_joint_membership_both_majorities_must_agree():
    """A state that wins in one of the two wins nothing."""
    joint = Membership(voters=(1, 2, 3), outgoing=(1, 4, 5), members=Membership.of((1, 2, 3, 4, 5)).members)
    digests = comparer()
    assert digests.report(2, 12, 333, joint) is None
    assert digests.report(4, 12, 999, joint) is None
    assert digests.report(5, 12, 999, joint) == NoMajority(12, ((1, 2), (4, 5)), agreed_index=0)


def test_the_last_agreement_is_that_of_a_majority():
    """Also when it was in an earlier term: from there on a state can be made anew."""
    digests, five = comparer(), Membership.of((1, 2, 3, 4, 5))
    digests.report(2, 10, 111, five)
    digests.report(3, 11, 222, five)
    digests.clear()
    found = [digests.report(node, 12, 900 + node, five) for node in (2, 3, 4)]
    assert found == [None, None, NoMajority(12, ((1,), (2,), (3,), (4,)), agreed_index=10)]


def partitions(size):
    """Every way in which `size` voters can hold different states: for each voter the number of its state."""
    return [
        states
        for states in itertools.product(range(size), repeat=size)
        if all(state <= max(states[:at], default=-1) + 1 for at, state in enumerate(states))
    ]


def verdict(states, heard):
    """What is certain when node 1 has heard these: tried with everything that the silent ones may hold."""
    size = len(states)
    known = {1: states[0], **{node: states[node - 1] for node in heard}}
    if len({*known.values()}) == 1:
        return None
    silent = [node for node in range(1, size + 1) if node not in known]
    won = set()
    for held in itertools.product(range(2 * size), repeat=len(silent)):
        all_states = [*known.values(), *held]
        won.add(next((state for state in {*all_states} if 2 * all_states.count(state) > size), None))
    if won == {None}:
        return "nobody"
    for state in {*known.values()}:
        if 2 * [*known.values()].count(state) > size:
            return state
    return "open"


@pytest.mark.parametrize("size", [2, 3, 4, 5])
def test_whatever_replicas_hold_it_is_decided_as_soon_as_it_is_certain(size):
    """Every way to differ, every order in which followers are heard, and what is silent may be anything."""
    voters = Membership.of(tuple(range(1, size + 1)))
    for states in partitions(size):
        for order in itertools.permutations(range(2, size + 1)):
            digests = DigestComparer(1, {10: 0}.get)
            told = set()
            for at, node in enumerate(order, 1):
                found = digests.report(node, 10, states[node - 1], voters)
                expected = verdict(states, order[:at])
                text = f"{states} {order[:at]}: {found}"
                if expected == "nobody":
                    assert isinstance(found, NoMajority), text
                    assert sorted(each for side in found.sides for each in side) == sorted((1, *order[:at])), text
                    assert all(len({states[each - 1] for each in side}) == 1 for side in found.sides), text
                    break
                if expected is None or expected == "open":
                    assert found is None, text
                    assert (digests.doubt(voters) is not None) == (expected == "open"), text
                    continue
                if expected != states[0]:
                    assert found == Outlier(1, 10), text
                    break
                assert digests.doubt(voters) is None, text
                for _ in range(size):
                    if found is not None:
                        assert isinstance(found, Outlier), text
                        assert states[found.node - 1] != states[0], text
                        told.add(found.node)
                        found = digests.judge(voters)
                assert told == {each for each in order[:at] if states[each - 1] != states[0]}, text


@pytest.mark.parametrize("seed", range(300))
def test_reports_of_any_index_accuse_nobody_wrongly(seed):
    """Replicas part at random entries, tell of random ones, die and answer again: what is said of them is true, and
    when all have answered it is said."""
    dice = random.Random(seed)
    size, last = dice.randint(2, 5), 20
    chains = {1: [0] * (last + 1)}
    for node in range(2, size + 1):
        other = chains[dice.randint(1, node - 1)]
        parts = dice.choice([last + 1, dice.randint(1, last)])
        chains[node] = [digest if index < parts else 1000 * node + index for index, digest in enumerate(other)]
    voters = Membership.of(tuple(chains))
    digests = DigestComparer(1, chains[1].__getitem__)
    ends = [chain[last] for chain in chains.values()]
    winner = next((end for end in ends if 2 * ends.count(end) > size), None)
    found = None
    for index in sorted(dice.randint(1, last) for _ in range(12)) + [last] * (6 * size):
        node = dice.randint(2, size)
        if dice.random() < 0.1:
            digests.forget(node)
        digests.ask(index)
        found = digests.report(node, index, chains[node][index], voters)
        if isinstance(found, NoMajority):
            assert all(len({chains[each][found.index] for each in side}) == 1 for side in found.sides)
            assert winner is None
            held = [chain[found.agreed_index] for chain in chains.values()]
            assert 2 * held.count(chains[1][found.agreed_index]) > size
            return
        if found is not None:
            parted = [chain[found.index] for chain in chains.values()]
            wrong = chains[found.node][found.index]
            assert 2 * parted.count(wrong) <= size
            if found.node == 1:
                return
    for node in range(2, size + 1):
        found = digests.report(node, last, chains[node][last], voters) or found
        assert not isinstance(found, Outlier) or found.node != 1 or winner not in (None, ends[0])
        if isinstance(found, NoMajority) or found == Outlier(1, last):
            return
    assert winner == ends[0]
    assert digests.doubt(voters) is None


def test_learners_never_outvote_a_leader():
    """The only voter of a cluster that begins to grow, and a leader with one other opinion against it (F54)."""
    digests = comparer()
    assert digests.report(2, 10, 999, Membership.of((1,), (2,))) == Outlier(2, 10)
    digests, three = comparer(), Membership.of((1, 2, 3), (4, 5))
    assert digests.report(4, 10, 998, three) is None
    assert digests.doubt(three) is None
    digests = comparer()
    assert digests.report(2, 10, 999, three) is None
    assert digests.report(4, 10, 998, three) is None
    assert digests.report(5, 10, 997, three) is None
    assert digests.report(3, 12, 333, three) == Outlier(2, 10)


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
    distrusted = await sim.node.orders.take_snapshot()
    runner = sim.node.applier.runner
    runner.applied = msgspec.structs.replace(runner.applied, digest=runner.applied.digest ^ 1)
    runner.store.write({}, runner.applied)
    await fill(client, 20, start=600)
    await cluster.until(lambda: sim.node.failure is not None, 10, "it stops again")
    await cluster.until(lambda: sim.disk.exists("/data/state.unfit"), 5, "it is written down")
    sim.crash()
    with pytest.raises(StateCorruption, match="--rebuild"):
        await sim.start()
    others = [node_id for node_id in cluster.nodes if node_id != sim.node_id]
    for other in others:
        cluster.network.cut(sim.node_id, other)
    await sim.start(rebuild=True)
    await elapse(2)
    sim.crash()
    with pytest.raises(StateCorruption, match="--rebuild"):
        await sim.start()  # a snapshot of the state that had diverged is not taken for a sound one, ever
    cluster.network.heal()
    await sim.start(rebuild=True)
    await cluster.until_equal()
    assert distrusted not in [snapshot.index for snapshot in sim.node.opened.snapshots.list()]
    await client.close()
