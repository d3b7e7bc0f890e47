"""What is durable in which order: hard state, bound and log (F7)."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections import deque

import pytest

from raftkv.disk.simulated import SimDisk
from raftkv.log import VoteFile
from raftkv.model import HardState
from raftkv.node.pace import QUICK_IN_A_ROW, QUICK_S
from raftkv.node.writer import BOUND_ENTRIES, HERE_ENTRIES_MAX, Writer
from raftkv.testing.world.loop import SimLoop, elapse
from raftkv.testing.world.workers import Crash
from tests.log.logs import (
    DIRECTORY,
    IDENTITY,
    VOTE,
    append,
    entries_behind,
    entry_behind,
    last_of,
    open_log,
    read_all,
)


class AtOnce:
    """A worker that works when it is asked to."""

    def run(self, work, *args):
        future = asyncio.get_running_loop().create_future()
        future.set_result(work(*args))
        return future


class WhenTold:
    """A worker that does one piece of work when a test says so."""

    def __init__(self):
        self._queue = deque()
        self.power_fails = False

    @property
    def is_idle(self):
        return not self._queue

    def run_here(self, work, *args):
        assert self.is_idle
        work(*args)
        return not self.power_fails

    def run(self, work, *args):
        future = asyncio.get_running_loop().create_future()
        self._queue.append((future, work, args))
        return future

    async def work(self):
        """Do the next piece, and let whoever waits for it hear of it."""
        future, work, args = self._queue.popleft()
        try:
            future.set_result(work(*args))
        except Exception as exc:  # noqa: BLE001 (it belongs to whoever waits for the work)
            future.set_exception(exc)
        await elapse(0)

    async def work_off(self):
        """Do all pieces, those too that come of them."""
        while self.has_work:
            await self.work()

    @property
    def has_work(self):
        return bool(self._queue)

    @property
    def left(self):
        """How many pieces are to be done."""
        return len(self._queue)


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
        writer = Writer(
            AtOnce(), log, vote, clock=NO_TIME, on_durable=lambda number, _: told.append(number), on_failure=told.append
        )
        writer.enqueue(1, log.stage(5, [entry_behind(entries[3], 2)]), 5, None, [])
        await writer.idle()
        assert told == [1]
        disk.crash()
        found = VoteFile.open(disk, VOTE)
        assert found.hard_state == HardState(2, None)
        assert found.durable_index <= 5
        assert open_log(disk, found.durable_index).durable_index == 5

    SimLoop().run(story())


ENTRIES = 8
"""How many entries the node's log has before, of term 1, all of which its vote file counts on."""
SMALL_SEGMENT = 700
"""So few bytes that the log has several segments, and a cut may reach into an earlier one."""


NO_TIME = float
"""A clock that stands still at 0."""
LARGE_SEGMENT = 4_000
"""This one has room for a dozen batches."""


class Group:
    """A node's log and vote, and a writer whose disk is busy while Readys of several kinds come, to be written at once.

    The log and vote grow in the order of the Readys: each is what a core with these would hand out.
    """

    def __init__(self, segment_bytes=SMALL_SEGMENT):
        self.now = 0.0
        self.segment_bytes = segment_bytes
        self.disk = SimDisk()
        self.disk.mkdir(DIRECTORY)
        self.vote = VoteFile.create(self.disk, VOTE, IDENTITY, HardState())
        self.log = open_log(self.disk, segment_bytes=segment_bytes)
        self.entries = []
        for entry in entries_behind(self.log.start, 1, [40] * ENTRIES):
            append(self.log, [entry])  # each a batch of its own
            self.entries.append(entry)
        self.hard_state = HardState(1, 1)
        self.vote.write(self.hard_state, ENTRIES)
        self.worker, self.told, self.failures = WhenTold(), [], []
        self.writer = Writer(
            self.worker,
            self.log,
            self.vote,
            clock=lambda: self.now,
            on_durable=self._durable,
            on_failure=self.failures.append,
        )
        self.on_told = lambda count: None
        """What the core does when it has been told of so many."""
        self.number = 0
        self.writer.enqueue(0, None, None, None, ["before"])
        """While this is under way, all others pile up."""

    def _durable(self, number, messages):
        self.told.append((number, messages))
        self.on_told(len(self.told))

    def hand_out(self, kind):
        """Hand the writer a Ready of this kind. Its message names it, and what must be durable before."""
        self.number += 1
        truncate_from, entries, hard_state = None, [], None
        if kind in ("vote", "cut"):
            # A new term each time: for a vote, or for a new leader whose entries conflict with the last ones here.
            hard_state = self.hard_state = HardState(self.hard_state.term + 1, 2)
        if kind == "cut":
            truncate_from = self.entries[-3].index
            del self.entries[-3:]
        if kind in ("entries", "cut"):
            entries = [entry_behind(self.entries[-1], self.hard_state.term)]
            self.entries += entries
        write = self.log.stage(truncate_from, entries) if entries else None
        self.writer.enqueue(self.number, write, truncate_from, hard_state, [f"{self.number}: {kind}"])

    def found(self):
        """Term, vote and entries as the next start finds them. Raises `Corruption` if it misses some."""
        vote = VoteFile.open(self.disk, VOTE)
        log = open_log(self.disk, vote.durable_index, segment_bytes=self.segment_bytes)
        return vote.hard_state, read_all(log)


