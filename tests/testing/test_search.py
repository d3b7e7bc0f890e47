"""The search for an order: it accepts what one machine could have done, and rejects what none could."""

from __future__ import annotations

import itertools
import math
import random
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raftkv.errors import InvalidArgument
from raftkv.testing.judging.operation import UNKNOWN, Operation, counter, register
from raftkv.testing.judging.search import Effort, Verdict, is_linearizable, search


def op(client, name, argument, called, returned=math.inf, result=UNKNOWN):
    """An operation on the only key."""
    return Operation(client, "k", name, argument, called, returned, result, is_read=name == "read")


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
    "an unknown write seen before it was called": [op(1, "read", None, 0, 1, "x"), op(2, "write", "x", 2)],
    "one unknown write seen twice": [
        op(1, "write", "x", 0),
        op(3, "write", "y", 2, 3, None),
        op(3, "read", None, 4, 5, "x"),
        op(3, "write", "y", 6, 7, None),
        op(3, "read", None, 8, 9, "x"),
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
    "a write that changes nothing at first, and is needed later": [
        op(1, "write", "x", 0, 1, None),
        op(2, "write", "x", 2, 9, None),
        op(3, "write", "y", 3, 4, None),
        op(4, "read", None, 5, 6, "y"),
        op(4, "read", None, 7, 8, "x"),
    ],
    "an unknown write beside an equal one of which the end was heard": [
        op(1, "write", "x", 0),
        op(2, "write", "x", 0, 9, None),
        op(3, "read", None, 1, 2, "x"),
        op(3, "write", "y", 3, 4, None),
        op(3, "read", None, 5, 6, "x"),
    ],
    "equal unknown writes, used up one after the other": [
        op(1, "write", "x", 0),
        op(2, "write", "x", 1),
        op(3, "write", "y", 2, 3, None),
        op(3, "read", None, 4, 5, "x"),
        op(3, "write", "y", 6, 7, None),
        op(3, "read", None, 8, 9, "x"),
    ],
    "an unknown write before a known one that could come first": [
        op(1, "write", "x", 0),
        op(2, "write", "y", 0, 10, None),
        op(3, "read", None, 1, 2, "x"),
        op(3, "read", None, 3, 4, "y"),
    ],
    "an unknown write that is not to be used up too early": [
        op(1, "write", "x", 0),
        op(2, "write", "y", 0),
        op(3, "read", None, 1, 2, "y"),
        op(3, "read", None, 3, 4, "x"),
    ],
    "what begins as another ends may come before it": [
        op(1, "write", "x", 0, 1, None),
        op(2, "read", None, 1, 2, None),
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


def explained(operations, model, start):
    """Whether an order explains them, by trying all orders of all that may have been done: short, slow, and right."""
    known = [each for each in operations if each.result is not UNKNOWN]
    unheard = [each for each in operations if each.result is UNKNOWN]
    return any(
        _agrees(order, model, start)
        for count in range(len(unheard) + 1)
        for some in itertools.combinations(unheard, count)
        for order in itertools.permutations([*known, *some])
    )


def _agrees(order, model, state):
    latest = -math.inf
    for operation in order:
        latest = max(latest, operation.called)
        if operation.returned < latest:
            return False
        result, state = model(state, operation)
        if operation.result is not UNKNOWN and result != operation.result:
            return False
    return True


@st.composite
def small_histories(draw):
    """Up to five operations on a register, with times that meet, equal values, and any answers."""
    operations = []
    for client in range(draw(st.integers(0, 5))):
        name = draw(st.sampled_from(["write", "read", "compare"]))
        values = st.integers(0, 1)
        argument = {"write": values, "read": st.none(), "compare": st.tuples(values, values)}[name]
        called = draw(st.integers(0, 6))
        operation = op(client, name, draw(argument), called)
        operation.is_read = name == "read" and draw(st.booleans())
        if draw(st.integers(0, 3)):
            operation.returned = called + draw(st.integers(0, 4))
            operation.result = draw({"write": st.none(), "read": values, "compare": st.booleans()}[name])
        operations.append(operation)
    return operations


@settings(max_examples=300)
@given(small_histories())
def test_it_agrees_with_trying_all_orders(operations):
    """Whatever is left out of the search to make it fast could have changed nothing."""
    assert is_linearizable(operations, register, 0) == explained(operations, register, 0)


def _doubted_by_hand(operations, doubted):
    """All ways to read a history some of whose operations are doubted: each was not done, or gave what it gave."""
    sure = [each for number, each in enumerate(operations) if number not in doubted]
    for count in range(len(doubted) + 1):
        for done in itertools.combinations(sorted(doubted), count):
            yield [*sure, *(operations[number] for number in done)]


@settings(max_examples=100)
@given(small_histories(), st.data())
def test_a_doubted_operation_explains_at_least_as_much(operations, data):
    """What is refuted with doubts is refuted however they are resolved, so that it stands without these operations."""
    ended = [number for number, each in enumerate(operations) if each.result is not UNKNOWN]
    doubted = data.draw(st.sets(st.sampled_from(ended)) if ended else st.just(set()))
    verdict = search(operations, register, 0, doubted=doubted).verdict
    if any(explained(read, register, 0) for read in _doubted_by_hand(operations, doubted)):
        assert verdict is Verdict.LINEARIZABLE
    if not doubted:
        assert (verdict is Verdict.LINEARIZABLE) == explained(operations, register, 0)


def concurrent_increments(count):
    """So many unknown increments by different numbers, and a read that no sum of them gives: hard to refute."""
    return [*(op(client, "increment", 3**client, 0) for client in range(count)), op(0, "read", None, 1, 2, 2)]


def test_a_search_that_takes_too_long_is_given_up():
    """Undecided is neither yes nor no; the number of places is the same on every machine."""
    outcome = search(concurrent_increments(30), counter, 0, Effort(500))
    assert outcome.verdict is Verdict.UNDECIDED
    assert outcome.places == 500
    assert search(concurrent_increments(30), counter, 0, Effort(500)) == outcome
    assert search(concurrent_increments(8), counter, 0, Effort(257)).verdict is Verdict.REFUTED
    assert search(concurrent_increments(8), counter, 0, Effort(256)).verdict is Verdict.REFUTED
    assert search(concurrent_increments(8), counter, 0, Effort(255)).verdict is Verdict.UNDECIDED


def test_a_search_ends_when_its_time_is_over():
    """Also one that has not begun."""
    over = Effort(math.inf, time.monotonic())
    assert search(concurrent_increments(30), counter, 0, over).verdict is Verdict.UNDECIDED
    assert over.within(60) == over
    assert Effort().within(60).until == pytest.approx(time.monotonic() + 60, abs=30)


def test_many_unknown_operations_that_are_equal_cost_little():
    """A search over all sets of 60 unknown writes would never end."""
    writes = [op(client, "write", client % 2, 0) for client in range(60)]
    reads = [op(0, "read", None, 2 * at + 1, 2 * at + 2, at % 2) for at in range(50)]
    assert search([*writes, *reads], register, None).places < 5000
    lost = op(0, "read", None, 200, 201, "never written")
    assert search([*writes, *reads, lost], register, None).verdict is Verdict.REFUTED


def test_unknown_reads_cost_nothing():
    """They may never have been done."""
    reads = [op(client, "read", None, 0) for client in range(500)]
    assert search([*reads, op(1, "write", 1, 1, 2, None)], register, None).places == 1


@pytest.mark.parametrize(
    ("operation", "text"),
    [
        (op(1, "write", "x", 0, 5), "leave the end away"),
        (op(1, "write", "x", 5, 4, None), "ends before it begins"),
        (op(1, "write", "x", math.nan, 4, None), "ends before it begins"),
    ],
)
def test_times_that_cant_be_are_refused(operation, text):
    """An end that nobody heard is no end: taken as one, it would refute what is true."""
    with pytest.raises(InvalidArgument, match=text):
        is_linearizable([operation], register, None)
