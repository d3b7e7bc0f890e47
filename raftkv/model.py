"""The nouns: entries, memberships, snapshots' descriptions. Values only, no behaviour that decides.

Everything here is immutable once built, and may be shared by the core, the log, the wire and the
state without copying.
"""

from __future__ import annotations

from enum import IntEnum
from typing import TypeAlias

import msgspec

NodeId: TypeAlias = int
"""A node's number, 1 or above. It never comes back once its node was removed (see `Membership.removed`)."""

Index: TypeAlias = int
"""A position in the log; the first entry has index 1, and 0 means "before the log"."""

Term: TypeAlias = int
"""A Raft term (§5.1); 0 is before the first election."""

GENESIS_CHAIN = 0
"""The chain value before the first entry."""

NODE_ID_MAX = 2**32 - 1


class EntryKind(IntEnum):
    """What an entry's payload is."""

    NOOP = 0
    """A new leader's first entry (§8); empty, or the version of the application that a new cluster begins with."""
    COMMAND = 1
    """A command of the application, opaque to the core."""
    MEMBERSHIP = 2
    """An encoded `Membership`; the only payload that the core reads."""
    CLOCK = 3
    """Log time begins anew at this entry's time, which may be less than that of the entry before it; empty payload."""
    UPGRADE = 4
    """Another version of the application is active from here on, or a further piece of its upgrade is done."""
    DUE = 5
    """Fires the scheduled commands whose time has come, in the order of their times; the payload bounds how many."""


class EntryId(msgspec.Struct, frozen=True, order=True):
    """What makes an entry unique: equal ids mean equal entries (Log Matching, §5.3)."""

    term: Term
    index: Index

    def __str__(self) -> str:
        return f"{self.index}@{self.term}"


class HardState(msgspec.Struct, frozen=True):
    """What a node must never forget: its term, and whom it voted for in it (§5.2)."""

    term: Term = 0
    vote: NodeId | None = None


class Member(msgspec.Struct, frozen=True, order=True):
    """One node as the cluster knows it: its number and where it listens ("host:port")."""

    node_id: NodeId
    peer_address: str = ""
    client_address: str = ""


class Membership(msgspec.Struct, frozen=True):
    """Who belongs to the cluster, and whose votes count (§6, thesis §4).

    Invariants (checked by `problems()`):
    - ids in `voters`, `outgoing`, `learners` are sorted and unique, and each is in `members`;
    - `outgoing` is empty unless the change is joint: then it holds the voters of the old membership,
      and every decision needs a majority of `voters` *and* a majority of `outgoing`;
    - a learner is no voter of the new membership; it may still be one of `outgoing`, while it is demoted;
    - nobody is both a member and `removed`.
    """

    voters: tuple[NodeId, ...] = ()
    outgoing: tuple[NodeId, ...] = ()
    learners: tuple[NodeId, ...] = ()
    members: tuple[Member, ...] = ()
    removed: tuple[NodeId, ...] = ()

    @classmethod
    def of(cls, voters: tuple[NodeId, ...], learners: tuple[NodeId, ...] = ()) -> Membership:
        """A membership without addresses, as the simulator and tests use it."""
        members = tuple(Member(node_id) for node_id in sorted({*voters, *learners}))
        return cls(voters=tuple(sorted(voters)), learners=tuple(sorted(learners)), members=members)

    @property
    def is_joint(self) -> bool:
        return bool(self.outgoing)

    def all_voters(self) -> tuple[NodeId, ...]:
        """All nodes whose vote counts in at least one of the two majorities, sorted."""
        return tuple(sorted({*self.voters, *self.outgoing}))

    def all_nodes(self) -> tuple[NodeId, ...]:
        """All nodes that get the log, sorted."""
        return tuple(sorted({*self.voters, *self.outgoing, *self.learners}))

    def is_voter(self, node_id: NodeId) -> bool:
        return node_id in self.voters or node_id in self.outgoing

    def member(self, node_id: NodeId) -> Member | None:
        """The addresses of `node_id`, or None when it is not in this membership."""
        for member in self.members:
            if member.node_id == node_id:
                return member
        return None

    def problems(self) -> list[str]:
        """Everything wrong with this membership, in words; empty when it is sound."""
        found = []
        if not self.voters:
            found.append("a membership needs at least one voter")
        for name in ("voters", "outgoing", "learners", "removed"):
            ids = getattr(self, name)
            if list(ids) != sorted(set(ids)):
                found.append(f"{name} must be sorted and without repetition, not {ids}")
        ids = [member.node_id for member in self.members]
        if ids != sorted(set(ids)):
            found.append(f"members must be sorted and without repetition, not {ids}")
        if set(ids) != set(self.all_nodes()):
            found.append(f"members {ids} must be exactly the voters and learners {list(self.all_nodes())}")
        if out_of_range := [i for i in ids if not 1 <= i <= NODE_ID_MAX]:
            found.append(f"node ids must be 1 to {NODE_ID_MAX}, not {out_of_range}")
        if both := sorted(set(self.voters) & set(self.learners)):
            found.append(f"{both} cannot be voters and learners at once")
        if back := sorted(set(ids) & set(self.removed)):
            found.append(f"{back} were removed before; a new node needs a new id")
        for field in ("peer_address", "client_address"):
            addresses = sorted(a for m in self.members if (a := getattr(m, field)))
            if twice := sorted({a for a in addresses if addresses.count(a) > 1}):
                found.append(f"{field} {twice} is used by more than one member")
        return found

    def describe(self) -> str:
        """`voters 1 2 3 (leaving 1 2) learners 4`, for logs, scripts and failures alike."""
        words = ["voters", *map(str, self.voters)]
        if self.outgoing:
            words.append(f"(outgoing {' '.join(map(str, self.outgoing))})")
        if self.learners:
            words += ["learners", *map(str, self.learners)]
        return " ".join(words)


class LogStart(msgspec.Struct, frozen=True):
    """The entry just before the log's first: everything up to it is in a snapshot (§7).

    `LogStart()` is the start of a log that was never compacted.
    """

    index: Index = 0
    term: Term = 0
    chain: int = GENESIS_CHAIN
    time_ms: int = 0


class SnapshotMeta(msgspec.Struct, frozen=True):
    """What a snapshot says of itself: the state after exactly the entry `index`, and its proof.

    `chain` is the chain value of that entry (it stands for the whole log up to it), `time_ms` that
    entry's leader time, `digest` the state's rolling digest at `index`. `membership` is the
    newest one at or below `index`.
    """

    index: Index
    term: Term
    chain: int
    time_ms: int
    membership: Membership
    digest: int = 0

    @property
    def id(self) -> EntryId:
        return EntryId(term=self.term, index=self.index)

    @property
    def log_start(self) -> LogStart:
        """The start of a log that goes on behind this snapshot."""
        return LogStart(self.index, self.term, self.chain, self.time_ms)


_membership_encoder = msgspec.msgpack.Encoder()
_membership_decoder = msgspec.msgpack.Decoder(Membership)


def encode_membership(membership: Membership) -> bytes:
    """The payload of an `EntryKind.MEMBERSHIP` entry."""
    return _membership_encoder.encode(membership)


def decode_membership(payload: bytes) -> Membership:
    """The membership in such a payload. Raises `msgspec.DecodeError` (or its `ValidationError`) when there is none."""
    return _membership_decoder.decode(payload)