def in_a_group(kinds, story):
    """Let Readys of these `kinds` be written together, and tell `story` of it."""

    async def main():
        group = Group()
        before = group.hard_state, group.entries[:]
        for kind in kinds:
            group.hand_out(kind)
        await group.worker.work()
        assert group.told == [(0, ["before"])]
        await story(group, before)

    SimLoop().run(main())


KINDS = ("vote", "entries", "cut", "message")
LATER_IS_HIGHER = ("cut", "entries", "entries", "entries", "cut")
"""What the second cut takes off lies behind what the first one has cut."""
TWICE = [("cut", "cut"), ("vote", "vote"), LATER_IS_HIGHER]
ORDERS = [*itertools.permutations(KINDS), ("entries", "message", "message"), *TWICE]


@pytest.mark.parametrize("kinds", ORDERS, ids=" ".join)
def test_a_group_is_durable_as_a_whole_before_anything_of_it_is_told(kinds):
    """F7: of several votes the newest is written; all messages leave behind the last write, in their order."""

    async def story(group, before):
        assert group.worker.has_work
        await elapse(1)
        assert len(group.told) == 1, "something was told before it was written"
        await group.worker.work()
        messages = [f"{number}: {kind}" for number, kind in enumerate(kinds, 1)]
        assert group.told[1:] == [(len(kinds), messages)]
        assert group.writer.is_idle and group.writer.batches == 2
        group.disk.crash(random.Random(1))
        assert group.found() == (group.hard_state, group.entries)

    in_a_group(kinds, story)


@pytest.mark.parametrize("kinds", [*itertools.permutations(KINDS[:3]), *TWICE], ids=" ".join)
def test_a_power_cut_within_a_group_leaves_no_entry_of_a_term_that_is_not_durable(kinds):
    """F7: at each operation on the disk. The vote is there before the log, and the bound never counts on more than what
    the log has; nothing was told to anybody."""
    cuts = itertools.count(1)
    is_over = False

    async def story(group, before):
        nonlocal is_over
        left = next(cuts)

        def fault(kind, path):
            nonlocal left
            left -= 1
            if left == 0:
                raise Crash

        group.disk.fault = fault
        try:
            await group.worker.work()
        except Crash:
            group.disk.fault = None
            group.disk.crash(random.Random(left))
            assert group.told == [(0, ["before"])]
            hard_state, entries = group.found()
            assert hard_state in (before[0], group.hard_state)
            assert entries[-1].term <= hard_state.term
            whole = entries == group.entries
            assert (
                whole or entries == before[1] or group.entries[: len(entries)] == entries == before[1][: len(entries)]
            )
            if whole and group.entries != before[1]:
                assert hard_state == group.hard_state
        else:
            is_over = True

    while not is_over:
        in_a_group(kinds, story)
    assert next(cuts) > 3


@pytest.mark.parametrize(
    "kinds", [("vote",), ("message", "entries"), ("cut", "vote"), ("vote", "entries")], ids=" ".join
)
def test_after_a_failed_write_nothing_is_written_or_told(kinds):
    """Nobody knows what is on disk: what is in the group, and what comes behind it, stays unsaid and unwritten."""

    async def story(group, before):
        def fault(kind, path):
            raise OSError("the disk is gone")

        group.disk.fault = fault
        await group.worker.work()
        assert len(group.failures) == 1
        group.disk.fault = None
        operations = group.disk.operations
        for kind in KINDS:
            group.hand_out(kind)
        assert not group.worker.has_work
        assert group.told == [(0, ["before"])] and group.disk.operations == operations
        await group.writer.idle()  # nobody who waits for it is kept

    in_a_group(kinds, story)


