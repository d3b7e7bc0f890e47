"""Who waits for what: commands for the index they got, queries for an index they may be read at."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import msgspec

from raftkv.entry import Entry
from raftkv.errors import Indeterminate, NotLeader, RaftKVError, Unavailable
from raftkv.machine import CommandDone, Outcome, QueryDone
from raftkv.model import Index, Term

if TYPE_CHECKING:
    from raftkv.node.views import HeldView


class Query(msgspec.Struct):
    """A query that waits for its turn."""

    payload: bytes
    done: QueryDone
    deadline_s: float | None = None
    """How long its client waits, counted from when it arrived."""
    gone: Callable[[], bool] | None = None
    """Tells, on any thread, whether nobody waits for it any more."""

    instead: Callable[[], bytes] | None = None
    """What gives the answer in the place of the machine, when the query's turn comes; raises a `RaftKVError`."""
    held: HeldView | None = None
    """The view that it is asked of, if it is not what is applied now."""

    @property
    def is_gone(self) -> bool:
        """Whether it need not be answered."""
        return self.gone is not None and self.gone()


class Commands:
    """Proposed commands that wait for their entries to be applied, in the order of their indexes.

    Invariants: indexes go up along the queue; each `done` is called exactly once.
    """

    def __init__(self) -> None:
        self._waiting: deque[tuple[Index, Term, CommandDone]] = deque()

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, first: Index, term: Term, dones: Sequence[CommandDone]) -> None:
        """`dones` wait for the entries from `first` on, which were appended in `term`."""
        self._waiting.extend([(first + at, term, done) for at, done in enumerate(dones)])

    def applied(self, entries: Sequence[Entry], outcomes: Sequence[Outcome | None]) -> None:
        """Tell those who wait for these entries what became of them."""
        waiting = self._waiting
        if not waiting or waiting[0][0] > entries[-1].index:
            return
        base = entries[0].index
        while waiting and waiting[0][0] <= entries[-1].index:
            index, term, done = waiting.popleft()
            at = index - base
            outcome = outcomes[at] if at >= 0 else None
            if at < 0:
                # A snapshot jumped over the entry, so nobody here saw its outcome.
                done(0, Indeterminate("the node installed a snapshot in place of the command's entry"))
            elif entries[at].term == term and outcome is not None:
                done(index, outcome)
            else:
                done(0, NotLeader())  # another leader's entry was committed in its place: it is certainly lost

    def leadership_lost(self) -> None:
        """Whoever waits may get an answer nowhere else than from a new leader; ours may still be committed."""
        waiting, self._waiting = self._waiting, deque()
        for _, _, done in waiting:
            done(0, Indeterminate("leadership was lost before the command was committed"))

    def fail_all(self, error: RaftKVError) -> None:
        """The node stops."""
        waiting, self._waiting = self._waiting, deque()
        for _, _, done in waiting:
            done(0, error)


class Queries:
    """Queries in three stages: not yet asked about, asked about (by token), and waiting for an index.

    A token is never used twice, not even by two starts of one node (`boot` counts them): an answer to a question that
    was asked before a crash would name an index that is too old.
    """

    def __init__(self, boot: int) -> None:
        self._new: list[Query] = []
        self._asked: dict[int, list[Query]] = {}
        self._confirmed: deque[tuple[Index, list[Query]]] = deque()
        self._next_token = boot << 32
        self.count = 0

    def add(self, query: Query) -> None:
        self._new.append(query)
        self.count += 1

    def add_due(self, query: Query) -> None:
        """Add one that may be answered whatever is applied."""
        self._confirmed.append((0, [query]))
        self.count += 1

    def next_batch(self) -> int | None:
        """Give all new queries one token, so that one round answers for all of them; None when there are none."""
        if not self._new:
            return None
        self._next_token += 1
        self._asked[self._next_token] = self._new
        self._new = []
        return self._next_token

    def confirmed(self, token: int, index: Index) -> None:
        """The queries of `token` may be answered once `index` is applied."""
        batch = self._asked.pop(token, None)
        if batch is not None:
            self._confirmed.append((index, batch))

    def due(self, applied_index: Index, limit: int) -> list[Query]:
        """Up to `limit` of those that may be answered now, and these are no longer waiting.

        Indexes are confirmed in rising order, but for changes of leaders.
        """
        due: list[Query] = []
        for _ in range(len(self._confirmed)):
            index, batch = self._confirmed.popleft()
            if index > applied_index or len(due) == limit:
                self._confirmed.append((index, batch))
            elif len(due) + len(batch) <= limit:
                due += batch
            else:
                room = limit - len(due)
                due += batch[:room]
                self._confirmed.append((index, batch[room:]))
        self.count -= len(due)
        return due

    def dropped(self, token: int, error: RaftKVError) -> None:
        """Nobody will confirm the queries of `token`; they changed nothing, so they may be asked again."""
        batch = self._asked.pop(token, [])
        self.count -= len(batch)
        for query in batch:
            query.done(0, error)

    def fail_all(self, error: RaftKVError) -> None:
        """The node stops."""
        batches = [self._new, *self._asked.values(), *(batch for _, batch in self._confirmed)]
        self._new, self._asked, self.count = [], {}, 0
        self._confirmed.clear()
        for query in [query for batch in batches for query in batch]:
            query.done(0, error)


def no_leader() -> Unavailable:
    """What a query gets whose leader was lost while it waited."""
    return Unavailable("the leader was lost before the read was confirmed")
