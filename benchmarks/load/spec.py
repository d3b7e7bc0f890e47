"""What a load generator is to do, and what it found; both travel between processes."""

from __future__ import annotations

from collections import Counter
from enum import StrEnum

import msgspec

from benchmarks.latency import Latencies


class Target(StrEnum):
    """Whose protocol the generator speaks."""

    RAFTKV = "raftkv"
    """Frames of our own, made and read as cheaply as possible; sessions as any client has them."""
    LIBRARY = "library"
    """The client library that an application uses: finds the leader, retries, knows deadlines."""
    ETCD = "etcd"
    """gRPC, over as little HTTP/2 as it needs."""
    ETCD_FOLLOWING = "etcd following"
    """The same, and on to the next member when one fails."""


class Read(StrEnum):
    """Which promise reads ask for."""

    LINEARIZABLE = "linearizable"
    STALE = "stale"


class LoadSpec(msgspec.Struct, frozen=True, kw_only=True):
    """One run of load against one cluster."""

    target: Target
    addresses: list[str]
    """Connections are spread over these, in order."""
    connections: int = 1
    outstanding: int = 1
    """Operations that each connection has under way (closed loop), or at most (open loop)."""
    rate: float | None = None
    """Operations a second that are due, whatever comes back (open loop); None: as fast as answers come."""
    value_bytes: int = 256
    keys: int = 100_000
    in_order: bool = False
    """Whether keys come one after the other: to fill a table before reading it."""
    zipf: float = 0.0
    """The keys' skew; 0 for none, 0.99 as YCSB has it."""
    reads: float = 0.0
    """The share of operations that read."""
    read: Read = Read.LINEARIZABLE
    machine: str = "kv"
    """Which methods of which state machine are called (see `benchmarks.machines`)."""
    sessions: bool = True
    warmup_s: float = 1.0
    seconds: float = 5.0
    generators: int = 1
    """Processes that share the connections."""
    seed: int = 1
    timeline: bool = False
    """Whether every answer's time is kept."""


class LoadResult(msgspec.Struct, kw_only=True):
    """What one generator, or all of a run, saw in the measured time."""

    operations: int
    """Answered in the measured time (closed loop), or due in it and answered at last (open loop)."""
    seconds: float
    latencies: str
    """As `Latencies.to_text`; from the moment when the operation was due."""
    errors: dict[str, int] = {}
    unanswered: int = 0
    """Due in the measured time and not answered when the run ended."""
    cpu_s: float = 0.0
    """What the generators used themselves: near `seconds` each, it is they who are measured."""
    due_ns: list[int] = []
    answered_ns: list[int] = []
    """With `timeline`: the monotonic clock at which each answered operation was due, and answered."""

    @property
    def throughput(self) -> float:
        """Operations a second."""
        return self.operations / self.seconds if self.seconds else 0.0

    def histogram(self) -> Latencies:
        return Latencies.from_text(self.latencies)


def merge(results: list[LoadResult]) -> LoadResult:
    """What several generators of one run saw together."""
    total, errors = Latencies(), Counter[str]()
    for result in results:
        total.merge(result.histogram())
        errors.update(result.errors)
    return LoadResult(
        operations=sum(result.operations for result in results),
        seconds=max(result.seconds for result in results),
        latencies=total.to_text(),
        errors=dict(errors),
        unanswered=sum(result.unanswered for result in results),
        cpu_s=sum(result.cpu_s for result in results),
        due_ns=[time for result in results for time in result.due_ns],
        answered_ns=[time for result in results for time in result.answered_ns],
    )
