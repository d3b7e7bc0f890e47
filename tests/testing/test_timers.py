"""`fault_test` of machines that schedule commands: a model is told the time and what ran by itself."""

from __future__ import annotations

import re
import warnings
from unittest.mock import ANY

import msgspec
import pytest
from hypothesis import strategies as st

from raftkv.machine import StateMachine, Table, command, every, on_expire, query
from raftkv.machine.local import START_MS
from raftkv.testing import Call, Cause, CounterExample, NeverAnswered, NeverRan, calls, earlier, fault_test, load, rerun
from raftkv.testing.judging.models import UnfitModel
from raftkv.testing.trying.budget import BUDGETS, chosen
from raftkv.testing.trying.differences import difference
from raftkv.testing.trying.replica import Step, effects_of
from raftkv.testing.trying.saved import rerun as rerun_saved
from raftkv.testing.trying.tally import CALLS_MIN, Tally, due_by_themselves, left_to_others

LEASE_MS = 300
NAMES = st.sampled_from(["door", "gate"])
SHORT = msgspec.structs.replace(BUDGETS["quick"], examples=8, shrinks=10, bursts_max=6)


class Locks(StateMachine):
    """Whoever has a lock loses it after a while; a token tells who had it later."""

    owners = Table(str, tuple[int, int])
    tokens = Table(str, int)

    @command
    def lock(self, name: str) -> int | None:
        """Take it; returns the token, or None when somebody has it."""
        if name in self.owners:
            return None
        token = self.tokens[name] = self.tokens.get(name, 0) + 1
        self.owners[name] = token, self.schedule(LEASE_MS / 1000, Locks.expire, name, token)
        return token

    @command
    def unlock(self, name: str, token: int) -> bool:
        """Give it back; whether it was still his."""
        if name not in self.owners or self.owners[name][0] != token:
            return False
        return self.cancel(self.owners.pop(name)[1])

    @command
    def expire(self, name: str, token: int) -> None:
        """Take it away."""
        assert self.owners[name][0] == token
        del self.owners[name]

    @query
    def known(self, name: str) -> int:
        """The newest token."""
        return self.tokens.get(name, 0)


class LocksModel:
    """Knows who has a lock, as it is told when one is lost."""

    def __init__(self) -> None:
        self.owners: dict[str, int] = {}
        self.tokens: dict[str, int] = {}

    def lock(self, name: str) -> int | None:
        """A token or None."""
        if name in self.owners:
            return None
        self.owners[name] = self.tokens[name] = self.tokens.get(name, 0) + 1
        return self.tokens[name]

    def unlock(self, name: str, token: int) -> bool:
        """Whether it was his."""
        return self.owners.get(name) == token and self.owners.pop(name) == token

    def expire(self, name: str, token: int) -> None:
        """It is lost."""
        assert self.owners.pop(name) == token

    def known(self, name: str) -> int:
        """The newest token."""
        return self.tokens.get(name, 0)


def locks_test(machine, model=LocksModel, budget=SHORT, token=None):
    """The test of a machine with locks."""
    token = earlier(Locks.lock, st.integers(0, 2)) if token is None else token
    return fault_test(
        machine,
        model=model,
        commands=[calls(machine.lock, NAMES), calls(machine.unlock, NAMES, token), calls(machine.known, NAMES)],
        key="name",
        budget=budget,
    )


test_a_machine_with_timers_passes = locks_test(Locks)


class Careless(Locks):
    """Whoever shows any token that there was gets the lock opened: only an old one shows it."""

    @command
    def unlock(self, name: str, token: int) -> bool:
        if name not in self.owners or not 0 < token <= self.owners[name][0]:
            return False
        return self.cancel(self.owners.pop(name)[1])


class Hasty(Locks):
    """Takes a lock away, and gives another token than the next."""

    @command
    def expire(self, name: str, token: int) -> None:
        del self.owners[name]
        self.tokens[name] -= 1


class Stubborn(Locks):
    """Does not let go of a lock that was lost to time."""

    @command
    def expire(self, name: str, token: int) -> None:
        raise RuntimeError("no")


@pytest.fixture(autouse=True)
def failures(tmp_path, monkeypatch):
    """Failures of these tests are saved where nobody looks for them."""
    monkeypatch.setattr(chosen, "directory", str(tmp_path))
    return tmp_path


FINDING = msgspec.structs.replace(BUDGETS["quick"], examples=300, shrinks=10, bursts_max=6)


@pytest.mark.parametrize(
    ("machine", "words"),
    [
        (Careless, r"unlock\('\w+', 1\) gives True, the model gives False, with nothing going wrong"),
        (Hasty, r"(known|lock)\('\w+'\) gives \d, the model gives \d, with nothing going wrong"),
        (Stubborn, r"expire\('\w+', 1\), which has run by itself, raises RuntimeError: no, the model gives None"),
    ],
)
def test_a_mistake_with_locks_is_found(machine, words, failures):
    """An old token, a token that is given twice, a lock that stays: the model is exact, and so no cluster is needed."""
    with pytest.raises(CounterExample) as found:
        locks_test(machine, budget=FINDING)()
    assert found.value.cause is Cause.DISAGREES
    assert re.match(words, found.value.described)
    (path,) = failures.glob("*.json")
    with pytest.raises(CounterExample) as again:
        rerun_saved(load(path))
    assert again.value.described == found.value.described
    with pytest.raises(CounterExample) as pasted:
        exec(found.value.program, {})  # noqa: S102 (that it can be pasted is what is tested)
    assert pasted.value.described == found.value.described


