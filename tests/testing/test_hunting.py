"""The search for a script that fails: what is drawn once is tried in every way, and made small where it fails."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import strategies as st

from raftkv.testing.judging.failure import Cause, CounterExample
from raftkv.testing.trying import hunting
from raftkv.testing.trying.budget import BUDGETS
from raftkv.testing.trying.hunting import Hunt
from raftkv.testing.trying.script import Script

LIMIT = 1_000


class Trials:
    """Scripts with nothing but a seed, how many were drawn, and which were tried; two ways of trying."""

    def __init__(self, budget):
        self.budget = budget
        self.drawn = 0
        self.alone, self.in_a_world = [], []
        self.scripts = st.integers(0, 2**16).map(self._drawn)

    def _drawn(self, seed):
        self.drawn += 1
        return Script(seed=seed)

    def pass_alone(self, script, only):
        """Nothing is wrong with a script alone."""
        self.alone.append(script)

    def pass_in_a_world(self, script, only):
        """Nor with others."""
        self.in_a_world.append(script)

    def fail_in_a_world(self, script, only):
        """Too large a seed is."""
        self.in_a_world.append(script)
        if script.seed >= LIMIT:
            raise CounterExample(Cause.BROKEN, f"{script.seed} is too large")

    def hunts(self, attempt):
        """A hunt in which all pass, and the next one."""
        alone = Hunt(self.scripts, self.pass_alone, self.budget)
        assert alone.run() is None
        return alone, Hunt(self.scripts, attempt, self.budget, before=alone)


@pytest.fixture(params=["quick", "soak"])
def trials(request):
    """With seeds that are always the same, and with new ones."""
    return Trials(msgspec.structs.replace(BUDGETS[request.param], examples=20, shrinks=120))


def test_what_was_drawn_is_not_drawn_again(trials):
    """The next hunt tries the very scripts of the one before, in their order."""
    _, next_one = trials.hunts(trials.pass_in_a_world)
    drawn = trials.drawn
    assert next_one.run() is None
    assert trials.drawn == drawn
    assert trials.in_a_world == trials.alone and len(trials.alone) > 10


def test_what_fails_only_in_the_next_way_is_made_small(trials):
    """Hypothesis finds it again among the same scripts, and none is tried twice."""
    _, next_one = trials.hunts(trials.fail_in_a_world)
    script, error = next_one.run()
    assert script.seed == LIMIT and error.described == f"{LIMIT} is too large"
    seeds = [each.seed for each in trials.in_a_world]
    assert len(seeds) == len(set(seeds))
    found = next(at for at, seed in enumerate(seeds) if seed >= LIMIT)
    assert trials.in_a_world[: found + 1] == trials.alone[: found + 1]


def test_long_scripts_have_a_number_of_their_own_and_are_trimmed_only(trials):
    """Hypothesis makes no seed smaller than it has found it."""
    trials.budget = msgspec.structs.replace(trials.budget, examples=1, long_scripts=15)
    assert Hunt(trials.scripts, trials.pass_alone, trials.budget, are_long=True).run() is None
    assert len(trials.alone) > 10
    script, _ = Hunt(trials.scripts, trials.fail_in_a_world, trials.budget, are_long=True).run()
    assert [each.seed for each in trials.in_a_world if each.seed >= LIMIT] == [script.seed]


def test_more_than_can_be_kept_are_drawn_again(trials, monkeypatch):
    """The same ones, whatever the seed."""
    monkeypatch.setattr(hunting, "KNOWN_MAX", 5)
    _, next_one = trials.hunts(trials.pass_in_a_world)
    drawn = trials.drawn
    assert next_one.run() is None
    assert trials.drawn > drawn
    assert trials.in_a_world == trials.alone
