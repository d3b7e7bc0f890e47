"""States of a model: equal when their data is, never changed, and undone when a method raises."""

from __future__ import annotations

from array import array
from collections import Counter, deque
from dataclasses import dataclass
from unittest.mock import ANY

import msgspec
import pytest

from raftkv.testing.judging.models import ModelState, Raised, Returned, freeze


class Stack:
    """Lists in a dictionary, and a method that changes something before it raises."""

    def __init__(self):
        self.items = {"a": [1]}

    def push(self, value):
        self.items["a"].append(value)
        return self.items["a"]

    def fail(self):
        self.items.clear()
        raise LookupError("gone")

    def anything(self):
        return [1, ANY]


def test_a_state_is_never_changed():
    """A call gives another state; the old one, and its answers, stay as they were."""
    start = ModelState(Stack())
    answer, after = start.call("push", (2,))
    _, later = after.call("push", (3,))
    assert answer == Returned([1, 2])
    assert len({start, after, later}) == 3
    assert start == ModelState(Stack())
    assert start.call("push", (2,)) == (answer, after)


def test_a_method_that_raises_changes_nothing():
    """As a command that raises does; only the exception's name counts."""
    start = ModelState(Stack())
    answer, after = start.call("fail", ())
    assert after is start
    assert answer == Raised("LookupError", "another text")
    assert answer != Raised("KeyError", "gone")


def test_a_model_need_not_know_everything():
    """`ANY` stands for whatever comes."""
    answer, _ = ModelState(Stack()).call("anything", ())
    assert answer == Returned([1, "x"])
    assert answer != Returned([2, "x"])


class Point(msgspec.Struct):
    """Without a hash."""

    x: int


@dataclass
class Pair:
    """Without a hash."""

    left: list[int]


EQUAL = [
    ({"a": [1], "b": {2}}, {"b": {2}, "a": [1]}),
    (deque([1]), deque([1])),
    (Counter("ab"), Counter("ba")),
    (Point(1), Point(1)),
    (Pair([1]), Pair([1])),
    (bytearray(b"x"), bytearray(b"x")),
]
DIFFERENT = [([1], [2]), ([1], (1,)), (1, True), (Point(1), Point(2)), (Pair([1]), Pair([2])), ({1: 2}, {2: 1})]


@pytest.mark.parametrize(("one", "other"), EQUAL)
def test_equal_data_is_one_state(one, other):
    """Else the search would look at the same state again and again."""
    assert freeze(one) == freeze(other)
    assert hash(freeze(one)) == hash(freeze(other))


@pytest.mark.parametrize(("one", "other"), DIFFERENT)
def test_different_data_is_not(one, other):
    """Else a wrong history could pass."""
    assert freeze(one) != freeze(other)


def test_what_cannot_be_compared_is_refused():
    """A state that is never equal to itself would make every search endless."""
    with pytest.raises(TypeError):
        freeze(array("i"))