@pytest.mark.parametrize("kind", ["vote", "entries"])
def test_who_waits_for_the_writer_already_when_a_write_fails_is_let_go(kind):
    """A node that is asked to stop waits for its last write; should that fail, it must still come to an end."""

    async def story(group, before):
        def fault(kind, path):
            raise OSError("the disk is gone")

        group.hand_out(kind)
        waiting = asyncio.ensure_future(group.writer.idle())
        await elapse(0)
        group.disk.fault = fault
        await group.worker.work()
        assert len(group.failures) == 1
        await asyncio.wait_for(waiting, 1)

    in_a_group((kind,), story)


def test_what_waits_for_the_writer_waits_for_all_that_was_queued():
    """A snapshot is installed over the log only when no write is under way, and none waits."""

    async def story(group, before):
        waiting = asyncio.ensure_future(group.writer.idle())
        await elapse(0)
        group.hand_out("entries")
        await group.worker.work()
        await elapse(1)
        assert not waiting.done() and not group.writer.is_idle
        await group.worker.work()
        await elapse(1)
        assert waiting.done() and group.writer.is_idle

    in_a_group(("vote",), story)


def test_the_vote_file_hears_how_far_the_log_reaches_every_so_many_entries():
    """Not at each write, which would cost a sync more; and at the latest when so many are unheard of."""
    assert BOUND_ENTRIES > 2

    async def story():
        disk = SimDisk()
        disk.mkdir(DIRECTORY)
        vote = VoteFile.create(disk, VOTE, IDENTITY, HardState(1, None))
        log = open_log(disk)
        worker = WhenTold()
        writer = Writer(worker, log, vote, clock=NO_TIME, on_durable=lambda *_: None, on_failure=lambda _: None)
        last, bounds = log.start, []
        for count in (BOUND_ENTRIES - 1, 1, 1):
            entries = entries_behind(last, 1, [5] * count)
            last = entries[-1]
            writer.enqueue(1, log.stage(None, entries), None, None, [])
            await worker.work()
            bounds.append(vote.durable_index)
        assert bounds == [0, 0, BOUND_ENTRIES]

    SimLoop().run(story())


def when_quick(story, quick=QUICK_IN_A_ROW):
    """Tell `story` of a writer whose disk has been quick `quick` times in a row, and has nothing to do."""

    async def main():
        group = Group(LARGE_SEGMENT)
        await group.worker.work()
        for _ in range(quick - 1):
            group.hand_out("message")
            await group.worker.work()
        group.told.clear()
        await story(group)

    SimLoop().run(main())


async def is_written_here(group):
    """Have one entry written; whether that was done at the end of the turn, and not by the thread."""
    group.hand_out("entries")
    group.writer.end_turn(has_sent=False)
    was_here = not group.worker.has_work
    await group.worker.work_off()
    return was_here


def test_a_lone_entry_is_written_at_the_end_of_the_turn_while_the_disk_is_quick():
    """Nothing is handed to the thread and back; it is durable before anybody hears of it."""

    async def story(group):
        group.hand_out("entries")
        assert group.writer.is_idle is False and group.told == []
        group.writer.end_turn(has_sent=False)
        assert group.told == [(QUICK_IN_A_ROW, [f"{QUICK_IN_A_ROW}: entries"])]
        assert group.writer.is_idle and not group.worker.has_work
        group.disk.crash(random.Random(1))
        assert group.found() == (group.hard_state, group.entries)

    when_quick(story)


def test_what_a_turn_has_sent_leaves_before_the_disk_is_waited_for():
    """The followers are to write at the same time: what is sent in a turn leaves the process when it is over."""

    async def story(group):
        group.hand_out("entries")
        group.writer.end_turn(has_sent=True)
        group.writer.end_turn(has_sent=False)  # of another turn, in which nothing was sent
        assert group.told == []
        waiting = asyncio.ensure_future(group.writer.idle())
        await elapse(0)
        assert len(group.told) == 1 and group.writer.is_idle
        await waiting

    when_quick(story)


@pytest.mark.parametrize("kinds", [("vote",), ("entries", "vote"), ("cut",), ["entries"] * (HERE_ENTRIES_MAX + 1)])
def test_all_that_is_more_than_a_few_entries_goes_to_the_thread(kinds):
    """A vote is two files and four syncs, a cut may be as much, and many entries come from a node that is busy."""

    async def story(group):
        for kind in kinds:
            group.hand_out(kind)
        group.writer.end_turn(has_sent=False)
        assert group.told == [] and group.worker.has_work
        await group.worker.work_off()
        assert group.told[-1][0] == group.number
        assert group.found() == (group.hard_state, group.entries)

    when_quick(story)


