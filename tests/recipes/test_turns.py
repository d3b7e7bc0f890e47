"""Read–write locks, semaphores, elections, members and barriers: the machines alone, in memory."""

from __future__ import annotations

import itertools

import pytest

from raftkv import LocalMachine, MachineError, Part, Rejected, Rejection, StateMachine, Table, command, query
from raftkv.recipes import (
    Barriers,
    Elections,
    Holder,
    LockLost,
    Locks,
    Members,
    OtherLimit,
    OtherParties,
    ReadWriteLocks,
    Semaphores,
    TooManyWaiters,
    turns,
)


def rows(local):
    """How many rows are left."""
    instance = local._runner.instance
    assert list(local._runner.out_of_step()) == []
    return sum(len(getattr(instance, name)) for name in type(instance).parts if name != "last_number")


def test_many_read_or_one_writes_and_no_writer_starves():
    """A reader that comes behind a waiting writer waits too; those behind it read together."""
    locks = LocalMachine(ReadWriteLocks)
    first = locks.acquire_read("a", "r1")
    second = locks.acquire_read("a", "r2")
    assert 0 < first < second
    assert locks.acquire_write("a", "hasty") == 0
    assert locks.acquire_write("a", "w1", 10, 60) == 0
    assert locks.acquire_read("a", "r3", 10, 60) == 0
    assert locks.acquire_read("a", "r4", 10, 60) == 0
    assert locks.acquire_write("a", "w2", 10, 60) == 0
    assert locks.release("a", first)
    assert locks.token_of("a", "w1") == 0, "one still reads"
    assert locks.release("a", second)
    writer = locks.token_of("a", "w1")
    assert writer > second
    assert len(locks.holders("a")) == 1
    locks.advance(10)
    assert [each.owner for each in locks.holders("a")] == ["r3", "r4"]
    locks.advance(10)
    assert [each.owner for each in locks.holders("a")] == ["w2"]
    locks.advance(60)
    assert rows(locks) == 0


def test_more_readers_than_one_command_lets_in_are_let_in_by_the_next():
    """A command's work is bounded, and nobody is forgotten."""
    locks = LocalMachine(ReadWriteLocks)
    token = locks.acquire_write("a", "w", 1_000)
    for number in range(turns.GRANTS_AT_ONCE * 2 + 5):
        locks.acquire_read("a", f"r{number}", 1_000, 1_000)
    locks.release("a", token)
    assert len(locks.holders("a")) == turns.GRANTS_AT_ONCE
    locks.advance(0)
    assert len(locks.holders("a")) == turns.GRANTS_AT_ONCE * 2 + 5


def test_a_semaphore_gives_as_many_permits_as_there_are():
    """In order: one that wants several is not passed by those that want one. Time gives permits back."""
    semaphores = LocalMachine(Semaphores)
    first = semaphores.acquire("gpu", "a", 3, 2, 10)
    assert semaphores.free("gpu") == 1
    assert semaphores.acquire("gpu", "hasty", 3, 2) == 0
    assert semaphores.acquire("gpu", "b", 3, 2, 10, 60) == 0
    assert semaphores.acquire("gpu", "c", 3, 1, 10, 60) == 0
    assert semaphores.release("gpu", first)
    assert semaphores.token_of("gpu", "b") < semaphores.token_of("gpu", "c")
    assert semaphores.free("gpu") == 0
    with pytest.raises(OtherLimit):
        semaphores.acquire("gpu", "d", 4)
    semaphores.advance(20)
    assert (semaphores.free("gpu"), rows(semaphores)) == (None, 0)
    assert semaphores.acquire("gpu", "d", 4) > first


def test_who_asks_again_without_waiting_leaves_the_queue_to_those_behind():
    """It wanted more than there was; one that wants less stood behind it, and need not wait for anything else."""
    permits = LocalMachine(Semaphores)
    assert permits.acquire("gpu", "a", 4, 2) > 0
    assert permits.acquire("gpu", "b", 4, 3, wait_s=60) == 0
    assert permits.acquire("gpu", "c", 4, 1, wait_s=60) == 0
    assert permits.acquire("gpu", "b", 4, 3) == 0
    assert permits.waiting("gpu") == []
    assert permits.token_of("gpu", "c") > 0


def test_a_semaphore_may_be_resized_while_it_is_used():
    """More permits are given at once; fewer take none away."""
    semaphores = LocalMachine(Semaphores)
    tokens = [semaphores.acquire("gpu", owner, 1, 1, 10, 60) for owner in "abc"]
    assert (tokens[0] > 0, tokens[1:]) == (True, [0, 0])
    semaphores.resize("gpu", 3)
    assert all(semaphores.token_of("gpu", owner) for owner in "abc")
    semaphores.resize("gpu", 1)
    assert semaphores.free("gpu") == 0
    semaphores.resize("none", 5)
    assert semaphores.free("none") is None
    for limit, permits in [(0, 1), (1_001, 1), (2, 3), (2, 0)]:
        with pytest.raises(Rejected, match="must be 1 to"):
            semaphores.acquire("other", "a", limit, permits)
    assert semaphores.free("other") is None


def test_one_worker_leads_and_others_follow_it():
    """With data of its own, which it may change as long as it leads."""
    elections = LocalMachine(Elections)
    token = elections.campaign("work", "a", "host-a", 10)
    assert elections.campaign("work", "b", "host-b", 10, 60) == 0
    assert elections.leader("work") == Holder("a", token, "host-a")
    elections.proclaim("work", token, "host-a:2")
    elections.now_ms += 9_999
    assert elections.leader("work") == Holder("a", token, "host-a:2"), "it keeps its time"
    elections.advance(0.001)
    found = elections.leader("work")
    assert (found.owner, found.data, found.token > token) == ("b", "host-b", True)
    with pytest.raises(LockLost):
        elections.proclaim("work", token, "late")
    elections.release("work", found.token)
    assert (elections.leader("work"), rows(elections)) == (None, 0)


