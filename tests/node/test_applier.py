"""What is applied while the state is replaced: nothing, and nothing that was read before (F60)."""

from __future__ import annotations

import asyncio
import time
from types import SimpleNamespace

from raftkv.node.applier import AnswerClock, Applier
from raftkv.node.waiting import Commands, Queries
from raftkv.testing.world.loop import SimLoop, elapse


class Machine:
    """A runner that only notes what it was given."""

    def __init__(self, index=0):
        self.applied = SimpleNamespace(index=index)
        self.given = []

    def apply(self, entries):
        self.given += [entry.index for entry in entries]
        self.applied = SimpleNamespace(index=entries[-1].index)
        return [None] * len(entries)


def entries(first, last):
    """Entries with nothing but an index."""
    return [SimpleNamespace(index=index, term=1) for index in range(first, last + 1)]


def applier(machine, log, worker=None):
    """An applier that takes two entries at a time."""
    failures = []
    made = Applier(
        machine,
        log,
        worker,
        Commands(),
        Queries(1),
        batch_entries_max=2,
        on_applied=lambda index: None,
        on_failure=failures.append,
        clock=AnswerClock(time.monotonic, lambda: 0),
        go_on=lambda query: None,
    )
    return made, failures


def test_a_batch_that_was_due_waits_while_the_state_is_replaced():
    """Paused between two batches, it goes on with the new state."""

    async def story():
        old, new = Machine(), Machine(4)
        found, failures = applier(old, SimpleNamespace(cached=entries))
        found.hand_in(7)
        assert old.given == [1, 2]
        found.pause()
        await elapse(1.0)
        assert old.given == [1, 2]
        found.resume(new)
        await elapse(1.0)
        assert (old.given, new.given) == ([1, 2], [5, 6, 7])
        assert failures == []

    SimLoop().run(story())


def test_what_was_read_before_the_state_was_replaced_is_not_applied_behind_it():
    """The disk was asked for old entries; when they come, the state is ahead of them."""

    async def story():
        old, new = Machine(), Machine(4)
        asked = []

        def run(work, first, last, size):
            asked.append((first, last, asyncio.get_running_loop().create_future()))
            return asked[-1][2]

        log = SimpleNamespace(cached=lambda first, last: None, load=None)
        found, failures = applier(old, log, SimpleNamespace(run=run))
        found.hand_in(6)
        found.pause()
        found.resume(new)
        first, last, future = asked[0]
        future.set_result(entries(first, last))
        await elapse(1.0)
        assert (old.given, new.given) == ([], [])
        first, last, future = asked[-1]
        future.set_result(entries(first, last))
        await elapse(1.0)
        assert new.given == [5, 6]
        assert failures == []

    SimLoop().run(story())
