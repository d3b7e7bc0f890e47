"""What is said of a history: key by key, the cheapest first, and of a refuted one as little as shows it."""

from __future__ import annotations

import math

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raftkv.testing.judging.history import History
from raftkv.testing.judging.operation import UNKNOWN, Operation, counter, register
from raftkv.testing.judging.search import Effort, Verdict, is_linearizable, search
from raftkv.testing.judging.verdicts import SHOWN_MAX, judge


def told(*calls, key="k"):
    """A history of (client, name, argument, called, returned, result)."""
    return [Operation(client, key, *call, is_read=call[0] == "read") for client, *call in calls]


HARD = told(
    *((at, "increment", 3**at, 0, math.inf, UNKNOWN) for at in range(30)), (0, "read", None, 1, 2, 2), key="hard"
)
"""It can't be, and that takes long to find out."""


def test_only_what_contradicts_is_shown():
    """Out of 200 operations the write and the read that did not see it, with when they were."""
    calls = []
    for at in range(100):
        calls.append((1, "write", at % 7, 4 * at, 4 * at + 1, None))
        calls.append((2, "read", None, 4 * at + 2, 4 * at + 3, at % 7))
    calls[121] = (2, "read", None, 242, 243, 3)
    judgement = judge(told(*calls), register, None)
    assert judgement.verdict is Verdict.REFUTED
    assert judgement.broken_at == 243
    assert judgement.describe().splitlines() == [
        "the history of 'k' is not linearizable: "
        "no order explains these answers, whatever became of 120 other operations:",
        "client 1: write 'k' 4 → None   [240.000, 241.000]",
        "client 2: read 'k' None → 3   [242.000, 243.000]",
        "",
        "client 1: write 4 → None   ├────┤",
        "client 2: read → 3                   ├────┤",
    ]


def test_only_the_refuted_key_is_told_of():
    """An operation that was certainly not done is not in the history."""
    history = History()
    good = history.call(1, "good", "write", "x", 0.0)
    history.returned(good, None, 1.0)
    bad = history.call(2, "bad", "read", None, 2.0, is_read=True)
    history.returned(bad, "ghost", 3.0)
    gone = history.call(3, "bad", "write", "y", 4.0)
    history.refused(gone)
    judgement = judge(history.operations, register, None)
    assert (judgement.key, judgement.part, judgement.operations, judgement.keys) == ("bad", [bad], 1, 2)


def test_the_time_is_named_at_which_a_history_broke():
    """The first return that can't be true; what came later only hides it."""
    calls = [(1, "increment", 1, at, at + 0.5, result) for at, result in ((1, 1), (2, 2), (3, 2), (4, 4), (5, 5))]
    judgement = judge(told(*calls), counter, 0)
    assert judgement.broken_at == 3.5
    assert [each.called for each in judgement.part] == [2, 3]
    calls[2] = (1, "increment", 1, 3, 3.5, 3)
    assert judge(told(*calls), counter, 0).verdict is Verdict.LINEARIZABLE


def test_what_was_heard_later_does_not_count_at_that_time():
    """The write's answer came when it was all over, so at the read's it had an unknown end."""
    late = told((1, "write", 1, 0, 9, None), (2, "read", None, 1, 2, 1), (2, "read", None, 3, 4, None))
    judgement = judge(late, register, None)
    assert judgement.broken_at == 4
    assert judgement.part == late[1:]
    assert judgement.operations == 3


def test_the_cheapest_key_is_searched_first_and_a_refuted_one_ends_it():
    """A key that can't be decided keeps nobody from the one that is wrong."""
    wrong = told((1, "read", None, 0, 1, 7), key="wrong")
    more = told(*((1, "read", None, at, at + 0.5, 7) for at in range(3)), key="more")
    judgement = judge([*HARD, *more, *wrong], counter, 0, Effort(20_000))
    assert (judgement.verdict, judgement.key, judgement.undecided) == (Verdict.REFUTED, "wrong", [])


