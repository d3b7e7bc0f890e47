"""Locks: the machine alone, in memory, where time passes as one says."""

from __future__ import annotations

import pytest

from raftkv import LocalMachine, Part, Rejected, StateMachine, Table, command
from raftkv.recipes import Fences, Holder, LockLost, Locks, StaleToken


@pytest.fixture
def locks():
    """A machine of locks."""
    return LocalMachine(Locks)


def test_one_holds_a_lock_and_the_others_have_their_turn_in_order(locks):
    """By release and by time; each token is higher than all before it."""
    first = locks.acquire("db", "ann", 10)
    assert first > 0
    assert locks.acquire("db", "bob", 10) == 0
    assert locks.waiting("db") == [], "who does not want to wait does not"
    assert [locks.acquire("db", owner, 10, 100) for owner in ("bob", "eve", "joe")] == [0, 0, 0]
    assert locks.waiting("db") == ["bob", "eve", "joe"]
    assert locks.release("db", first) is True
    second = locks.token_of("db", "bob")
    assert second > first
    locks.advance(10)
    third = locks.token_of("db", "eve")
    assert third > second
    assert locks.token_of("db", "bob") == 0
    assert locks.holders("db") == [Holder("eve", third)]
    assert locks.waiting("db") == ["joe"]


def test_nobody_holds_it_after_its_time_even_if_nothing_has_run_yet(locks):
    """The log's time counts, not when the nodes get round to removing it; nor is it over before."""
    token = locks.acquire("db", "ann", 10)
    locks.now_ms += 9_999
    assert locks.token_of("db", "ann") == token
    assert locks.acquire("db", "bob", 10) == 0
    locks.now_ms += 1
    assert locks.token_of("db", "ann") == 0
    with pytest.raises(LockLost):
        locks.renew("db", token)
    assert locks.release("db", token) is False
    assert locks.acquire("db", "bob", 10) > token
    locks.advance(0)
    assert len(locks.holders("db")) == 1, "what runs for the old row does not meet the new one"


def test_who_waited_first_comes_before_who_asks_at_the_right_time(locks):
    """Between a hold's end and its removal, a new one still goes behind those that wait."""
    locks.acquire("db", "ann", 10)
    locks.acquire("db", "bob", 10, 100)
    locks.now_ms += 10_000
    assert locks.acquire("db", "eve", 10) == 0
    assert locks.token_of("db", "bob") > 0


def test_a_renewed_lock_is_held_on_and_asking_again_does_not_make_it_two(locks):
    """A retry has the same token; it does not lengthen the hold."""
    token = locks.acquire("db", "ann", 10)
    locks.advance(6)
    assert locks.acquire("db", "ann", 10) == token
    locks.renew("db", token)
    locks.advance(9)
    assert locks.token_of("db", "ann") == token
    locks.advance(1)
    assert locks.token_of("db", "ann") == 0


def test_release_is_idempotent_and_takes_nothing_from_the_next(locks):
    """A late release, by an old token, is without effect."""
    token = locks.acquire("db", "ann")
    assert (locks.release("db", token), locks.release("db", token)) == (True, False)
    second = locks.acquire("db", "bob")
    assert locks.release("db", token) is False
    assert locks.token_of("db", "bob") == second


def test_a_waiter_that_is_gone_is_passed_over(locks):
    """By its own time, or as it leaves; one that asks again stays where it is."""
    token = locks.acquire("db", "ann", 60)
    locks.acquire("db", "bob", 10, 5)
    locks.acquire("db", "eve", 10, 5)
    locks.acquire("db", "joe", 10, 50)
    locks.advance(4)
    locks.acquire("db", "eve", 10, 50)
    assert locks.leave("db", "joe") is True
    locks.advance(4)
    assert locks.waiting("db") == ["eve"]
    locks.release("db", token)
    assert locks.token_of("db", "eve") > token
    assert locks.leave("db", "eve") is True
    assert (locks.leave("db", "eve"), locks.holders("db")) == (False, [])


def test_nothing_is_kept_of_what_is_over(locks):
    """Whatever way it went, no row is left."""
    for number in range(5):
        locks.acquire("db", f"owner{number}", 1, 3)
    locks.acquire("db", "hasty", 1)
    locks.acquire("other", "ann", 1)
    locks.advance(30)
    instance = locks._runner.instance
    assert [len(instance.held), len(instance.waiters), len(instance.places)] == [0, 0, 0]
    assert list(locks._runner.out_of_step()) == []


def test_what_runs_by_itself_does_no_harm_when_a_client_calls_it(locks):
    """A live hold and a live wait are not ended by it."""
    token = locks.acquire("db", "ann", 10)
    locks.acquire("db", "bob", 10, 10)
    instance = locks._runner.instance
    ((key, hold),) = list(instance.held.range())
    ((place, waiter),) = list(instance.waiters.range())
    locks.hold_is_over(key, hold)
    locks.wait_is_over(place, waiter)
    locks.settle("db")
    assert (locks.token_of("db", "ann"), locks.waiting("db")) == (token, ["bob"])


@pytest.mark.parametrize(("ttl_s", "wait_s"), [(0.0, 0.0), (-1.0, 0.0), (float("nan"), 0.0), (1e12, 0.0), (1.0, -1.0)])
def test_times_that_make_no_sense_are_rejected(locks, ttl_s, wait_s):
    """With what they may be."""
    with pytest.raises(Rejected, match=r"must be 0.1 to "):
        locks.acquire("db", "ann", ttl_s, wait_s)


class Disk(StateMachine):
    """A resource that is guarded twice over."""

    locks = Part(Locks)
    fences = Part(Fences)
    blocks = Table(int, str)

    @command
    def write(self, block: int, data: str, token: int) -> None:
        """Whoever has the highest token may."""
        self.fences.admit("disk", token)
        self.blocks[block] = data

    @command
    def write_now(self, block: int, data: str, token: int) -> None:
        """Only the holder may, at the time of the entry."""
        self.locks.require("disk", token)
        self.blocks[block] = data


def test_a_resource_refuses_who_holds_the_lock_no_longer():
    """By the highest token that it has seen, or by the lock itself, in the same entry."""
    disk = LocalMachine(Disk)
    old = disk.locks.acquire("disk", "paused", 5)
    disk.write(1, "a", old)
    disk.advance(5)
    disk.write(1, "still fine, as nobody else has come", old)
    with pytest.raises(LockLost):
        disk.write_now(1, "b", old)
    new = disk.locks.acquire("disk", "next", 5)
    disk.write(1, "c", new)
    disk.write_now(1, "c", new)
    with pytest.raises(StaleToken) as caught:
        disk.write(1, "d", old)
    assert (caught.value.token, caught.value.highest) == (old, new)
    assert disk.fences.seen("disk") == new
    disk.fences.check("other", 5)
    disk.fences.check("other", 5)
    with pytest.raises(StaleToken, match="'other' has seen token 5: token 4 is of a holder before that"):
        disk.fences.check("other", 4)
    assert (disk.fences.forget("disk"), disk.fences.forget("disk"), disk.fences.seen("disk")) == (True, False, 0)
