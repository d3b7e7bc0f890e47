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
from collections import deque
from typing import Any

from raftkv.testing.judging.operation import Operation
from raftkv.testing.tracing.labels import answer, words_of
from raftkv.testing.tracing.observer import Observer, TracedTransport
from raftkv.testing.tracing.recording import Recording
from raftkv.testing.tracing.records import Calling, Record
from raftkv.testing.world.cluster import SimCluster
from raftkv.testing.world.loop import SimLoop
from raftkv.transport import MemoryTransport

KEPT_MAX = 20_000
"""Of messages, of happenings and of calls, each: the faults of a busy world, in about 20 MB."""


class Trace(Recording):
    """Records a world from when it is attached to its cluster; `kept` bounds each kind of record."""

    def __init__(self, kept: int = KEPT_MAX) -> None:
        super().__init__(kept)
        self.calls: deque[Calling] = deque(maxlen=kept)
        self._observer: Observer | None = None
        self._open: dict[int, Calling] = {}

    def attach(self, cluster: SimCluster) -> None:
        """Record this cluster, which has not been started yet, on the loop that is running."""
        assert self._observer is None, "a trace is of one world"
        loop = cluster.loop
        assert isinstance(loop, SimLoop), "a trace is of a world with virtual time"
        self._observer = Observer(cluster, self)
        cluster.recorder = self
        loop.observer = self._observer.look

    def transport(self, *args: Any, **settings: Any) -> MemoryTransport:
        """A `MemoryTransport` whose messages are recorded."""
        assert self._observer is not None
        return TracedTransport(self._observer, *args, **settings)

    def records(self, since: float = 0.0, until: float = math.inf) -> list[Record]:
        """The records that were kept between two times, in their order; a message counts when it was sent."""
        found: list[Record] = []
        for kept in (self.messages, self.happenings, self.calls):
            found += [record for record in kept if since <= record.at <= until]
        return sorted(found, key=lambda record: record.number)

    def summary(self) -> str:
        """How many records of each kind there were in all, in a line."""
        return ", ".join(f"{count} × {what}" for what, count in sorted(self.counts.items()))

    def called(self, operation: Operation) -> None:
        """A client has begun a call."""
        text = words_of(operation)
        calling = Calling(number=self.next_number(), at=operation.called, client=operation.client, label=text)
        self.calls.append(calling)
        self._open[id(operation)] = calling
        self.counts["call"] += 1

    def answered(self, operation: Operation, *, refused: bool) -> None:
        """A client has its result, or knows that nothing was done."""
        assert self._observer is not None
        calling = self._open.pop(id(operation), None)
        if calling is not None:
            calling.returned, calling.returned_number = self._observer.time(), self.next_number()
            calling.refused, calling.result = refused, "" if refused else answer(operation.result)
            self.counts["call refused" if refused else "call answered"] += 1
