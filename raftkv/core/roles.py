"""The roles of a node, each with exactly the fields that belong to it.

A role begins in one place only, `core.transitions`; the role of a node that has just started, in `RaftState`.
"""

from __future__ import annotations

from collections import deque
from typing import TypeAlias

import msgspec

from raftkv.core.logclock import LogClock
from raftkv.core.progress import Progress
from raftkv.model import Index, NodeId


class _Passive(msgspec.Struct, kw_only=True):
    """The fields of all who follow a leader, or wait for one."""

    leader: NodeId | None = None
    leader_lost: bool = False
    """The connection to the leader broke, and nothing was heard since: this node may vote for others."""
    elapsed: int = 0
    """Ticks since the leader was heard, a vote was granted, or this role began."""
    reads: dict[int, int] = {}
    """Reads that were forwarded to the leader: token → ticks waited."""


class Joined(_Passive, kw_only=True):
    """Not in any membership that it knows: receives the log, but never campaigns (thesis §4.1)."""


class Learner(_Passive, kw_only=True):
    """Receives the log; its vote does not count, and it never campaigns (thesis §4.2.1)."""


class Follower(_Passive, kw_only=True):
    """A voter that follows; after `timeout` ticks of silence it campaigns (§5.2)."""

    timeout: int


class PreCandidate(msgspec.Struct, kw_only=True):
    """Asks whether it could win before it disturbs anybody (thesis §9.6)."""

    timeout: int
    elapsed: int = 0
    votes: dict[NodeId, bool] = {}


class Candidate(msgspec.Struct, kw_only=True):
    """Has raised its term and asks for votes (§5.2). Its own counts once it is durable."""

    timeout: int
    transfer: bool = False
    """The old leader asked for this election (thesis §3.10)."""
    elapsed: int = 0
    votes: dict[NodeId, bool] = {}
    clocks: dict[NodeId, int] = {}
    """The offsets of the voters' clocks, as their votes told them (see `core.clocks`)."""


# Named once: a union written inside `isinstance(…)` would be built anew at each call.
Campaigner: TypeAlias = PreCandidate | Candidate
"""A node that stands for election."""
Impatient: TypeAlias = Follower | PreCandidate | Candidate
"""A node that campaigns when it hears nothing for `timeout` ticks."""


class LeadershipTransfer(msgspec.Struct, kw_only=True):
    """A leadership transfer under way (thesis §3.10)."""

    target: NodeId
    elapsed: int = 0


class ReadBatch(msgspec.Struct):
    """Reads that may be answered at `index` once a quorum has confirmed `round` (thesis §6.4)."""

    round: int
    index: Index
    reads: list[tuple[NodeId | None, int]]
    """(node that asked, None for this one; its token)"""


class Leader(msgspec.Struct, kw_only=True):
    """Orders the log (§5.3)."""

    term_start: Index
    """The index of this term's no-op: until it is committed there are no reads and no changes."""
    progress: dict[NodeId, Progress]
    """Everyone else who gets the log, in order of id."""
    tick: int = 0
    """Ticks since the election."""
    round: int = 0
    """Broadcasts since the election (see `AppendEntries.round`)."""
    transfer: LeadershipTransfer | None = None
    timeout_now_sent: bool = False
    """Whether a TimeoutNow of this term was sent: then followers may ignore their promise, so leases don't hold."""
    reads_waiting: list[tuple[NodeId | None, int]] = []
    reads_started: deque[ReadBatch] = msgspec.field(default_factory=deque)
    reads_count: int = 0
    round_ticks: deque[tuple[int, int]] = msgspec.field(default_factory=deque)
    """(round, tick in which it was sent), for leases; empty when there are none."""
    lease_round: int = 0
    """The newest round that a quorum has confirmed, for leases."""
    clock: LogClock | None = None
    """By what it stamps entries; None until `Raft.observe` was called."""
    told_ms: int = 0
    """The latest time that queries were told: no entry of this leader's has an earlier one."""
    appended: bool = False
    """There may be entries to send."""


Role: TypeAlias = Joined | Learner | Follower | PreCandidate | Candidate | Leader