class Leases(StateMachine):
    """Rows that are over by themselves, and a count of those that were."""

    held = Table(str, int, expires=True)
    lost = Table(str, int)
    turns = Table(int, int)

    @command
    def take(self, name: str, who: int) -> bool:
        """Take it for a while, if nobody has it."""
        if name in self.held:
            return False
        self.held.put(name, who, ttl_s=LEASE_MS / 1000)
        return True

    @query
    def holder(self, name: str) -> int | None:
        """Who has it now."""
        return self.held.get(name)

    @query
    def losses(self, name: str) -> int:
        """How often it was lost."""
        return self.lost.get(name, 0)

    @command
    @on_expire("held")
    def gave_up(self, name: str, who: int) -> int:
        """Count it."""
        total = self.lost[name] = self.lost.get(name, 0) + 1
        return total

    @command
    @every(0.25)
    def turn(self) -> int:
        """Count turns."""
        self.turns[0] = self.turns.get(0, 0) + 1
        return self.turns[0]


class LeasesModel:
    """Knows until when each is held."""

    def __init__(self) -> None:
        self.held: dict[str, tuple[int, int]] = {}
        self.lost: dict[str, int] = {}
        self.turns = 0

    def _holder(self, name: str, now_ms: int) -> int | None:
        who, until_ms = self.held.get(name, (None, 0))
        return who if now_ms < until_ms else None

    def take(self, name: str, who: int, now_ms: int) -> bool:
        """Whether nobody has it."""
        if self._holder(name, now_ms) is not None:
            return False
        self.held[name] = who, now_ms + LEASE_MS
        return True

    def holder(self, name: str, now_ms: int) -> int | None:
        """Who has it at this time."""
        return self._holder(name, now_ms)

    def losses(self, name: str) -> int:
        """How often it was told of."""
        return self.lost.get(name, 0)

    def gave_up(self, name: str, who: int) -> int:
        """One more."""
        self.lost[name] = self.lost.get(name, 0) + 1
        return self.lost[name]

    def turn(self) -> int:
        """One more."""
        self.turns += 1
        return self.turns


class Lasting(Leases):
    """Holds it a little longer than it says."""

    @command
    def take(self, name: str, who: int) -> bool:
        if name in self.held:
            return False
        self.held.put(name, who, ttl_s=(LEASE_MS + 100) / 1000)
        return True


def leases_test(machine, budget=SHORT):
    """The test of a machine with leases."""
    sources = [
        calls(machine.take, NAMES, st.integers(1, 3)),
        calls(machine.holder, NAMES),
        calls(machine.losses, NAMES),
    ]
    return fault_test(machine, model=LeasesModel, commands=sources, budget=budget)


test_a_machine_with_expiring_rows_passes = leases_test(Leases)


def test_a_lease_that_lasts_too_long_is_found():
    """The model is told the time of each call, and so says who holds it then."""
    with pytest.raises(CounterExample) as found:
        leases_test(Lasting, FINDING)()
    assert found.value.cause is Cause.DISAGREES
    assert re.match(r"(take|holder)\('\w+'.*, the model gives", found.value.described)


class Racing(Leases):
    """Counts each turn twice."""

    @command
    @every(60)
    def turn(self) -> int:
        self.turns[0] = self.turns.get(0, 0) + 2
        return self.turns[0]


def test_a_mistake_in_what_runs_every_minute_is_found():
    """Without a cluster, as calls are made over minutes then; no world lasts for so long."""
    with pytest.raises(CounterExample, match=r"turn\(\), which has run by itself, gives 2, the model gives 1") as found:
        leases_test(Racing)()
    assert found.value.cause is Cause.DISAGREES


class Forgiving:
    """Says of locks what nobody can refute."""

    def __init__(self) -> None:
        self.lost = 0

    def lock(self, name: str, now_ms: int) -> object:
        """Anything."""
        return ANY

    unlock = known = lambda self, name, token=0: ANY

    def expire(self, name: str, token: int) -> None:
        """Wants only to know how often."""
        self.lost += 1


def test_what_only_a_cluster_shows_is_found_in_its_log(monkeypatch):
    """Clients that are told something else than what the log comes to, and a model that says it is not so."""

    class Wrong(Forgiving):
        def expire(self, name: str, token: int) -> None:
            raise LookupError

    script = [Call("lock", ("door",), at_ms=1), Call("lock", ("gate",), at_ms=1_500)]
    rerun(Locks, Forgiving, commands=script)
    with pytest.raises(CounterExample, match="has run by itself, gives None, the model raises LookupError"):
        rerun(Locks, Wrong, commands=script)


