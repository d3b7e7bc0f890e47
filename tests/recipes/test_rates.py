"""Rate limits: never more than was promised, and evenly, by the log's time alone."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raftkv import LocalMachine, Part, Rejected, StateMachine, Table, command
from raftkv.recipes import (
    AwaitedRateLimits,
    BlockingRateLimits,
    NotAcquired,
    Pace,
    RateLimits,
    TooFast,
    TooManyBuckets,
    rates,
)
from tests.recipes.simulated import MemoryClient, run_in_thread, run_story


def test_a_full_bucket_is_spent_at_once_and_comes_back_evenly():
    """Three of seven in ten seconds: 1,428.57 ms each, rounded up where one has to wait."""
    machine = LocalMachine(RateLimits)
    assert [machine.ask("ann", 7, 10.0, 3) for _ in range(3)] == [Pace(True, 2), Pace(True, 1), Pace(True, 0)]
    assert machine.ask("ann", 7, 10.0, 3) == Pace(False, 0, 1.429)
    assert machine.ask("bob", 7, 10.0, 3).is_allowed
    machine.advance(1.428)
    assert machine.ask("ann", 7, 10.0, 3) == machine.peek("ann", 7, 10.0, 3) == Pace(False, 0, 0.001)
    machine.advance(0.001)
    assert machine.peek("ann", 7, 10.0, 3) == Pace(True, 1)
    assert machine.ask("ann", 7, 10.0, 3) == Pace(True, 0)
    assert machine.refill("ann") is True
    assert machine.refill("ann") is False
    assert machine.ask("ann", 7, 10.0, 3, 3) == Pace(True, 0)


@given(
    st.integers(1, 1000),
    st.floats(0.001, 1000),
    st.integers(1, 20),
    st.lists(st.tuples(st.integers(0, 100_000), st.integers(1, 3)), max_size=40),
)
def test_in_no_span_of_time_is_more_given_than_a_full_bucket_and_what_comes_meanwhile(limit, per_s, burst, asked):
    """For all settings: what is given from any time to any other is within the limit, and one that waits as long as it
    was told gets its tokens."""
    machine = LocalMachine(RateLimits)
    given_at, now_ms, per_ms = [], 0, round(per_s * 1000)
    for pause_ms, cost in asked:
        machine.advance(pause_ms / 1000)
        now_ms, cost = now_ms + pause_ms, min(cost, burst)
        pace = machine.ask("a", limit, per_s, burst, cost)
        if not pace.is_allowed:
            machine.advance(pace.wait_s)
            now_ms += round(pace.wait_s * 1000)
            assert machine.ask("a", limit, per_s, burst, cost).is_allowed
        given_at.append((now_ms, cost))
    for at, (start_ms, _) in enumerate(given_at):
        total = 0
        for end_ms, cost in given_at[at:]:
            total += cost
            assert total * per_ms <= burst * per_ms + (end_ms - start_ms) * limit


class Watched(RateLimits):
    """Rate limits that tell how many buckets they know."""

    @command
    def count_buckets(self) -> int:
        """Those that are not full."""
        return len(self.buckets)


def test_a_bucket_that_is_full_again_leaves_nothing_behind(monkeypatch):
    """So names may come and go; those that are not full are so many at most."""
    monkeypatch.setattr(rates, "BUCKETS_MAX", 2)
    machine = LocalMachine(Watched)
    machine.ask("a", 1, 1.0)
    machine.ask("b", 1, 2.0)
    with pytest.raises(TooManyBuckets):
        machine.ask("c", 1, 1.0)
    machine.advance(1)
    assert machine.count_buckets() == 1
    machine.ask("c", 1, 1.0)
    machine.advance(2)
    assert machine.count_buckets() == 0


def test_when_the_logs_clock_was_ahead_and_is_set_back_tokens_come_from_then_on():
    """Not when it is that late again, which may be in years; and none is given for nothing."""
    machine = LocalMachine(RateLimits)
    assert machine.ask("a", 1, 1.0).is_allowed
    machine.now_ms -= 86_400_000
    assert machine.ask("a", 1, 1.0) == Pace(False, 0, 1.0)
    machine.advance(1)
    assert machine.ask("a", 1, 1.0).is_allowed
    assert not machine.ask("a", 1, 1.0).is_allowed


def test_other_settings_take_over_what_there_is():
    """A higher limit is felt at once, and no bucket gets fuller than it may be."""
    machine = LocalMachine(RateLimits)
    machine.ask("a", 10, 10.0, 10, 10)
    machine.advance(5)
    assert machine.peek("a", 10, 10.0, 10).left == 5
    assert machine.peek("a", 100, 1.0, 100).left == 100
    assert machine.peek("a", 1, 60.0, 8).left == 0
    assert machine.peek("a", 10, 10.0, 3).left == 3


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ((0, 1.0), "limit must be 1 to"),
        ((1, 0.0), "per_s must be 0.001 to"),
        ((1, float("nan")), "per_s must be 0.001 to"),
        ((1, 1.0, -1), "burst must be 0"),
        ((1, 1.0, 2, 3), "cost must be 1 to 2, which is all that a full bucket has, not 3"),
        ((1, 86_400.0, 1000), "would take more than a year to come"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings, said):
    """With a sentence that says what may be."""
    with pytest.raises(Rejected, match=said):
        LocalMachine(RateLimits).ask("a", *settings)


class Api(StateMachine):
    """A command that costs something."""

    rates = Part(RateLimits)
    sent = Table(str, int)

    @command
    def send(self, user: str) -> int:
        """One of two a minute; what is refused has no effect."""
        self.sent[user] = self.sent.get(user, 0) + 1
        self.rates.spend(user, 2, 60.0)
        return self.sent[user]


def test_a_command_spends_and_does_in_one():
    """What is too fast is undone as a whole, and says for how long to wait."""
    machine = LocalMachine(Api)
    assert [machine.send("ann"), machine.send("ann")] == [1, 2]
    with pytest.raises(TooFast) as caught:
        machine.send("ann")
    assert caught.value.wait_s == 30
    machine.advance(30)
    assert machine.send("ann") == 3


def test_whoever_acquires_waits_for_its_turn_or_not_at_all():
    """Ten processes share a rate; one that would be too late is told at once, and has spent nothing."""

    async def story():
        client = MemoryClient(Api)
        loop = asyncio.get_running_loop()
        start = loop.time()

        async def send():
            await AwaitedRateLimits(client.another(), Api.rates).acquire("mail", limit=2, per_s=1)
            return loop.time() - start

        took = sorted(await asyncio.gather(*[send() for _ in range(10)]))
        assert took[1] < 0.1
        assert 4 <= took[-1] < 4.5
        limits = AwaitedRateLimits(client, Api.rates)
        with pytest.raises(NotAcquired, match="too few tokens"):
            await limits.acquire("mail", limit=2, per_s=1, cost=2, timeout_s=0.5)
        assert loop.time() - start < 5
        await limits.acquire("mail", limit=2, per_s=1, cost=2, timeout_s=1.1)

    run_story(story)


def test_threads_have_the_same_from_a_real_node(tmp_path):
    """`BlockingRateLimits`, by a part."""

    def story(client):
        limits = BlockingRateLimits(client, Api.rates)
        assert limits.ask("a", limit=1, per_s=1000).is_allowed
        assert not limits.ask("a", limit=1, per_s=1000).is_allowed
        with pytest.raises(NotAcquired):
            limits.acquire("a", limit=1, per_s=1000, timeout_s=1)
        limits.acquire("b", limit=100, per_s=1)

    run_in_thread(Api, tmp_path, story)
