"""When the loop of a node turns, and what may have happened while entries were read from disk for a follower."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import pytest

from raftkv.config import Config
from raftkv.core.messages import AppendEntries
from raftkv.core.ready import Ready
from raftkv.errors import Corruption
from raftkv.model import HardState
from raftkv.node.engine import Engine
from raftkv.testing.world.loop import SimLoop, elapse


class World:
    """An engine whose core wants one append sent, and a disk that is slow to read it."""

    def __init__(self):
        append = AppendEntries(
            sender=1, to=2, term=3, prev_index=4, prev_term=2, prev_chain=0, last_index=6, commit_index=4, round=1,
            entries=[],
        )  # fmt: skip
        ready = Ready(write=0, messages=[append])
        self.wanted = [ready]
        self.raft = SimpleNamespace(
            term=3,
            leader=1,
            is_leader=True,
            has_output=False,
            tick=lambda: None,
            observe=lambda now_ms, monotonic_ms: None,
            step=lambda message: None,
            log=SimpleNamespace(start=SimpleNamespace(index=0)),
            durability=SimpleNamespace(done=0),
            persisted=self._persisted,
            ready=lambda: self.wanted.pop() if self.wanted else None,
        )
        self.read = asyncio.get_running_loop().create_future()
        self.reads = []
        """The first and last entry of each read that was begun."""
        self.cached = {}
        """What is in memory, by its first and last entry."""
        self.sent, self.failures = [], []
        self.queued = []
        """What was handed to the writer."""
        self.ended = []
        """For each turn, what the writer was told at its end, and whether what was sent was still held back then."""
        self.is_corked = False
        nothing = SimpleNamespace(next_batch=lambda: None, leadership_lost=lambda: None)
        self.engine = Engine(
            SimpleNamespace(
                raft=self.raft,
                config=Config(),
                world=SimpleNamespace(
                    clock=lambda: 0.0,
                    log_worker=SimpleNamespace(run=self._run),
                    now_ms=lambda: 0,
                    monotonic_ms=lambda: 0,
                ),
                transport=SimpleNamespace(
                    send=lambda to, message: self.sent.append(message),
                    cork=lambda: setattr(self, "is_corked", True),
                    uncork=lambda: setattr(self, "is_corked", False),
                ),
                fail=self.failures.append,
            ),
            log=SimpleNamespace(
                cached=lambda first, last: self.cached.get((first, last)),
                load=None,
                stage=lambda truncate_from, entries: (truncate_from, entries),
            ),
            writer=SimpleNamespace(
                enqueue=lambda *task: self.queued.append(task),
                end_turn=lambda *, has_sent: self.ended.append((has_sent, self.is_corked)),
            ),
            applier=None,
            commands=nothing,
            queries=nothing,
            count_time=lambda: None,
            send_snapshot=None,
            install_snapshot=None,
            on_role=lambda: None,
        )
        self.engine.turn()

    def _run(self, work, first, last, bytes_max):
        self.reads.append((first, last))
        return self.read

    def _persisted(self, write):
        self.raft.durability.done = write


def tell(story):
    """Tell a story of such a world."""

    async def main():
        await story(World())

    SimLoop().run(main())


@pytest.mark.parametrize(("term", "is_leader", "is_sent"), [(3, True, True), (4, False, False), (5, True, False)])
def test_what_was_read_for_an_older_leadership_is_not_sent(term, is_leader, is_sent):
    """Since then the log may have changed under it (F28)."""

    async def story(world):
        world.raft.term, world.raft.is_leader = term, is_leader
        world.read.set_result([SimpleNamespace(index=5), SimpleNamespace(index=6)])
        await elapse(0.1)
        assert [len(message.entries) for message in world.sent] == ([2] if is_sent else [])
        assert world.failures == []

    tell(story)


@pytest.mark.parametrize(("start", "stops"), [(0, True), (4, False), (9, False)])
def test_entries_that_cannot_be_read_stop_the_node_unless_they_were_compacted(start, stops):
    """What should be there is never skipped; what a snapshot has replaced meanwhile is of no use (F18)."""

    async def story(world):
        world.raft.log.start.index = start
        error = Corruption("entry 5 is damaged")
        world.read.set_exception(error)
        await elapse(0.1)
        assert world.failures == ([error] if stops else [])
        assert world.sent == []

    tell(story)


@pytest.mark.parametrize(
    ("change", "turns"),
    [
        ({}, False),
        ({"has_output": True}, True),
        ({"leader": 2}, True),
        ({"term": 4}, True),
        ({"leader": None}, True),
    ],
)
def test_the_loop_turns_only_for_what_led_to_something(change, turns):
    """Ticks and heartbeats' answers mostly don't; but a role that changed without a message must be told of."""

    async def story(world):
        for field, value in change.items():
            setattr(world.raft, field, value)
        world.engine.tick(1)
        assert world.engine.has_pending == turns
        await elapse(0.1)
        if not change:
            world.engine.step(SimpleNamespace())
            assert not world.engine.has_pending

    tell(story)


@pytest.mark.parametrize("written", [{}, {"hard_state": HardState(3, 1)}, {"entries": ["entry"]}, {"truncate_from": 7}])
@pytest.mark.parametrize("done", [0, 1, 2, 3])
def test_what_must_be_durable_first_waits_for_its_write_and_for_all_before_it(done, written):
    """F7: the third write is under way, and `done` of them are durable. A Ready with something to write waits for its
    own; one without waits for the last that was handed out. What need not wait is on its way meanwhile."""

    async def story(world):
        world.raft.durability.done = done
        at_once, later = SimpleNamespace(to=2), SimpleNamespace(to=2)
        number = 4 if written else 3
        world.wanted.append(Ready(write=number, messages=[at_once], durable_messages=[later], **written))
        world.engine.turn()
        if written:
            truncate_from, entries = written.get("truncate_from"), written.get("entries", [])
            write = (truncate_from, entries) if truncate_from is not None or entries else None
            assert world.queued == [(4, write, truncate_from, written.get("hard_state"), [later])]
        elif done < 3:
            assert world.queued == [(3, None, None, None, [later])]
        if written or done < 3:
            assert world.sent == [at_once]
            world.engine.durable(number, [later])
            assert world.raft.durability.done == number
        assert world.sent == [at_once, later]

    tell(story)


@pytest.mark.parametrize("sends", [False, True])
def test_the_writer_hears_at_the_end_of_a_turn_whether_it_has_sent_anything(sends):
    """When all of it was let go: a write on the loop's thread must not hold up what peers wait for."""

    async def story(world):
        world.ended.clear()
        message = SimpleNamespace(to=2)
        world.wanted.append(Ready(write=1, hard_state=HardState(1, 1), messages=[message] if sends else []))
        world.engine.turn()
        world.engine.turn()
        assert world.ended == [(sends, False), (False, False)]
        world.engine.durable(1, [message] if sends else [])
        assert world.ended[2:] == [(sends, False)], "acknowledgements are sent as well"

    tell(story)


