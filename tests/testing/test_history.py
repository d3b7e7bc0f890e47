"""The checker of histories: it accepts what one machine could have done, and rejects what none could."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raftkv.testing.judging.history import UNKNOWN, History, Operation, counter, is_linearizable, register


def op(client, name, argument, called, returned=math.inf, result=UNKNOWN):
    """An operation on the only key."""
    return Operation(client, "k", name, argument, called, returned, result)


REJECTED = {
    "a read after a write that saw the old value": [
        op(1, "write", "x", 0, 1, None),
        op(2, "read", None, 2, 3, None),
    ],
    "two reads that saw a write come and go": [
        op(1, "write", "x", 0, 10, None),
        op(2, "read", None, 1, 2, "x"),
        op(2, "read", None, 3, 4, None),
    ],
    "a read of what was never written": [op(1, "read", None, 0, 1, "x")],
    "a read that overtakes its write": [op(1, "read", None, 0, 1, "x"), op(2, "write", "x", 2, 3, None)],
    "two winners of one compare-and-set": [
        op(1, "compare", (None, "a"), 0, 5, True),
        op(2, "compare", (None, "b"), 0, 5, True),
    ],
    "an unknown write seen, then not": [
        op(1, "write", "x", 0),
        op(2, "read", None, 1, 2, "x"),
        op(3, "read", None, 3, 4, None),
    ],
    "a lost acknowledged write": [
        op(1, "write", "x", 0, 1, None),
        op(1, "write", "y", 2, 3, None),
        op(2, "read", None, 4, 5, "x"),
    ],
}

ACCEPTED = {
    "nothing": [],
    "a read during a write may see either": [
        op(1, "write", "x", 0, 10, None),
        op(2, "read", None, 1, 2, None),
        op(3, "read", None, 3, 4, "x"),
    ],
    "an unknown write may never happen": [op(1, "write", "x", 0), op(2, "read", None, 5, 6, None)],
    "an unknown write may happen late": [
        op(1, "write", "x", 0),
        op(2, "read", None, 5, 6, None),
        op(2, "read", None, 7, 8, "x"),
    ],
    "concurrent compare-and-sets have one winner": [
        op(1, "compare", (None, "a"), 0, 5, True),
        op(2, "compare", (None, "b"), 0, 5, False),
    ],
}


@pytest.mark.parametrize("name", REJECTED)
def test_what_no_machine_could_do_is_rejected(name):
    """A checker that accepts everything would be no checker."""
    assert not is_linearizable(REJECTED[name], register, None)


@pytest.mark.parametrize("name", ACCEPTED)
def test_what_a_machine_could_do_is_accepted(name):
    """And one that rejects the truth would be noise."""
    assert is_linearizable(ACCEPTED[name], register, None)


def test_a_command_applied_twice_is_rejected():
    """Counters tell: two increments can't leave three, nor give the same value."""
    twice = [op(1, "increment", 1, 0, 1, 1), op(1, "increment", 1, 2, 3, 3)]
    same = [op(1, "increment", 1, 0, 5, 1), op(2, "increment", 1, 0, 5, 1)]
    lost = [op(1, "increment", 1, 0, 1, 1), op(2, "read", None, 2, 3, 0)]
    unknown_twice = [op(1, "increment", 1, 0), op(2, "read", None, 2, 3, 2)]
    for history in (twice, same, lost, unknown_twice):
        assert not is_linearizable(history, counter, 0)


@given(st.integers(0, 2**32), st.integers(1, 4), st.integers(1, 25))
def test_histories_of_a_real_counter_are_accepted(seed, clients, count):
    """Whatever the overlap: operations that take effect at one moment within their times are linearizable."""
    dice = random.Random(seed)
    moments, free_at = [], [0.0] * clients
    for _ in range(count):
        client = dice.randrange(clients)
        called = free_at[client] + dice.random()
        returned = called + dice.random() * 3
        free_at[client] = returned
        moments.append((dice.uniform(called, returned), client, called, returned, dice.choice(["increment", "read"])))
    state, history = 0, []
    for _, client, called, returned, name in sorted(moments):
        operation = op(client, name, 1, called, returned)
        operation.result, state = counter(state, operation)
        if dice.random() < 0.2:
            operation.result, operation.returned = UNKNOWN, math.inf
        history.append(operation)
    assert is_linearizable(history, counter, 0)


def test_problems_show_the_history_of_the_key():
    """Who reads of a failure sees the operations, one a line, and only those of that key."""
    history = History()
    good = history.call(1, "good", "write", "x", 0.0)
    history.returned(good, None, 1.0)
    bad = history.call(2, "bad", "read", None, 2.0)
    history.returned(bad, "ghost", 3.0)
    gone = history.call(3, "bad", "write", "y", 4.0)
    history.refused(gone)
    (problem,) = history.problems(register, None)
    assert problem.splitlines() == [
        "the history of 'bad' is not linearizable:",
        "client 2: read 'bad' None → 'ghost'   [2.000, 3.000]",
    ]


def test_the_time_is_named_at_which_a_history_broke():
    """The first return that can't be true; what came later only hides it."""
    history = History()
    for at, result in ((1.0, 1), (2.0, 2), (3.0, 2), (4.0, 4), (5.0, 5)):
        operation = history.call(1, "n", "increment", 1, at)
        history.returned(operation, result, at + 0.5)
    assert history.broken_at(counter, 0) == 3.5
    history.operations[2].result = 3
    assert history.broken_at(counter, 0) is None