def test_a_wrong_key_behind_an_undecided_one_is_found():
    """All keys are searched a little before one is searched for long."""
    long = told(*((1, "read", None, at, at + 0.5, 7) for at in range(40)), key="long")
    assert judge([*HARD, *long], counter, 0).key == "long"


def test_what_is_undecided_is_said():
    """By key; the others are linearizable as far as they go."""
    right = told((1, "increment", 1, 0, 1, 1), key="right")
    judgement = judge([*HARD, *right], counter, 0, Effort(12_000))
    assert (judgement.verdict, judgement.undecided) == (Verdict.UNDECIDED, ["hard"])
    assert judgement.describe() == (
        "it is undecided whether the history is linearizable: no verdict on 'hard' within the effort"
    )
    assert judge(right, counter, 0).describe() == "the history is linearizable, by each of its keys (1)"
    assert judge([], counter, 0).verdict is Verdict.LINEARIZABLE


def test_of_many_answers_the_last_are_shown():
    """A count hangs on every increment."""
    calls = [(1, "increment", 1, at, at + 0.5, at + 1) for at in range(60)]
    judgement = judge(told(*calls, (2, "read", None, 60, 61, 59)), counter, 0)
    assert len(judgement.part) == 2
    calls = [(1, "increment", 1, at, at + 0.5, None) for at in range(60)]
    judgement = judge(told(*calls, (2, "read", None, 60, 61, 59)), _blind_counter, 0)
    assert len(judgement.part) == 61
    lines = judgement.describe().splitlines()
    assert "no order explains 61 answers, of which these are the last:" in lines[0]
    assert len(lines) == 1 + SHOWN_MAX + 1 + SHOWN_MAX


def _blind_counter(state, operation):
    """Increments tell nothing."""
    return (None, state + 1) if operation.name == "increment" else (state, state)


def test_an_end_that_nobody_heard_is_drawn_open():
    """And a moment as a cross."""
    seen = told((1, "write", "x", 0, math.inf, None), (2, "read", None, 1, 1, "x"), (3, "read", None, 2, 3, None))
    assert judge(seen, register, None).describe().splitlines()[-2:] == [
        "client 2: read → 'x'    ┼",
        "client 3: read → None        ├────┤",
    ]


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 2), st.integers(0, 8), st.integers(0, 3)), max_size=12))
def test_a_part_is_refuted_and_hangs_on_each_of_its_answers(drawn):
    """By itself it can't be; and with doubt in one more of its answers, an order is found."""
    calls = []
    for at, (writes, value, called, took) in enumerate(drawn):
        word = ("write", value) if writes else ("read", None)
        calls.append((at, *word, called, called + took, None if writes else value))
    operations = told(*calls)
    judgement = judge(operations, register, 0)
    assert (judgement.verdict is Verdict.LINEARIZABLE) == is_linearizable(operations, register, 0)
    if judgement.verdict is Verdict.REFUTED:
        part = judgement.part
        assert not is_linearizable(part, register, 0)
        assert part == sorted(part, key=lambda each: each.called)
        assert any(each.returned == judgement.broken_at for each in part)
        heard = [each for each in operations if each.returned <= judgement.broken_at]
        unheard = [each for each in operations if each.called <= judgement.broken_at < each.returned]
        later = [msgspec.structs.replace(each, returned=math.inf, result=UNKNOWN) for each in unheard]
        for one in part:
            doubted = [number for number, each in enumerate(heard) if each not in part or each is one]
            assert search([*heard, *later], register, 0, doubted=doubted).verdict is Verdict.LINEARIZABLE


@pytest.mark.parametrize("places", [1, 100, 20_000])
def test_a_small_effort_never_says_what_is_not_so(places):
    """It says that it does not know."""
    assert judge(HARD, counter, 0, Effort(places)).verdict is Verdict.UNDECIDED
