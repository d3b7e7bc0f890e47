"""The loop of simulated worlds: order, time, what is cancelled, and what fails."""

from __future__ import annotations

import asyncio

import pytest

from raftkv.testing.world.loop import PROCESS, Deadlock, SimLoop, elapse


def run(story):
    """Run `story(loop)` on a loop of its own; returns the loop."""
    loop = SimLoop()
    loop.run(story(loop))
    return loop


def test_timers_for_the_same_time_run_in_the_order_in_which_they_were_made():
    """However many there are, and whatever was made in between."""
    seen = []

    async def story(loop):
        for number in range(200):
            loop.call_at(1.0, seen.append, number)
            loop.call_at(2.0 - number / 1000, lambda: None)
        await elapse(1.0)

    run(story)
    assert seen == list(range(200))


def test_time_jumps_to_the_next_timer_that_was_not_cancelled():
    """A cancelled one neither runs nor lets time pass."""
    seen = []

    async def story(loop):
        loop.call_later(0.5, seen.append, "cancelled").cancel()
        soon = loop.call_soon(seen.append, "cancelled")
        soon.cancel()
        loop.call_later(2.0, lambda: seen.append(loop.time()))
        await elapse(3.0)
        assert soon.cancelled()

    assert run(story).time() == 3.0
    assert seen == [2.0]


def test_what_a_callback_raises_is_kept_and_the_others_go_on():
    """Nobody hears it but who asks the loop for it."""
    seen = []

    def fail():
        raise ValueError("no")

    async def story(loop):
        loop.call_soon(fail)
        loop.call_soon(seen.append, 1)
        await elapse(0.1)

    loop = run(story)
    assert seen == [1]
    assert [str(failure["exception"]) for failure in loop.failures] == ["no"]
    assert "fail" in loop.failures[0]["message"]


def test_a_world_in_which_nothing_can_happen_says_so():
    """Instead of waiting for ever."""

    async def story(loop):
        loop.call_later(5.0, lambda: None).cancel()
        await loop.create_future()

    with pytest.raises(Deadlock):
        run(story)


def test_a_timeout_is_one_of_virtual_time():
    """What asyncio builds on its timers works on these."""

    async def story(loop):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(3600):
                await loop.create_future()
        assert loop.time() == 3600
        assert await asyncio.wait_for(elapse(1), 2) is None

    run(story)


def test_a_story_that_fails_while_a_process_is_frozen_ends_with_its_error():
    """What the process was about is cancelled as all else is, though others go on: its tasks hear of it."""
    ended = []

    async def work(name):
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(name)

    async def story(loop):
        PROCESS.set("stopped")
        tasks = [asyncio.create_task(work("stopped"))]
        PROCESS.set("goes on")
        tasks.append(asyncio.create_task(work("goes on")))
        await elapse(1.0)
        loop.freeze("stopped")
        assert len(tasks) == 3, "as a test finds it"

    with pytest.raises(AssertionError, match="as a test finds it"):
        run(story)
    assert sorted(ended) == ["goes on", "stopped"]
