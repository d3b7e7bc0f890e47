"""Requests that wait: a command until its entry is applied, a query until enough is applied for it to read."""

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
    from raftkv.state import StateView


class Query(msgspec.Struct):
    """A query that waits for its turn."""

    payload: bytes
    done: QueryDone
    deadline_s: float | None = None
    """How long its client waits, from the query's arrival on."""
    gone: Callable[[], bool] | None = None
    """Says whether the client has gone, so that no answer is needed; may be called on any thread."""

    instead: Callable[[], bytes] | None = None
    """Gives the answer in place of the machine when the query's turn comes, or raises a `RaftKVError`."""
    beside: Callable[[StateView], bytes] | None = None
    """The same for a query that goes on beside the loop from the start; it is called on any thread."""
    held: HeldView | None = None
    """The view to read; None to read what is applied."""
    now_ms: int = 0
    """What time it is shown, if that is not the time of the last entry in what it reads."""
    told_time: bool = False
    """Whether it has asked what time it is."""
    is_long: bool = False
    """Whether it was not done within its slice of the loop; then nobody knows whether it has asked for the time."""

    @property
    def is_gone(self) -> bool:
        """Whether the client has gone, so that no answer is needed."""
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
        """Add the callbacks of entries that were appended in `term`, from index `first` on."""
        self._waiting.extend([(first + at, term, done) for at, done in enumerate(dones)])

    def applied(self, entries: Sequence[Entry], outcomes: Sequence[Outcome | None]) -> None:
        """Answer the commands that wait for these entries with their outcomes."""
        waiting = self._waiting
        if not waiting or waiting[0][0] > entries[-1].index:
            return
        base = entries[0].index
        while waiting and waiting[0][0] <= entries[-1].index:
            index, term, done = waiting.popleft()
            at = index - base
            outcome = outcomes[at] if at >= 0 else None
            if at < 0:
                # A snapshot took the entry's place, so its outcome is not known here.
                done(0, Indeterminate("the node installed a snapshot in place of the command's entry"))
            elif entries[at].term == term and outcome is not None:
                done(index, outcome)
            else:
                done(
                    0, NotLeader()
                )  # another leader's entry was committed at this index, so the command is certainly lost

    def leadership_lost(self) -> None:
        """End all with `Indeterminate`: the entries may still be committed, but only a new leader can tell."""
        waiting, self._waiting = self._waiting, deque()
        for _, _, done in waiting:
            done(0, Indeterminate("leadership was lost before the command was committed"))

    def fail_all(self, error: RaftKVError) -> None:
        """The node stops, or can't say what will become of them."""
        waiting, self._waiting = self._waiting, deque()
        for _, _, done in waiting:
            done(0, error)


class Queries:
    """Queries in three stages: not yet asked about, asked about (by token), and waiting for an index.

    A token is never used twice, not even by two starts of one node: `boot` tells these apart. Otherwise a late answer
    to a question from before a crash would confirm an index that is too old.
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
        """Add a query that may be answered at any index."""
        self._confirmed.append((0, [query]))
        self.count += 1

    def next_batch(self) -> int | None:
        """Give all new queries one token, so that one round confirms all of them; None when there are none."""
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
        """Take out up to `limit` queries that may be answered now.

        Confirmed indexes rise, except when the leader changes; so all are looked at.
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
        """End the queries of `token` with `error`: they won't be confirmed. Queries can safely be sent again."""
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
    """The error of a query that waited when the leader was lost."""
    return Unavailable("the leader was lost before the read was confirmed")
