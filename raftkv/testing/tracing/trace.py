"""What happened in a simulated world, as a record: messages and their fate, and what nodes, network and clients did.

```python
trace = Trace()
Simulation(42, observe=trace.attach).run()
print(text_diagram(trace))
```

A trace only looks: it draws no dice, sets no timer and makes no task, so a world runs the same with and without it.
Its memory is bounded: of messages, happenings and calls it keeps the newest, and counts all.
"""

from __future__ import annotations

import math
from collections import Counter, deque
from typing import TYPE_CHECKING, Any

from raftkv.core.messages import AppendEntries, AppendReply
from raftkv.model import NodeId
from raftkv.testing.judging.history import Operation
from raftkv.testing.tracing.labels import describe, is_routine, key_of, label, short, words_of
from raftkv.testing.tracing.observer import Observer, TracedTransport
from raftkv.testing.tracing.records import Calling, Fate, Happening, Record, Sending, What
from raftkv.testing.world.loop import SimLoop

if TYPE_CHECKING:
    from raftkv.testing.world.cluster import SimCluster
    from raftkv.transport import MemoryTransport
    from raftkv.wire import PeerMessage

KEPT_MAX = 20_000
"""Of messages, of happenings and of calls, each: the faults of a busy world, in about 20 MB."""

UNMATCHED_MAX = 512
"""Messages from one node to another that may still arrive, or arrive again; more than a link has on its way."""


class _Link:
    """What one node has sent to another and may still arrive."""

    def __init__(self) -> None:
        self.waiting: deque[tuple[bytes, Sending]] = deque()
        self.past: dict[bytes, Sending] = {}
        """What has arrived, or was lost: a network may repeat it. The oldest first."""
        self.is_closed = False
        """What was sent last found no connection: the same again is no news."""
        self.match_index = -1
        """Of the last answer to an append: the same one again is no news."""

    def match(self, key: bytes) -> Sending | None:
        """What this is that has arrived: the oldest such message that has not, else one that comes again."""
        for place, (other, sending) in enumerate(self.waiting):
            if other == key:
                del self.waiting[place]
                self.keep(key, sending)
                return sending
        return self.past.get(key)

    def keep(self, key: bytes, sending: Sending) -> None:
        self.past.pop(key, None)
        self.past[key] = sending
        if len(self.past) > UNMATCHED_MAX:
            del self.past[next(iter(self.past))]


