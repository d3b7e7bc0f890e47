"""A node's use of its log and vote file, step by step, that knows at each moment what a crash may leave."""

from __future__ import annotations

from typing import NamedTuple

from raftkv.entry import Entry
from raftkv.log import Log, VoteFile
from raftkv.model import HardState, LogStart
from tests.log.logs import IDENTITY, ROOT, VOTE, entries_behind, open_log, read_all, start_at


class State(NamedTuple):
    """What a log and a vote file hold."""

    start: LogStart = LogStart()
    entries: tuple[Entry, ...] = ()
    hard_state: HardState = HardState()

    @property
    def last(self):
        """The last entry, or the start."""
        return self.entries[-1] if self.entries else self.start

    def cut(self, index):
        """The same without the entries from `index` on."""
        return self._replace(entries=self.entries[: index - self.start.index - 1])


class Workload:
    """A log and a vote file on `disk`, in use.

    `state` is what was acknowledged, `allowed` what may be found if it all ends now.
    """

    log: Log
    vote: VoteFile

    def __init__(self, disk, state=State()):
        self.disk = disk
        self.state = state
        self.allowed = {state}

    def open(self):
        """Open what is there, as a node does; it must be one of the allowed states."""
        self.disk.mkdir(ROOT)
        if self.disk.exists(VOTE):
            self.vote = VoteFile.open(self.disk, VOTE)
        else:
            assert self.state == State(), "the vote file is lost"
            self.vote = VoteFile.create(self.disk, VOTE, IDENTITY, HardState())
        assert self.vote.identity == IDENTITY
        self.vote.new_boot()
        self.log = open_log(self.disk, self.vote.durable_index)
        found = State(self.log.start, tuple(read_all(self.log)), self.vote.hard_state)
        assert found in self.allowed, f"{found} is none of {self.allowed}"
        self._reached(found)

    def close(self):
        """End it in good order."""
        self.vote.write(self.state.hard_state, self.log.durable_index)
        self.log.close()
        self.vote.close()

    def reopen(self):
        """A clean restart."""
        self.close()
        self.open()

    def _may_reach(self, *states):
        self.allowed = {self.state, *states}

    def _reached(self, state):
        self.state = state
        self.allowed = {state}

    def cast(self, hard_state):
        """Write term and vote, and what is durable."""
        after = self.state._replace(hard_state=hard_state)
        self._may_reach(after)
        self.vote.write(hard_state, self.log.durable_index)
        self._reached(after)

    def append(self, *batches, cut=None):
        """Cut the log and append the batches (each a list of payload sizes) by one write, as the node's writer does."""
        term = self.state.hard_state.term
        cut_off = self.state if cut is None else self.state.cut(cut)
        if cut is not None and cut <= self.vote.durable_index:
            self.vote.write(self.state.hard_state, cut - 1)
        writes, after, truncate_from = [], cut_off, cut
        for sizes in batches or [[]]:
            entries = entries_behind(after.last, term, sizes)
            writes.append(self.log.stage(truncate_from, entries))
            after, truncate_from = after._replace(entries=(*after.entries, *entries)), None
        # A truncation may come first, alone, where a new segment begins.
        self._may_reach(cut_off, after)
        self.log.write(writes)
        self._reached(after)

    def compact(self, index):
        """Drop whole segments up to `index`; how many, the log says."""
        places = [self.state.start, *map(start_at, self.state.entries)]
        shorter = [
            self.state._replace(start=start, entries=self.state.entries[number:])
            for number, start in enumerate(places)
            if start.index <= index
        ]
        self._may_reach(*shorter)
        self.log.compact(index)
        assert self.log.start in [state.start for state in shorter]
        self._reached(shorter[self.log.start.index - self.state.start.index])

    def reset(self, start):
        """Begin anew behind a snapshot."""
        if self.vote.durable_index > start.index:
            self.vote.write(self.state.hard_state, start.index)
        after = self.state._replace(start=start, entries=())
        self._may_reach(after)
        self.log.reset(start)
        self._reached(after)


def run_all(work):
    """Everything that a log can do: appends, merged ones, truncations, rolls, votes, compaction, resets, restarts."""
    work.open()
    work.cast(HardState(1, 1))
    work.append([40, 40])
    work.append([600], [10], [10, 700])
    work.append([300] * 3)
    work.append([40])
    work.cast(HardState(2, None))
    work.append([50, 50], cut=work.state.last.index)
    work.append([1_500])
    work.append([30])
    work.append([30])
    work.append([30] * 3, cut=4)
    work.append([900], [900])
    work.append(cut=work.state.last.index)
    work.reopen()
    work.cast(HardState(3, 2))
    work.append([20], cut=work.state.last.index)
    work.append([1_200, 30])
    work.append([1_000])
    work.compact(work.state.last.index - 2)
    work.append([500] * 2)
    work.append([1_000], cut=work.state.last.index)
    work.append([30])
    work.close()
    work.open()
    work.append([60] * 2, cut=work.state.start.index + 1)
    work.append([1_000])
    work.append([1_000])
    work.reset(LogStart(100, 3, 4_711, 9))
    work.append([40])
    work.append([1_900])
    work.append([40])
    work.cast(HardState(4, 1))
    work.compact(102)
    work.reset(LogStart(90, 4, 815, 10))
    work.append([700])
    work.reset(LogStart(200, 4, 816, 11))
    work.append([700], [20])
    work.close()