def test_a_model_that_takes_now_ms_is_still_checked_for_its_arguments():
    """It must take the others like the machine."""

    class Lacking(LocksModel):
        def lock(self, now_ms: int) -> int:
            return now_ms

    with pytest.raises(UnfitModel, match=r"make it `def lock\(self, name\)`"):
        rerun(Locks, Lacking, commands=[Call("lock", ("door",))])


def test_a_call_that_never_succeeds_is_warned_of():
    """With how often each was made: what is never reached is not tested."""
    budget = msgspec.structs.replace(SHORT, examples=8, bursts_max=40, duration_ms=100)
    commands = [calls(Grumbling.give, st.integers(0, 9)), calls(Grumbling.count), calls(Grumbling.idle)]
    test = fault_test(Grumbling, model=GrumblingModel, commands=commands, budget=budget)
    with pytest.warns(NeverAnswered, match="give never succeeded, so what it does is not tested: draw") as caught:
        test()
    (text,) = [str(each.message) for each in caught]
    assert re.search(r"give +0 answered, \d+ rejected\ncount +[1-9]\d* answered, 0 rejected\nidle +[1-9]\d* ans", text)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        locks_test(Locks)()
    assert re.search(r"lock +\d+ answered, 0 rejected", chosen.tried[-1])


class Forgetful(Locks):
    """Does not schedule that a lock is lost, or schedules something else."""

    @command
    def lock(self, name: str) -> int | None:
        if name in self.owners:
            return None
        token = self.tokens[name] = self.tokens.get(name, 0) + 1
        self.owners[name] = token, 0
        return token

    @command
    def unlock(self, name: str, token: int) -> bool:
        return name in self.owners and self.owners[name][0] == token and bool(self.owners.pop(name))


class Mistaken(Forgetful):
    """Schedules another command."""

    @command
    def lock(self, name: str) -> int | None:
        token = Forgetful.lock(self, name)
        self.schedule(LEASE_MS / 1000, Mistaken.expired, name, token or 0)
        return token

    @command
    def expired(self, name: str, token: int) -> None:
        """Nothing that the model knows of."""


@pytest.mark.parametrize("machine", [Forgetful, Mistaken])
def test_a_command_that_nothing_schedules_is_told_in_the_report(machine):
    """A model that is told of what has run by itself agrees with a machine that runs nothing, and a test may well leave
    commands out: it passes, and says how often each has run, and what has run instead."""
    locks_test(machine)()
    assert re.search(r"expire +0 by itself", chosen.tried[-1])
    assert bool(re.search(r"expired +[1-9]\d* by itself", chosen.tried[-1])) is (machine is Mistaken)


def test_what_runs_by_itself_is_counted_and_what_never_does_may_be_called_instead():
    """Scheduled commands, those of rows that are over, and those of every so often; one whose turn is too far off for
    any script is warned of, until the test calls it."""

    class Rare(Leases):
        @command
        @every(86_400)
        def turn(self) -> int:
            return Leases.turn(self)

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        leases_test(Leases)()
        assert re.search(r"turn +[1-9]\d* by itself\ngave_up +[1-9]\d* by itself", chosen.tried[-1])
        locks_test(Locks)()
        assert re.search(r"expire +[1-9]\d* by itself", chosen.tried[-1])
    due = due_by_themselves(Rare)
    assert due == ["turn"]
    assert left_to_others(Rare, LeasesModel, ["take"]) == ["gave_up", "turn"]
    assert left_to_others(Rare, LeasesModel, ["take", "gave_up", "turn"]) == ["gave_up"]
    tally = Tally(["take"], due, ["gave_up"])  # which hangs on the calls that are drawn
    for _ in range(CALLS_MIN):
        tally.add("take", True)
    with pytest.warns(NeverRan, match="nobody called turn, and"):
        tally.warn()
    tally.add("turn", True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tally.warn()


class Grumbling(StateMachine):
    """Takes nothing."""

    given = Table(int, int)

    @command
    def give(self, number: int) -> None:
        """Not here."""
        raise ValueError(number)

    @command
    def idle(self) -> None:
        """Nothing."""

    @query
    def count(self) -> int:
        """None."""
        return len(self.given)


class GrumblingModel:
    """The same."""

    def give(self, number: int) -> None:
        """Not here."""
        raise ValueError

    def idle(self) -> None:
        """Nothing."""

    def count(self) -> int:
        """None."""
        return 0


def test_calls_that_run_alone_find_what_was_scheduled_done():
    """So it is run in other processes as well, where it must do the same; a difference in it is named."""

    def effects(lease_ms):
        args = Locks.methods["lock"].encode_args(("door",), {})
        steps = [Step(START_MS, "lock", args), Step(START_MS + lease_ms, "known", args), Step(START_MS, "lock", args)]
        return effects_of(Locks, steps)

    due, early = effects(LEASE_MS), effects(LEASE_MS - 1)
    assert [effect.result for effect in due] == [b"\x01", b"\x01", b"\x02"]
    assert [effect.result for effect in early] == [b"\x01", b"\x01", b"\xc0"]
    assert difference(Locks, due[1], early[1])[0] == "what is scheduled"