def test_a_write_that_grows_before_the_turn_ends_goes_to_the_thread_as_a_whole():
    """Whether it is little is asked again when its time has come."""

    async def story(group):
        group.hand_out("entries")
        group.writer.end_turn(has_sent=True)
        group.hand_out("vote")
        assert group.worker.has_work
        await elapse(0)
        assert group.told == []
        await group.worker.work()
        assert [number for number, _ in group.told] == [group.number]

    when_quick(story)


def test_while_the_thread_has_other_work_nothing_is_written_beside_it():
    """It reads the log for followers as well, and writes the small files of handshakes: one at a time."""

    async def story(group):
        group.worker.run(lambda: None)
        group.hand_out("entries")
        group.writer.end_turn(has_sent=False)
        assert group.told == []
        await group.worker.work()
        await group.worker.work()
        assert len(group.told) == 1

    when_quick(story)


def test_a_disk_must_have_been_quick_for_a_while():
    """One slow write, and the loop waits for none until as many in a row have been quick again."""

    async def story(group):
        assert not await is_written_here(group)
        assert await is_written_here(group)
        group.disk.fault = lambda kind, path: setattr(group, "now", group.now + 2 * QUICK_S)
        assert await is_written_here(group), "nobody could know that it would be slow"
        group.disk.fault = None
        found = [await is_written_here(group) for _ in range(QUICK_IN_A_ROW + 1)]
        assert found == [False] * QUICK_IN_A_ROW + [True]

    when_quick(story, QUICK_IN_A_ROW - 1)


def test_a_failed_write_on_the_loop_is_a_failed_write():
    """Nothing is told, and nothing written any more."""

    async def story(group):
        def fault(kind, path):
            raise OSError("the disk is gone")

        group.disk.fault = fault
        group.hand_out("entries")
        group.writer.end_turn(has_sent=False)
        assert len(group.failures) == 1 and group.told == []
        group.disk.fault = None
        operations = group.disk.operations
        group.hand_out("entries")
        group.writer.end_turn(has_sent=False)
        await elapse(0)
        assert group.told == [] and not group.worker.has_work and group.disk.operations == operations

    when_quick(story)


def test_nothing_follows_a_power_cut_on_the_loop():
    """A node of a simulation that is gone tells nobody what its disk may have."""

    async def story(group):
        group.worker.power_fails = True
        group.hand_out("entries")
        group.writer.end_turn(has_sent=False)
        assert group.told == [] and group.failures == []

    when_quick(story)


def test_the_file_that_follows_a_full_one_is_begun_by_the_thread():
    """That takes several syncs, and more room on the disk."""

    async def story(group):
        seen = set()
        for _ in range(80):
            files = group.disk.listdir(DIRECTORY)
            was_here = await is_written_here(group)
            seen.add((was_here, group.disk.listdir(DIRECTORY) != files))
        assert seen == {(True, False), (False, True)}

    when_quick(story)


@pytest.mark.parametrize("quick", [QUICK_IN_A_ROW - 1, QUICK_IN_A_ROW])
def test_how_long_the_disk_has_worked_is_counted_wherever_it_was_waited_for(quick):
    """By the thread or by the loop: for the metrics, the disk is the same."""

    async def story(group):
        group.now = 100.0
        before, operations = group.writer.syncs_s, group.disk.operations
        group.disk.fault = lambda kind, path: setattr(group, "now", group.now + QUICK_S / 4)
        assert await is_written_here(group) == (quick == QUICK_IN_A_ROW)
        took = (group.disk.operations - operations) * QUICK_S / 4
        assert took > 0 and group.writer.syncs_s - before == pytest.approx(took)

    when_quick(story, quick)


def test_what_was_due_when_the_turn_ended_waits_for_a_write_that_began_since():
    """Batches are written one at a time, though the thread could be given another."""

    async def story(group):
        group.hand_out("entries")
        group.writer.end_turn(has_sent=True)
        group.hand_out("vote")  # with which all of it goes to the thread
        group.hand_out("entries")
        before = group.writer.started_at
        await elapse(0)
        assert group.worker.left == 1 and group.writer.started_at == before
        await group.worker.work_off()
        assert [number for number, _ in group.told] == [group.number - 1, group.number]

    when_quick(story)


def test_whoever_hears_of_a_write_may_have_the_next_one_due():
    """The core hands out more as soon as it is told; that is due at the end of its turn, like everything."""

    async def story(group):
        def hear(told):
            if told == 1:
                group.hand_out("entries")
                group.writer.end_turn(has_sent=True)

        group.on_told = hear
        group.hand_out("entries")
        group.writer.end_turn(has_sent=True)
        await elapse(0)
        await elapse(0)
        assert len(group.told) == 2 and group.writer.is_idle

    when_quick(story)
