"""What differs from process to process is found, and named with the call and the field."""

from __future__ import annotations

import sys

import pytest

from raftkv.machine.local import START_MS
from raftkv.testing import TwinDied
from raftkv.testing.judging.failure import Cause
from raftkv.testing.trying import determinism
from raftkv.testing.trying.determinism import RESTARTS_MAX, find_difference
from raftkv.testing.trying.references import NotImportable, Reference
from raftkv.testing.trying.replica import Step
from tests.testing.machines import Following, Inventory, Memoizing, Mirroring, Remembering, Tags
from tests.testing.test_timers import Locks

WORDS = [f"word{number}" for number in range(9)]


def steps(machine, *calls):
    """The calls as a node gets them."""
    return [Step(1_000, name, machine.methods[name].encode_args(args, {})) for name, *args in calls]


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (("by_set", WORDS), "tags['x']["),
        (("by_clock", "a"), "log[3]['at'] is 1000000000."),
        (("by_date", "a"), "last is 'a 2001-09-09' in one process and 'a 2033-05-18' in another"),
        (("by_dice", "a"), "the result is "),
        (("by_place", "a"), "the result is "),
    ],
)
def test_what_depends_on_the_process_is_named(call, named):
    """The set's order, the clock, the date, the dice, an object's place in memory (F76)."""
    finding = find_difference(Tags, steps(Tags, ("sound", "a"), call, ("sound", "b")))
    assert finding is not None
    assert (finding.cause, finding.step) == (Cause.NONDETERMINISTIC, 1)
    assert finding.difference.startswith(named)


def test_what_a_command_may_use_is_the_same_everywhere():
    """`self.now`, `self.random`, `self.index`, and sets that are sorted."""
    assert find_difference(Tags, steps(Tags, ("sound", "a"), ("sound", "b"))) is None
    assert find_difference(Inventory, steps(Inventory, ("receive", "a", 1), ("receive", "a", 0))) is None


def test_what_is_kept_outside_of_tables_is_found():
    """A class's dictionary is in nobody's snapshot."""
    finding = find_difference(Remembering, steps(Remembering, ("receive", "a", 3), ("on_hand", "a")))
    assert finding is not None
    assert (finding.cause, finding.step) == (Cause.REMEMBERS, 0)
    assert finding.difference == (
        "stock['a'] is 3 in a new process and 6 after the same calls had run before, with other tables"
    )


@pytest.mark.parametrize("machine", [Mirroring, Memoizing, Following])
def test_what_is_written_alike_outside_of_tables_is_found_by_a_restart(machine):
    """In one process all is as it should be: only a process that has no more than the tables shows it."""
    method = "receive" if machine is Following else "on_hand"
    more = ("receive", "b", 1) if machine is Following else ("on_hand", "a")
    finding = find_difference(machine, steps(machine, ("receive", "a", 3), more))
    assert finding is not None
    assert (finding.cause, finding.step) == (Cause.REMEMBERS, 1), method
    place = "order[3]" if machine is Following else "the "
    assert finding.difference.startswith(place)
    assert finding.difference.endswith(
        "when another one, which has the tables and nothing else, goes on with the calls"
    )


def test_a_process_is_restarted_before_each_of_a_few_calls_and_some_of_many():
    """Always before the same ones of the same calls, so that what was found is found again."""
    few = steps(Inventory, *[("receive", "a", number) for number in range(1, 8)])
    assert determinism._restarts(few, RESTARTS_MAX) == [*range(1, 7)]
    drawn = determinism._restarts(few * 5, RESTARTS_MAX)
    assert drawn == determinism._restarts(few * 5, RESTARTS_MAX)
    assert len(set(drawn)) == RESTARTS_MAX
    assert drawn == sorted(drawn)
    assert 1 <= drawn[0] < drawn[-1] < 36
    assert determinism._restarts(few[:1], RESTARTS_MAX) == determinism._restarts([], RESTARTS_MAX) == []


def test_a_restart_changes_nothing_for_who_keeps_all_in_tables():
    """Dice, timers and the log's index go on where they were; so does a machine whose calls schedule others."""
    assert find_difference(Tags, steps(Tags, *[("sound", word) for word in WORDS])) is None
    calls = [Step(START_MS + 100 * at, "lock", Locks.methods["lock"].encode_args(("door",), {})) for at in range(9)]
    assert find_difference(Locks, calls) is None


def test_a_class_that_another_process_cannot_make_is_refused():
    """With where to move it."""

    class Local(Inventory):
        """Made here."""

    with pytest.raises(NotImportable, match="move it to the top of its module"):
        Reference.of(Local)


def test_a_process_that_dies_is_told_and_replaced():
    """By a command that ends it, or by a module that can't be imported; the next test is none the worse for it."""
    with pytest.raises(TwinDied, match="the process that ran the calls died"):
        find_difference(Tags, steps(Tags, ("by_exit", "a")))
    assert find_difference(Tags, steps(Tags, ("sound", "a"))) is None
    with pytest.raises(TwinDied, match="nowhere can't be imported"):
        find_difference(Gone, [])
    assert find_difference(Tags, steps(Tags, ("sound", "a"))) is None


def test_an_interrupt_leaves_no_reply_behind(monkeypatch):
    """What one request was answered is not taken for the answer to another."""
    find_difference(Tags, steps(Tags, ("sound", "a")))
    with monkeypatch.context() as patched:
        patched.setattr(determinism, "read_frame", interrupted)
        with pytest.raises(KeyboardInterrupt):
            find_difference(Tags, steps(Tags, ("by_dice", "a")))
    assert find_difference(Tags, steps(Tags, ("sound", "a"))) is None


def interrupted(_file):
    """Somebody at the keyboard."""
    raise KeyboardInterrupt


class Gone(Inventory):
    """A machine in a module that is not there."""


Gone.__module__ = "tests.testing.nowhere"
sys.modules["tests.testing.nowhere"] = sys.modules[__name__]
