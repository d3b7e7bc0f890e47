"""What nodes say to each other: the RPCs of the paper (Figures 2 and 13, thesis §§3.10, 6.4, 9.6).

Every message names its sender, its receiver and the sender's term. Replies are messages too; nothing
waits for them. Messages may be lost, repeated, delayed and reordered at will.
"""

from __future__ import annotations

from typing import TypeAlias

import msgspec

from raftkv.entry import Entry
from raftkv.model import Index, NodeId, SnapshotMeta, Term


class RequestVote(msgspec.Struct, array_like=True, tag=1):
    """A candidate asks for a vote (§5.2), or, with `pre_vote`, whether it would get one (thesis §9.6).

    A pre-vote carries the term that the candidate *would* have. `transfer` says that the leader
    itself asked for this election, so that having heard from it is no reason to refuse.
    """

    sender: NodeId
    to: NodeId
    term: Term
    last_index: Index
    last_term: Term
    pre_vote: bool = False
    transfer: bool = False


class RequestVoteReply(msgspec.Struct, array_like=True, tag=2):
    """`granted` or not. A granted pre-vote repeats the term asked for; a refusal carries the voter's own."""

    sender: NodeId
    to: NodeId
    term: Term
    granted: bool
    pre_vote: bool = False
    now_ms: int = 0
    """The voter's wall clock, for a candidate that may be leader in a moment (see `core.clocks`); 0 for not told."""


class AppendEntries(msgspec.Struct, array_like=True, tag=3):
    """Entries behind `prev_index`, or none: a heartbeat (§5.3).

    The core names a range of the leader's log (`prev_index + 1` to `last_index`); whoever sends the
    message attaches the entries. `prev_chain` is the chain value at `prev_index`: equal index and
    term with another chain value mean that two logs differ where Raft says that they can't.
    `round` counts the leader's broadcasts in its term; a reply repeats it, and so confirms that its
    sender still followed this leader after the broadcast was sent (thesis §6.4).
    """

    sender: NodeId
    to: NodeId
    term: Term
    prev_index: Index
    prev_term: Term
    prev_chain: int
    last_index: Index
    commit_index: Index
    round: int
    entries: list[Entry]


class AppendReply(msgspec.Struct, array_like=True, tag=4):
    """What a follower holds *durably* of the leader's log, or why an append did not fit.

    `match_index`: everything up to here equals the leader's log and is durable. `rejected`: nothing
    was found at `prev_index` that fits; then `conflict_term` is the term of the follower's entry
    there (None: its log is shorter) and `conflict_index` the first index worth trying.
    `wants_snapshot`: the follower's state needs a snapshot, whatever its log has. `has_room`: its disk is
    not nearly full, so it could lead.
    """

    sender: NodeId
    to: NodeId
    term: Term
    round: int
    match_index: Index
    rejected: bool = False
    prev_index: Index = 0
    conflict_index: Index = 0
    conflict_term: Term | None = None
    wants_snapshot: bool = False
    has_room: bool = True
    now_ms: int = 0
    """The follower's wall clock, in answers that wait for no disk (see `core.clocks`); 0 for not told."""


class InstallSnapshot(msgspec.Struct, array_like=True, tag=5):
    """The leader's snapshot replaces a follower's log prefix (§7).

    From the leader's core it is the decision to send that snapshot; into the follower's core it goes
    when all of its files have arrived and been verified.
    """

    sender: NodeId
    to: NodeId
    term: Term
    snapshot: SnapshotMeta


class TimeoutNow(msgspec.Struct, array_like=True, tag=6):
    """The leader asks a caught-up follower to start an election at once (thesis §3.10)."""

    sender: NodeId
    to: NodeId
    term: Term


class ReadIndex(msgspec.Struct, array_like=True, tag=7):
    """A follower asks the leader at which index a linearizable read may be answered (thesis §6.4)."""

    sender: NodeId
    to: NodeId
    term: Term
    token: int


class ReadIndexReply(msgspec.Struct, array_like=True, tag=8):
    """The index for that read, or None when the node that was asked can't tell."""

    sender: NodeId
    to: NodeId
    term: Term
    token: int
    index: Index | None


Message: TypeAlias = (
    RequestVote
    | RequestVoteReply
    | AppendEntries
    | AppendReply
    | InstallSnapshot
    | TimeoutNow
    | ReadIndex
    | ReadIndexReply
)