def test_what_was_handed_out_is_written_though_the_turn_has_failed():
    """The write may have been left for the end of the turn, and a node that stops waits for it."""

    async def story(world):
        def broken():
            if not world.wanted:
                raise ValueError("the core is broken")
            return world.wanted.pop()

        world.ended.clear()
        world.wanted.append(Ready(write=1, hard_state=HardState(1, 1)))
        world.raft.ready = broken
        world.engine.turn()
        assert [str(failure) for failure in world.failures] == ["the core is broken"]
        assert len(world.queued) == len(world.ended) == 1

    tell(story)


@pytest.mark.parametrize(("term", "is_sent"), [(3, True), (4, False)])
def test_an_append_that_waited_for_a_read_is_not_read_when_it_is_in_memory_or_of_no_use(term, is_sent):
    """Its entry may not be on disk yet, or may have been cut off by another leader's: a read would find it missing,
    and the node would stop as if it had lost it."""

    async def story(world):
        append = AppendEntries(
            sender=1, to=2, term=3, prev_index=6, prev_term=3, prev_chain=0, last_index=7, commit_index=4, round=1,
            entries=[],
        )  # fmt: skip
        world.wanted.append(Ready(write=0, messages=[append]))
        world.cached[7, 7] = [SimpleNamespace(index=7)]
        world.engine.turn()
        assert world.sent == [], "it would overtake the one before it"
        world.raft.term = term
        world.read.set_result([SimpleNamespace(index=5), SimpleNamespace(index=6)])
        await elapse(0.1)
        assert world.reads == [(5, 6)] and world.failures == []
        assert [message.last_index for message in world.sent] == ([6, 7] if is_sent else [])

    tell(story)
