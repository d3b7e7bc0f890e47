"""The checker of unique appends: each way in which one can go wrong has its word."""

from __future__ import annotations

import math

import pytest

from raftkv.testing.judging.operation import UNKNOWN, Operation
from raftkv.worlds.appends import append_problems


def append(item, called, returned=math.inf, result=UNKNOWN):
    """An append to the only list."""
    return Operation(1, "k", "append", item, called, returned, result)


def read(called, returned, result):
    """A read of it."""
    return Operation(2, "k", "read", None, called, returned, result)


DONE = [append("a", 0, 1, 1), append("b", 2, 3, 2), append("c", 4)]

REJECTED = {
    "lost": (DONE, ["a"]),
    "duplicated": (DONE, ["a", "b", "b"]),
    "reordered": (DONE, ["b", "a"]),
    "phantom": (DONE, ["a", "b", "z"]),
    "a stale read": ([*DONE, read(4, 5, ["a"])], ["a", "b"]),
    "a read of what never was": ([*DONE, read(4, 5, ["b"])], ["a", "b"]),
}


@pytest.mark.parametrize("final", [["a", "b"], ["a", "b", "c"]])
def test_what_may_be_is_accepted(final):
    """What nobody heard the end of may be there or not; a read during an append may see either."""
    assert append_problems([*DONE, read(0.5, 0.7, []), read(2.5, 2.6, ["a", "b"])], {"k": final}) == []


@pytest.mark.parametrize("word", REJECTED)
def test_what_may_not_be_is_named(word):
    """In a word that a person reads."""
    operations, final = REJECTED[word]
    problems = append_problems(operations, {"k": final})
    assert any(word in problem for problem in problems), problems


def test_a_list_that_is_gone_is_seen():
    """Nothing is left of it at the end, though it was acknowledged."""
    assert len(append_problems(DONE, {})) == 2
