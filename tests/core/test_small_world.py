"""A small cluster, exhaustively: no reachable state breaks the safety properties of Figure 3."""

from __future__ import annotations

import random

import pytest

from tests.campaign.large import IS_LARGE
from tests.core.harness import small_world
from tests.core.harness.small_world import Search, View

STATES = 100_000 if IS_LARGE else 30_000


@pytest.mark.parametrize("late_writes", [True, False])
def test_no_state_of_a_small_world_is_unsafe(late_writes, record_property):
    """Three nodes, two terms, two commands, lost messages, one crash: breadth-first, each state checked.

    `tools/small_world` goes on from here to more than a million states.
    """
    search = Search(late_writes=late_writes)
    search.breadth_first(STATES)
    search.walk(1_000, random.Random(1))
    result = search.result
    record_property("states", result.states)
    print(f"{result.states} states, {result.node_states} of single nodes, depth {result.depth}")
    assert result.states >= STATES
    assert {term for term, _ in result.leaders} == {1, 2}, "both terms must have seen leaders"
    assert result.committed_most >= 3, "something must have been committed"


def test_a_world_small_enough_is_searched_to_its_end():
    """One term and one command: the search ends by itself, and every node has led."""
    search = Search(terms=1, commands=1, crashes=0, late_writes=False)
    search.breadth_first(1_000_000)
    result = search.result
    assert result.complete
    assert result.leaders == {(1, 1), (1, 2), (1, 3)}
    assert result.committed_most == 2


@pytest.mark.parametrize(
    ("views", "law"),
    [
        ([View(2, True, (), ()), View(2, True, (), ()), View(1, False, (), ())], "Election Safety"),
        ([View(2, False, (7, 8), (7, 8)), View(2, False, (7, 9), (7, 9))], "State Machine Safety"),
        ([View(3, True, (7,), (7,)), View(2, False, (7, 8), (7, 8))], "Leader Completeness"),
    ],
)
def test_the_checker_rejects_what_it_must(views, law):
    """The search would be worth nothing if its checks could not fail."""
    with pytest.raises(AssertionError, match=law):
        small_world.check(views)
