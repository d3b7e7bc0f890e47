"""Idempotency keys: what has a key is done once, and everybody gets that answer."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest

from raftkv import LocalMachine, Part, Rejected, Rejection, StateMachine, Value, command
from raftkv.machine.depth import NESTED_MAX
from raftkv.recipes import (
    AwaitedIdempotencyKeys,
    BlockingIdempotencyKeys,
    IdempotencyKeys,
    KeyInUse,
    KeyLost,
    KeyReused,
    KeyState,
    NotAcquired,
    TooManyKeys,
    once,
)
from raftkv.testing.world.loop import elapse
from tests.node.shops import called
from tests.recipes.simulated import MemoryClient, run_in_thread, run_story


class NoMoney(Rejection):
    """There is not enough."""


class Receipt(msgspec.Struct):
    """What a payment answers."""

    number: int
    left: int


class Bank(StateMachine):
    """Payments that have keys."""

    keys = Part(IdempotencyKeys)
    cents = Value(int, 100)
    count = Value(int, 0)

    @command
    def pay(self, key: str, cents: int, keep_s: float = 60.0) -> Receipt:
        """Pay once a key."""
        return self.keys.once(key, lambda: self._pay(cents), answer=Receipt, request=cents, keep_s=keep_s)

    def _pay(self, cents: int) -> Receipt:
        self.count += 1
        if cents > self.cents:
            raise NoMoney
        self.cents -= cents
        return Receipt(self.count, self.cents)

    @command
    def earn(self, cents: int) -> None:
        """So many more."""
        self.cents += cents


def test_a_command_with_a_key_runs_once_and_answers_alike_until_its_time_is_over():
    """Another request with the key is a mistake; after its time the key is free."""
    machine = LocalMachine(Bank)
    assert machine.pay("k", 30) == machine.pay("k", 30) == Receipt(1, 70)
    with pytest.raises(KeyReused):
        machine.pay("k", 31)
    assert machine.keys.abandon("k", 0) is False
    with pytest.raises(KeyLost):
        machine.keys.finish("k", 0, "mine")
    machine.advance(59.999)
    assert machine.pay("k", 30) == Receipt(1, 70)
    machine.advance(0.001)
    assert machine.pay("k", 30) == Receipt(2, 40)
    assert machine.pay("l", 30) == Receipt(3, 10)


class Order(msgspec.Struct):
    """What a payment is for."""

    cents: int


@called("Bank")
class Bank1(StateMachine):
    """The same, with orders."""

    keys = Part(IdempotencyKeys)

    @command
    def pay(self, key: str, order: Order) -> Receipt:
        """Pay once a key."""
        return self.keys.once(key, lambda: Receipt(1, order.cents), answer=Receipt, request=("pay", order))

    @command
    def note(self, key: str) -> None:
        """Keep what no command takes or returns."""
        self.keys.once(key, lambda: Unknown(1), answer=Unknown)


class Unknown(msgspec.Struct):
    """Nobody declares it."""

    number: int


@called("Receipt")
class Receipt2(msgspec.Struct):
    """As of version 2."""

    number: int
    left: int
    text: str = ""


@called("Order")
class Order2(msgspec.Struct):
    """As of version 2."""

    cents: int
    currency: str = "EUR"


@called("Bank")
class Bank2(StateMachine):
    """A later version, with records that have grown."""

    version = 2
    keys = Part(IdempotencyKeys)

    @command
    def pay(self, key: str, order: Order2) -> Receipt2:
        """Pay once a key."""
        answer = Receipt2(1, order.cents, "paid")
        return self.keys.once(key, lambda: answer, answer=Receipt2, request=("pay", order))

    @command
    def note(self, key: str) -> None:
        """As before."""
        self.keys.once(key, lambda: Unknown(1), answer=Unknown)


def test_classes_of_two_versions_keep_the_same_as_long_as_the_older_one_is_active():
    """Else the replicas would not agree any more in the middle of an upgrade. What the older one has kept is read."""
    old, new = LocalMachine(Bank1), LocalMachine(Bank2, version=1, begun_by=Bank1)
    for machine in (old, new):
        for _ in range(2):
            receipt = machine.pay("k", {"cents": 5})
            assert (receipt.number, receipt.left) == (1, 5)
        with pytest.raises(KeyReused):
            machine.pay("k", {"cents": 6})
        with pytest.raises(Rejected, match="Unknown is nothing that version 1 of Bank declares"):
            machine.note("n")
    assert new.digest == old.digest
    new.upgrade()
    assert new.pay("l", {"cents": 5}).text == "paid"


class Safe(StateMachine):
    """Keeps what is asked for as the answer."""

    keys = Part(IdempotencyKeys)

    @command
    def keep(self, key: str, depth: int) -> int:
        """A value that is nested so deep."""
        value: Any = []
        for place in range(depth - 1):
            value = [value] if place % 2 else {"in": value}
        self.keys.once(key, lambda: value, answer=Any, request=value)
        return len(self.keys.entries)


def test_how_deep_an_answer_and_a_request_may_be_nested_is_counted():
    """It is the same on every interpreter; what is within the bound has room enough on each."""
    machine = LocalMachine(Safe)
    for key in ("a", "a", "b"):
        kept = machine.keep(key, NESTED_MAX)
    assert kept == 2
    for depth in (NESTED_MAX + 1, 900, 2_000):
        with pytest.raises(Rejected, match="RecursionError"):
            machine.keep("c", depth)


def test_what_was_rejected_may_be_tried_again():
    """It had no effect, so the key has none either."""
    machine = LocalMachine(Bank)
    for _ in range(2):
        with pytest.raises(NoMoney):
            machine.pay("k", 130)
    machine.earn(100)
    assert machine.pay("k", 130) == machine.pay("k", 130) == Receipt(1, 70)


def test_there_are_so_many_keys_at_most_and_work_elsewhere_is_not_done_here(monkeypatch):
    """Each way of the two knows of the other."""
    monkeypatch.setattr(once, "KEYS_MAX", 2)
    machine = LocalMachine(Bank)
    machine.pay("k", 1)
    machine.keys.begin("l", "")
    with pytest.raises(TooManyKeys):
        machine.pay("m", 1)
    with pytest.raises(TooManyKeys):
        machine.keys.begin("m")
    assert machine.pay("k", 1) == Receipt(1, 99)
    assert machine.keys.state_of("k") == KeyState(True, '{"number":1,"left":99}')

    class Notes(IdempotencyKeys):
        @command
        def note(self, key: str) -> str:
            return self.once(key, lambda: "here", answer=str, request="")

    notes = LocalMachine(Notes)
    token = notes.begin("k").token
    with pytest.raises(KeyInUse):
        notes.note("k")
    notes.finish("k", token, "elsewhere")
    assert notes.note("k") == "elsewhere"


def test_one_does_the_work_and_the_others_wait_for_its_answer():
    """However long it takes: its time is extended meanwhile."""

    async def story():
        client, done = MemoryClient(Bank), []

        async def charge(name):
            async with AwaitedIdempotencyKeys(client.another(), Bank.keys).once("order", hold_s=2) as turn:
                if turn.is_first:
                    await elapse(30)
                    assert not turn.lost.is_set()
                    done.append(name)
                    turn.answer = f"charged by {name}"
            return turn.answer

        answers = await asyncio.gather(*[charge(name) for name in "abcde"])
        assert len(done) == 1
        assert set(answers) == {f"charged by {done[0]}"}

    run_story(story)


def test_work_that_failed_or_whose_process_has_died_is_done_by_the_next():
    """At once when it says so, after its time when it can't; and then its answer comes too late."""

    async def story():
        client = MemoryClient(Bank)
        keys, others = AwaitedIdempotencyKeys(client, Bank.keys), AwaitedIdempotencyKeys(client.another(), Bank.keys)
        with pytest.raises(ZeroDivisionError):
            async with keys.once("a", hold_s=5):
                raise ZeroDivisionError
        async with others.once("a", hold_s=5, timeout_s=0) as turn:
            assert turn.is_first
            turn.answer = "second"
        with pytest.raises(KeyLost):
            async with keys.once("b", hold_s=5) as first:
                client.is_cut = True
                with pytest.raises(NotAcquired):
                    async with others.once("b", hold_s=5, timeout_s=1):
                        pass
                async with others.once("b", hold_s=5) as second:
                    assert second.is_first
                    assert first.lost.is_set()
                    second.answer = "of the second"
                client.is_cut = False
                first.answer = "of the first"
        async with keys.once("b") as found:
            assert (found.is_first, found.answer) == (False, "of the second")

    run_story(story)


def test_threads_have_the_same_from_a_real_node(tmp_path):
    """`BlockingIdempotencyKeys`, and the machine that is nothing else."""

    def story(client):
        keys = BlockingIdempotencyKeys(client)
        with pytest.raises(ZeroDivisionError), keys.once("a") as turn:
            raise ZeroDivisionError
        with keys.once("a", request="r") as turn:
            assert turn.is_first
            turn.answer = "done"
        with keys.once("a", request="r") as turn:
            assert (turn.is_first, turn.answer) == (False, "done")
        with pytest.raises(KeyReused), keys.once("a", request="s"):
            pass

    run_in_thread(IdempotencyKeys, tmp_path, story)
