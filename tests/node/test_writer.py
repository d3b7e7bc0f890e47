"""What is durable in which order: hard state, bound and log (F7)."""

from __future__ import annotations

import asyncio

from raftkv.disk.simulated import SimDisk
from raftkv.log import VoteFile
from raftkv.model import HardState
from raftkv.node.writer import Writer
from raftkv.testing.world.loop import SimLoop
from tests.log.logs import IDENTITY, VOTE, append, entries_behind, entry_behind, last_of, open_log


class AtOnce:
    """A worker that works when it is asked to."""

    def run(self, work, *args):
        future = asyncio.get_running_loop().create_future()
        future.set_result(work(*args))
        return future


def test_a_cut_without_a_vote_lowers_what_the_vote_file_counts_on():
    """A follower's tail makes way for a shorter one; the next start must not take that for a loss."""

    async def story():
        disk = SimDisk()
        log = open_log(disk)
        entries = entries_behind(last_of(log), 1, [40] * 10)
        append(log, entries)
        vote = VoteFile.create(disk, VOTE, IDENTITY, HardState())
        vote.write(HardState(2, None), 10)
        told = []
        writer = Writer(AtOnce(), log, vote, on_durable=lambda number, _: told.append(number), on_failure=told.append)
        writer.enqueue(1, log.stage(5, [entry_behind(entries[3], 2)]), 5, None, [])
        await writer.idle()
        assert told == [1]
        disk.crash()
        found = VoteFile.open(disk, VOTE)
        assert found.hard_state == HardState(2, None)
        assert found.durable_index <= 5
        assert open_log(disk, found.durable_index).durable_index == 5

    SimLoop().run(story())
