"""The times until which somebody waits: one timer for many, each told once, and none left behind."""

from __future__ import annotations

import asyncio

from raftkv.node.deadlines import OVER_AT_ONCE, STEP_S, Deadlines
from raftkv.testing import elapse
from raftkv.testing.world.loop import SimLoop


def test_each_is_told_at_its_time_and_those_who_wait_no_longer_are_not() -> None:
    """Never before, and hardly later; also one who is dropped by another one of the same moment."""

    async def story() -> None:
        loop = asyncio.get_running_loop()
        told: list[tuple[str, float]] = []
        steps: dict[str, int] = {}

        def over(each: str) -> None:
            told.append((each, loop.time() - began))
            if each == "c":
                deadlines.drop("d", steps["d"])

        deadlines, began = Deadlines(over), loop.time()
        for each, wait_s in (("a", 5.0), ("b", 0.0), ("c", 1.0), ("d", 1.0), ("e", 1.0), ("f", 2.0)):
            steps[each] = deadlines.add(each, wait_s)
        assert not told
        deadlines.drop("f", steps["f"])
        deadlines.drop("f", steps["f"])
        await elapse(6.0)
        assert [each for each, _ in told] == ["b", "c", "e", "a"]
        for (_, at), wait_s in zip(told, (0.0, 1.0, 1.0, 5.0), strict=True):
            assert wait_s <= at <= wait_s + 1.1 * STEP_S
        assert not deadlines._steps and not deadlines._timers

    SimLoop().run(story())


def test_many_whose_time_is_over_at_once_leave_the_loop_to_others() -> None:
    """So many in one turn, and the next ones in the next, with one timer for all of them."""

    async def story() -> None:
        told: list[int] = []
        deadlines = Deadlines(told.append)
        count = 3 * OVER_AT_ONCE + 1
        for each in range(count):
            deadlines.add(each, 1.0)
        assert len(deadlines._timers) == 1
        sizes = []
        while len(told) < count:
            await (asyncio.sleep(0) if told else elapse(STEP_S))
            sizes.append(len(told))
        assert told == list(range(count))
        assert len(set(sizes)) > 2

    SimLoop().run(story())
