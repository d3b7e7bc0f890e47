"""`upgrade_test` lets time pass: both versions run what was scheduled, before the other is active and after it."""

from __future__ import annotations

import pytest

from raftkv.machine import StateMachine, Table, Value, command, every
from raftkv.testing import Call, Cause, CounterExample, Fault, rerun_upgrade
from raftkv.testing.judging.failure import ALONE
from raftkv.testing.trying.replacing import run_upgrade
from raftkv.testing.trying.script import Script


class First:
    """As it was released."""

    class Locks(StateMachine):
        """A lock that is lost after a while."""

        held = Table(str, int)
        turns = Value(int, 0)

        @command
        def lock(self, name: str) -> bool:
            """Take it."""
            if name in self.held:
                return False
            self.held[name] = self.schedule(0.1, type(self).expire, name)
            return True

        @command
        def expire(self, name: str) -> None:
            """Lose it."""
            self.held.pop(name, None)

        @command
        @every(0.25)
        def turn(self) -> None:
            """Count."""
            self.turns = self.turns + 1


class Second:
    """A version that changes nothing of that."""

    class Locks(First.Locks):
        """And has a table more."""

        version = 2
        lost = Table(str, int, since=2)

        @command
        def expire(self, name: str) -> None:
            """Lose it, and write it down."""
            self.held.pop(name, None)
            self.lost[name] = self.index


class Keeping:
    """A version that keeps what the released one loses."""

    class Locks(Second.Locks):
        """Keeps it as nobody's."""

        version = 2

        @command
        def expire(self, name: str) -> None:
            self.held[name] = 0


class Stumbling:
    """A version that turns otherwise."""

    class Locks(Second.Locks):
        """Counts by twos."""

        version = 2

        @command
        @every(0.25)
        def turn(self) -> None:
            self.turns = self.turns + 2


SCRIPT = [Call("lock", ("door",), at_ms=10), Call("lock", ("door",), at_ms=200, client=2)]


@pytest.mark.parametrize("at_ms", [5, 50, 150, 1_000])
def test_a_sound_pair_passes_whenever_it_is_upgraded(at_ms):
    """Before, between and behind what was scheduled and is run."""
    script = Script(faults=(Fault("upgrade", at_ms=at_ms),), calls=tuple(SCRIPT))
    run_upgrade(First.Locks, Second.Locks, script, only=ALONE)


@pytest.mark.parametrize(
    ("new", "place"), [(Keeping, "held['door'] is deleted with version 1 and 0"), (Stumbling, "turns is 1")]
)
def test_what_is_scheduled_and_done_otherwise_is_named(new, place):
    """No call shows it, if no time passes: neither a lock that stays, nor another turn."""
    with pytest.raises(CounterExample) as found:
        rerun_upgrade(First.Locks, new.Locks, commands=SCRIPT[:1])
    assert found.value.cause is Cause.VERSIONS_DIFFER
    assert found.value.described.startswith(f"what was scheduled, while version 1 is active: {place}")
