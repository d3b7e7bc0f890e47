"""What the core knows of the log: terms, chain values, times and sizes, but never a payload.

The entries themselves pass through the core (from `propose` or an append into `Ready.entries`) and
are kept by whoever runs it. A few integers an entry are enough for every decision that Raft makes.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate

import msgspec

from raftkv.entry import Entry
from raftkv.errors import FormatError, SafetyViolation
from raftkv.model import (
    EntryId,
    EntryKind,
    Index,
    LogStart,
    Membership,
    Term,
    decode_membership,
)


def _memberships_in(entries: Sequence[Entry]) -> list[tuple[Index, Membership]]:
    """The memberships among `entries`. Records are whole here, so one that can't be read is of another version."""
    found = []
    for entry in [e for e in entries if e.kind == EntryKind.MEMBERSHIP]:
        try:
            found.append((entry.index, decode_membership(entry.payload)))
        except msgspec.DecodeError as exc:
            raise FormatError(
                f"entry {entry.id} holds a membership that this version of raftkv can't read ({exc}): "
                "start this node with the version that the other nodes have"
            ) from exc
    return found


class LogView:
    """The log as the core sees it: `start` (compacted), then entries `first_index` to `last_index`.

    Invariants:
    - indexes are consecutive, terms never go down along the log, times only at an entry of kind CLOCK;
    - `memberships` holds, oldest first, the membership in force at `start` and every newer one in
      the log: a server uses the newest one in its log, committed or not (§6);
    - `start.index` ≤ `last_index`.
    """

    __slots__ = (
        "_base_bytes",
        "_chains",
        "_ends",
        "_memberships",
        "_run_firsts",
        "_run_terms",
        "_times",
        "last_chain",
        "last_index",
        "last_term",
        "last_time_ms",
        "membership",
        "membership_index",
        "start",
    )

    def __init__(self, start: LogStart = LogStart(), membership: Membership = Membership()) -> None:
        self.reset(start, membership)

    def reset(self, start: LogStart, membership: Membership) -> None:
        """Forget everything: the log begins behind `start`, where `membership` is in force."""
        self.start = start
        self._chains = array("Q")
        self._times = array("Q")
        self._ends = array("Q")  # bytes of all records up to and with each entry, counted from _base_bytes
        self._base_bytes = 0
        self._run_firsts: list[Index] = []  # where each run of entries of one term begins …
        self._run_terms: list[Term] = []  # … and its term
        self._memberships: list[tuple[Index, Membership]] = [(start.index, membership)]
        self._refresh()

    def set_base(self, membership: Membership) -> None:
        """Say who the members were at `start`, when that is known only after the entries."""
        self._memberships[0] = (self.start.index, membership)
        self._refresh()

    def _refresh(self) -> None:
        """Recompute the attributes that are kept for speed, after anything but a plain append."""
        count = len(self._chains)
        self.last_index = self.start.index + count
        self.last_term = self._run_terms[-1] if count else self.start.term
        self.last_chain = self._chains[-1] if count else self.start.chain
        self.last_time_ms = self._times[-1] if count else self.start.time_ms
        self.membership_index, self.membership = self._memberships[-1]

    @property
    def first_index(self) -> Index:
        return self.start.index + 1

    @property
    def last_id(self) -> EntryId:
        return EntryId(term=self.last_term, index=self.last_index)

    def term(self, index: Index) -> Term:
        """The term of the entry at `index`, which lies between `start.index` and `last_index`."""
        firsts = self._run_firsts
        if firsts and firsts[-1] <= index <= self.last_index:
            return self.last_term
        if index == self.start.index:
            return self.start.term
        assert self.start.index < index <= self.last_index, f"{index} is not in ({self.start.index}, {self.last_index}]"
        return self._run_terms[bisect_right(firsts, index) - 1]

    def chain(self, index: Index) -> int:
        """The chain value of the entry at `index` (same range as `term`)."""
        if index == self.start.index:
            return self.start.chain
        assert self.start.index < index <= self.last_index, f"{index} is not in ({self.start.index}, {self.last_index}]"
        return self._chains[index - self.start.index - 1]

    def time_ms(self, index: Index) -> int:
        """The leader's time of the entry at `index` (same range as `term`)."""
        if index == self.start.index:
            return self.start.time_ms
        return self._times[index - self.start.index - 1]

    def bytes_between(self, after: Index, last: Index) -> int:
        """Bytes of the records `after` + 1 to `last`."""
        return self._end(last) - self._end(after)

    def _end(self, index: Index) -> int:
        if index <= self.start.index:
            return self._base_bytes
        return self._ends[index - self.start.index - 1]

    def batch_end(self, after: Index, bytes_max: int) -> Index:
        """The last index of a batch that begins behind `after` and has at most `bytes_max` bytes, or one entry."""
        last = self.last_index
        limit = self._end(after) + bytes_max
        if self._end(last) <= limit:
            return last
        return max(after + 1, self.start.index + bisect_right(self._ends, limit))

    def first_index_of_run(self, index: Index) -> Index:
        """The first index of the unbroken run of `index`'s term, as far as the log goes back."""
        if index <= self.start.index or not self._run_firsts:
            return index
        return self._run_firsts[bisect_right(self._run_firsts, index) - 1]

    def last_index_at_most_term(self, index: Index, term: Term) -> Index:
        """The last index at or before `index` whose term is at most `term`; `start.index` when there is none."""
        runs = bisect_right(self._run_terms, term)
        if runs == 0:
            return self.start.index
        end = self._run_firsts[runs] - 1 if runs < len(self._run_firsts) else self.last_index
        return min(index, end)

    def matches(self, index: Index, term: Term) -> bool:
        """Whether the log has an entry `index` of that term (§5.3's consistency check)."""
        return self.start.index <= index <= self.last_index and self.term(index) == term

    def is_at_least(self, last_term: Term, last_index: Index) -> bool:
        """Whether a log that ends with `last_index@last_term` is at least as up-to-date as this one (§5.4.1)."""
        return (last_term, last_index) >= (self.last_term, self.last_index)

    def membership_at(self, index: Index) -> Membership:
        """The membership in force at `index`, for a snapshot there."""
        return self.dated_membership(index)[1]

    def dated_membership(self, index: Index) -> tuple[Index, Membership]:
        """The membership in force at `index`, and an index since which it is: of two, the higher one's is newer."""
        assert index >= self.start.index, f"the log begins at {self.start.index + 1}, after {index}"
        at = bisect_right(self._memberships, index, key=lambda item: item[0])
        return self._memberships[at - 1]

    def memberships_since(self, index: Index) -> list[Membership]:
        """The membership in force at `index` and every newer one in the log, oldest first."""
        at = bisect_right(self._memberships, index, key=lambda item: item[0])
        return [membership for _, membership in self._memberships[max(0, at - 1) :]]

    def has_membership_between(self, after: Index, last: Index) -> bool:
        """Whether one of the entries `after` + 1 to `last` is a membership."""
        return any(after < index <= last for index, _ in self._memberships)

    def extend(self, entries: Sequence[Entry]) -> bool:
        """Append entries that follow the last one; returns whether a membership was among them.

        Raises `SafetyViolation` when they don't follow it, `FormatError` when a membership can't be read; nothing
        has changed then.
        """
        first, last = entries[0], entries[-1]
        if first.index != self.last_index + 1 or last.index != self.last_index + len(entries):
            raise SafetyViolation(f"entries {first.index} to {last.index} do not follow {self.last_index}")
        goes_back = first.time_ms < self.last_time_ms and first.kind != EntryKind.CLOCK
        if first.term < self.last_term or goes_back:
            raise SafetyViolation(
                f"entry {first.id} (time {first.time_ms}) goes back behind {self.last_id} (time {self.last_time_ms})"
            )
        memberships = _memberships_in(entries)
        self._extend_terms(entries)
        if len(entries) == 1:
            self._chains.append(first.chain)
            self._times.append(first.time_ms)
            self._ends.append(self._end(self.last_index) + len(first.record))
        else:
            sizes = accumulate([len(e.record) for e in entries], initial=self._end(self.last_index))
            next(sizes)
            self._chains.extend([e.chain for e in entries])
            self._times.extend([e.time_ms for e in entries])
            self._ends.extend(sizes)
        self.last_index = last.index
        self.last_term = last.term
        self.last_chain = last.chain
        self.last_time_ms = last.time_ms
        if memberships:
            self._memberships += memberships
            self.membership_index, self.membership = memberships[-1]
        return bool(memberships)

    def _extend_terms(self, entries: Sequence[Entry]) -> None:
        run_term = self._run_terms[-1] if self._run_terms else None
        if run_term == entries[-1].term:
            return  # terms never go down, so a batch whose last entry continues the run is all of it
        for entry in entries:
            if entry.term != run_term:
                run_term = entry.term
                self._run_firsts.append(entry.index)
                self._run_terms.append(run_term)

    def truncate_from(self, index: Index) -> bool:
        """Remove the entries at and above `index`; returns whether a membership was rolled back (§6)."""
        assert self.start.index < index <= self.last_index, f"{index} is not in ({self.start.index}, {self.last_index}]"
        keep = index - self.start.index - 1
        del self._chains[keep:]
        del self._times[keep:]
        del self._ends[keep:]
        while self._run_firsts and self._run_firsts[-1] >= index:
            self._run_firsts.pop()
            self._run_terms.pop()
        rolled_back = False
        while self._memberships[-1][0] >= index:
            self._memberships.pop()
            rolled_back = True
        self._refresh()
        return rolled_back

    def compact(self, index: Index, membership: Membership | None = None) -> None:
        """Forget the entries up to and with `index`, which becomes the new start (§7).

        `membership` is the one in force there, for a caller that knows it better than the log does: a node that lost
        its snapshots does not know which one was in force where its log begins.
        """
        assert self.start.index <= index <= self.last_index, (
            f"{index} is not in [{self.start.index}, {self.last_index}]"
        )
        drop = index - self.start.index
        if drop == 0 and membership is None:
            return
        start = LogStart(index, self.term(index), self.chain(index), self.time_ms(index))
        if membership is None:
            membership = self.membership_at(index)
        self._base_bytes = self._end(index)
        del self._chains[:drop]
        del self._times[:drop]
        del self._ends[:drop]
        runs = bisect_right(self._run_firsts, index + 1)
        if runs and index < self.last_index:
            del self._run_firsts[: runs - 1], self._run_terms[: runs - 1]
            self._run_firsts[0] = index + 1
        elif index == self.last_index:
            self._run_firsts.clear()
            self._run_terms.clear()
        newer = [(at, value) for at, value in self._memberships if at > index]
        self._memberships = [(index, membership), *newer]
        self.start = start
        self._refresh()
