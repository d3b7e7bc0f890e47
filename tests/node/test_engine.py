"""When the loop of a node turns, and what may have happened while entries were read from disk for a follower."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import pytest

from raftkv.config import Config
from raftkv.core.messages import AppendEntries
from raftkv.core.ready import Ready
from raftkv.errors import Corruption
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
            ready=lambda: self.wanted.pop() if self.wanted else None,
        )
        self.read = asyncio.get_running_loop().create_future()
        self.sent, self.failures = [], []
        nothing = SimpleNamespace(next_batch=lambda: None, leadership_lost=lambda: None)
        self.engine = Engine(
            SimpleNamespace(
                raft=self.raft,
                config=Config(),
                world=SimpleNamespace(
                    log_worker=SimpleNamespace(run=lambda *work: self.read),
                    now_ms=lambda: 0,
                    monotonic_ms=lambda: 0,
                ),
                transport=SimpleNamespace(
                    send=lambda to, message: self.sent.append(message), cork=lambda: None, uncork=lambda: None
                ),
                fail=self.failures.append,
            ),
            log=SimpleNamespace(cached=lambda first, last: None, load=None),
            writer=None,
            applier=None,
            commands=nothing,
            queries=nothing,
            count_time=lambda: None,
            send_snapshot=None,
            install_snapshot=None,
            on_role=lambda: None,
        )
        self.engine.turn()


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
