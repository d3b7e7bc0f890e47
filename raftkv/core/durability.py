"""Which part of the log and of the hard state is durable, while writes are still under way."""

from __future__ import annotations

from collections import deque

from raftkv.model import Index, Term


class Durability:
    """Writes are numbered and handed out in order; each, when done, makes durable what was not cut off meanwhile.

    An index and a term would not be enough to name a write: entries may be written, cut off, and the
    very same ones written again. If the first write's completion counted for the third, an
    acknowledged entry could still be overwritten by the second. So a truncation lowers what the
    writes under way can vouch for.

    Invariants: `index` ≤ the log's last index; `term` and `done` never go back.
    """

    __slots__ = ("_under_way", "done", "index", "number", "term")

    def __init__(self, index: Index, term: Term) -> None:
        self.index = index
        """Everything up to here is durable in this node's log."""
        self.term = term
        """The newest term that is durable in its hard state."""
        self.number = 0
        """The last write that was handed out."""
        self.done = 0
        """The last write that is durable."""
        self._under_way: deque[list[int]] = deque()  # [number, last index, term], oldest first

    def begin(self, last_index: Index, term: Term) -> int:
        """A write is handed out that makes the log durable up to `last_index`; returns its number."""
        self.number += 1
        self._under_way.append([self.number, last_index, term])
        return self.number

    def truncated_from(self, index: Index) -> None:
        """The log's entries at and above `index` are gone."""
        self.index = min(self.index, index - 1)
        for write in self._under_way:
            write[1] = min(write[1], index - 1)

    def reset(self, index: Index) -> None:
        """The log was replaced by a durable snapshot at `index`; whoever did it waited for all writes."""
        self.index = index
        for write in self._under_way:
            write[1] = min(write[1], index)

    def persisted(self, number: int) -> bool:
        """Write `number` and all before it are durable; returns whether that is news."""
        under_way = self._under_way
        news = False
        while under_way and under_way[0][0] <= number:
            done, last_index, term = under_way.popleft()
            self.done = done
            self.index = max(self.index, last_index)
            self.term = max(self.term, term)
            news = True
        return news