class Trace:
    """Records a world from when it is attached to its cluster; `kept` bounds each kind of record."""

    def __init__(self, kept: int = KEPT_MAX) -> None:
        self.messages: deque[Sending] = deque(maxlen=kept)
        self.happenings: deque[Happening] = deque(maxlen=kept)
        self.calls: deque[Calling] = deque(maxlen=kept)
        self.counts: Counter[str] = Counter()
        """Of everything, kept or not: messages by kind and by fate, happenings by what they are, calls."""
        self.now = 0.0
        self.nodes: dict[NodeId, str] = {}
        """All that there ever were, in their order, and what each is now: its role, or "" when it is down."""
        self._number = 0
        self._observer: Observer | None = None
        self._links: dict[tuple[NodeId, NodeId], _Link] = {}
        self._open: dict[int, Calling] = {}

    def attach(self, cluster: SimCluster) -> None:
        """Record this cluster, which has not been started yet, on the loop that is running."""
        assert self._observer is None, "a trace is of one world"
        loop = cluster.loop
        assert isinstance(loop, SimLoop), "a trace is of a world with virtual time"
        self._observer = Observer(cluster, self)
        cluster.trace = self
        loop.observer = self._observer.look

    def transport(self, *args: Any, **settings: Any) -> MemoryTransport:
        """A `MemoryTransport` whose messages are recorded."""
        return TracedTransport(self, *args, **settings)

    def records(self, since: float = 0.0, until: float = math.inf) -> list[Record]:
        """Everything kept of some time, in the order in which it happened (a message's is that of its sending)."""
        found: list[Record] = []
        for kept in (self.messages, self.happenings, self.calls):
            found += [record for record in kept if since <= record.at <= until]
        return sorted(found, key=lambda record: record.number)

    def summary(self) -> str:
        """What there was in all, in a line."""
        return ", ".join(f"{count} × {what}" for what, count in sorted(self.counts.items()))

    # ------------------------------------------------------------------------------ messages

    def sent(self, sender: NodeId, to: NodeId, message: PeerMessage, *, queued: bool) -> None:
        """A node has handed a message to its transport, which has `queued` it, or not."""
        self._catch_up(sender)
        kind = type(message).__name__
        link = self._links.setdefault((sender, to), _Link())
        sending = Sending(
            number=self._next(),
            at=self.now,
            sender=sender,
            to=to,
            kind=kind,
            label=label(message),
            detail=describe(message),
            routine=self._is_routine(link, message, queued),
            fate=Fate.WAY if queued else Fate.UNSENT,
        )
        self.messages.append(sending)
        self.counts[kind] += 1
        if not queued:
            self.counts[Fate.UNSENT] += 1
            return
        link.waiting.append((key_of(message), sending))
        if len(link.waiting) > UNMATCHED_MAX:
            self._end(link, *link.waiting.popleft())

    @staticmethod
    def _is_routine(link: _Link, message: PeerMessage, queued: bool) -> bool:
        was_closed, link.is_closed = link.is_closed, not queued
        if isinstance(message, AppendReply) and not message.rejected and not message.wants_snapshot:
            known, link.match_index = link.match_index, message.match_index
            return message.match_index == known
        return is_routine(message) or (was_closed and not queued and isinstance(message, AppendEntries | AppendReply))

    def received(self, sender: NodeId, to: NodeId, message: PeerMessage) -> None:
        """A message has arrived."""
        self._catch_up(to)
        link = self._links.get((sender, to))
        sending = link.match(key_of(message)) if link is not None else None
        if sending is not None:
            self.counts["arrived again" if sending.arrivals else Fate.ARRIVED] += 1
            sending.fate = Fate.ARRIVED
            sending.arrivals.append(self.now)

    def broke(self, sender: NodeId, to: NodeId | None = None) -> None:
        """The connection from one node to another, or all to and from it, broke, and what was on it is lost."""
        for ends, link in self._links.items():
            if ends == (sender, to) or (to is None and sender in ends):
                while link.waiting:
                    self._end(link, *link.waiting.popleft())

    def _end(self, link: _Link, key: bytes, sending: Sending) -> None:
        sending.fate = Fate.LOST
        link.keep(key, sending)
        self.counts[Fate.LOST] += 1

    def _catch_up(self, node_id: NodeId) -> None:
        """What a node does is recorded before what it says of it."""
        assert self._observer is not None
        self._observer.look_at(node_id)

    # ------------------------------------------------------------------------------ happenings and calls

    def happened(self, what: What, node: NodeId | None, text: str, detail: str, *, role: str = "") -> None:
        """Something that is no message happened."""
        self.counts[what] += 1
        self.happenings.append(
            Happening(number=self._next(), at=self.now, what=what, node=node, label=text, detail=detail, role=role)
        )

    def broken(self, at: float, text: str) -> None:
        """A promise was broken, as it turned out at `at`."""
        self.happenings.append(
            Happening(
                number=self._next(), at=at, what=What.BROKEN, node=None, label=f"✖ {short(text, 100)}", detail=text
            )
        )

    def called(self, operation: Operation) -> None:
        """A client calls."""
        text = words_of(operation)
        calling = Calling(number=self._next(), at=operation.called, client=operation.client, label=text)
        self.calls.append(calling)
        self._open[id(operation)] = calling
        self.counts["call"] += 1

    def answered(self, operation: Operation, *, refused: bool) -> None:
        """A client heard the result, or that nothing was done."""
        assert self._observer is not None
        calling = self._open.pop(id(operation), None)
        if calling is not None:
            calling.returned, calling.returned_number = self._observer.time(), self._next()
            calling.refused, calling.result = refused, "" if refused else short(operation.result)
            self.counts["call refused" if refused else "call answered"] += 1

    def _next(self) -> int:
        self._number += 1
        return self._number
