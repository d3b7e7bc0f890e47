"""What waits for something about a node, and the ticks at which that is looked at."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import pytest

from raftkv.errors import NodeStopped, Unavailable
from raftkv.node.ticks import Ticks
from raftkv.node.waiters import Waiters
from raftkv.testing.world.loop import elapse
from tests.node.parts import Body, tell


def test_whoever_waits_is_woken_when_it_holds_or_when_the_node_ends():
    """With the error that has stopped it, or with the word that it was asked to; not at the deadline only."""

    async def story():
        for failure in (None, NodeStopped("the disk is broken")):
            body = Body({"node_id": 1})
            waiters, holds = Waiters(body), []
            await waiters.until(lambda: True, 1.0, "what holds")
            first = asyncio.ensure_future(waiters.until(lambda holds=holds: bool(holds), 60.0, "it"))
            second = asyncio.ensure_future(waiters.until(lambda: False, 60.0, "never"))
            await elapse(1)
            waiters.look()
            await elapse(1)
            assert not first.done()
            holds.append(1)
            waiters.look()
            await first
            body.has_ended, body.failure = True, failure
            waiters.look()
            with pytest.raises(NodeStopped, match="the disk is broken" if failure else "asked to stop"):
                await second
            assert asyncio.get_running_loop().time() < 10
            if failure:
                with pytest.raises(NodeStopped, match="the disk is broken"):
                    await waiters.until(lambda: False, 60.0, "never")

    tell(story)


def test_the_deadline_of_whoever_waits_says_for_what():
    """And whoever waits for the next tick waits for just that."""

    async def story():
        waiters = Waiters(Body({"node_id": 1}))
        with pytest.raises(Unavailable, match="a leader: not within 2 s"):
            await waiters.until(lambda: False, 2.0, "a leader")
        waiters.look()
        tick = asyncio.ensure_future(waiters.next_tick())
        await elapse(1)
        assert not tick.done()
        waiters.look()
        await tick

    tell(story)


def test_ticks_are_counted_from_the_beginning_to_the_end():
    """One at a time while the loop keeps up, whatever its clock says at the start; after a pause no more than an
    election time-out has; and none after the end."""

    async def story():
        await elapse(100)
        ticked, looks = [], []
        body = Body({"node_id": 1, "config": SimpleNamespace(election_ticks=10)}, tick_ms=50)
        ticks = Ticks(body, ticked.append, lambda: looks.append(1))
        ticks.begin()
        assert ticked == []
        await elapse(0.425)
        assert (ticked, len(looks)) == ([1] * 8, 9)
        asyncio.get_running_loop().advance(0.2)
        await elapse(0.05)
        asyncio.get_running_loop().advance(50)
        await elapse(0.05)
        assert ticked[8:11] == [4, 1, 10]
        ticks.stop()
        before = len(looks)
        await elapse(10)
        assert len(looks) == before

    tell(story)