class Workers(Members):
    """Gives the work of one that is gone to nobody."""

    work = Table(str, str)
    gone = Table(str, str)

    def on_leave(self, group: str, member: str, data: str) -> None:
        self.gone[member] = data
        for item, worker in list(self.work.items()):
            if worker == member:
                del self.work[item]

    @command
    def take(self, group: str, member: str, token: int, item: str) -> None:
        """Only a living member may."""
        self.require(group, token)
        self.work[item] = member

    @query
    def left(self) -> dict[str, str]:
        """Who has left, with its data."""
        return dict(self.gone.items())


class Cluster(StateMachine):
    """With members as a part."""

    workers = Part(Workers)


@pytest.mark.parametrize(
    ("one", "other"),
    list(itertools.permutations((Locks, ReadWriteLocks, Semaphores, Elections, Members, Barriers), 2)),
)
def test_two_kinds_of_turns_are_parts_and_not_mixed(one, other):
    """Else a lock had room for many, as a group has, and held what somebody leads: the error says what to write."""
    said = f"{one.__name__} and {other.__name__} keep their holders in the same tables.* = Part\\({other.__name__}\\)"
    with pytest.raises(MachineError, match=said):
        type(StateMachine)("App", (one, other), {})


def test_members_are_listed_while_they_live():
    """What a leaving one entails is done in the same entry, whether it says so or its time is over; one that joins
    under its name is not a leave."""
    local = LocalMachine(Cluster)
    workers = local.workers
    one = workers.join("w", "one", "a", 10)
    two = workers.join("w", "two", "b", 20)
    workers.take("w", "one", one, "job 1")
    workers.take("w", "two", two, "job 2")
    assert [(each.owner, each.data) for each in workers.present("w")] == [("one", "a"), ("two", "b")]
    local.advance(10)
    assert workers.left() == {"one": "a"}
    again = workers.join("w", "two", "c", 20)
    assert again > two
    assert workers.left() == {"one": "a"}
    with pytest.raises(LockLost):
        workers.renew("w", two)
    workers.renew("w", again)
    assert dict(local._runner.instance.workers.work.items()) == {"job 2": "two"}
    assert workers.release("w", again) is True
    assert (workers.present("w"), workers.left()) == ([], {"one": "a", "two": "c"})


def test_a_member_that_comes_again_in_the_moment_in_which_its_time_is_over_has_not_left():
    """Nobody has noticed its end yet: what it took since stays its own, and when it leaves, that is one leave."""
    local = LocalMachine(Cluster)
    workers = local.workers
    workers.join("w", "one", "a", 10)
    local.now_ms += 10_000
    assert workers.present("w") == []
    again = workers.join("w", "one", "b", 10)
    workers.take("w", "one", again, "job 1")
    local.advance(0)
    assert workers.left() == {}
    assert dict(local._runner.instance.workers.work.items()) == {"job 1": "one"}
    local.advance(10)
    assert workers.left() == {"one": "b"}
    assert dict(local._runner.instance.workers.work.items()) == {}
    workers.join("w", "two", "c", 10)
    local.now_ms += 10_000
    assert workers.release("w", workers.join("w", "two", "d", 10)) is True
    local.advance(0)
    assert workers.left() == {"one": "b", "two": "d"}


def test_a_barrier_lets_in_when_all_have_come_and_begins_anew_when_all_have_left():
    """Who waits no longer does not count; who comes in between is of the next round; who dies inside has left."""
    barriers = LocalMachine(Barriers)

    def enter(owner, parties=3, wait_s=60.0):
        return barriers.enter("b", owner, parties, 10, wait_s)

    assert [enter("a"), enter("dead", wait_s=1)] == [0, 0]
    barriers.advance(1)
    assert enter("b") == 0
    last = enter("c")
    tokens = [barriers.token_of("b", owner) for owner in "abc"]
    assert tokens[-1] == last
    assert tokens == [last - 2, last - 1, last]
    assert enter("d") == 0, "of the next round"
    barriers.release("b", tokens[0])
    assert [barriers.is_on("b", token) for token in tokens] == [True] * 3
    assert [enter("e"), enter("f")] == [0, 0]
    barriers.release("b", tokens[2])
    barriers.advance(10)
    assert [barriers.is_on("b", token) for token in tokens] == [False] * 3
    assert barriers.inside("b") == 3, "the next round began as the last one's time was over"
    barriers.advance(100)
    assert rows(barriers) == 0


def test_a_barrier_is_of_one_number_of_parties():
    """Whoever says another one is told; so is one with a number that can't be."""
    barriers = LocalMachine(Barriers)
    barriers.enter("b", "a", 3, 10, 60)
    with pytest.raises(OtherParties) as caught:
        barriers.enter("b", "b", 2)
    assert caught.value.parties == 3
    with pytest.raises(Rejected, match="parties must be 1 to 1000, not 0"):
        barriers.enter("c", "b", 0)
    assert barriers.enter("alone", "a", 1) > 0


def test_there_are_bounds_to_who_waits(monkeypatch):
    """A typed refusal, without effect."""
    monkeypatch.setattr(turns, "WAITERS_MAX", 2)
    elections = LocalMachine(Elections)
    for owner in ("a", "b", "c"):
        elections.campaign("work", owner, "", 10, 60)
    with pytest.raises(TooManyWaiters):
        elections.campaign("work", "d", "", 10, 60)
    assert issubclass(TooManyWaiters, Rejection)
    assert elections.waiting("work") == ["b", "c"]
