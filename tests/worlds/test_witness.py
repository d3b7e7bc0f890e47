"""The checker that believes the indexes of answers: it accepts what is true, and names what is not."""

from __future__ import annotations

import pytest

from raftkv.testing.judging.operation import UNKNOWN, Operation, register
from raftkv.worlds.witness import witness_problems


def op(name, argument, called, returned, result):
    """An operation on the only key."""
    return Operation(1, "k", name, argument, called, returned, result)


TRUE = [
    (3, False, op("write", "x", 0, 5, None)),
    (3, True, op("read", None, 1, 2, "x")),
    (4, False, op("write", "y", 2, 9, None)),
    (3, True, op("read", None, 3, 4, "x")),
    (4, True, op("read", None, 5, 6, "y")),
]

FALSE = {
    "a read of the wrong value": [*TRUE, (4, True, op("read", None, 10, 11, "x"))],
    "a stale read": [*TRUE, (3, True, op("read", None, 10, 11, "x"))],
    "a command that went back in time": [
        (5, False, op("write", "x", 0, 1, None)),
        (4, False, op("write", "y", 2, 3, None)),
    ],
    "a command that was not done": [(1, False, op("write", "x", 0, 1, None)), (2, True, op("read", None, 2, 3, None))],
}


def test_what_is_true_is_accepted():
    """Reads at an index come behind its command, also when they overlap; an unknown result is no problem."""
    assert witness_problems(TRUE, register, None) == []
    assert witness_problems([(1, False, op("write", "x", 0, 1, UNKNOWN))], register, None) == []


@pytest.mark.parametrize("case", FALSE)
def test_what_is_not_is_named(case):
    """Each history that one machine could not have had is rejected, with the operation."""
    problems = witness_problems(FALSE[case], register, None)
    assert problems
    assert "client 1" in problems[0]
