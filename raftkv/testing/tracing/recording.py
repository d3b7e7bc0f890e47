"""A recording of a simulated world: its messages and their fates, and what happened to nodes and network."""

from __future__ import annotations

from collections import Counter, deque

from raftkv.core.messages import AppendEntries, AppendReply
from raftkv.model import NodeId
from raftkv.testing.tracing.labels import describe, is_routine, key_of, label, short
from raftkv.testing.tracing.records import Fate, Happening, SentMessage, What
from raftkv.wire import PeerMessage

UNMATCHED_MAX = 512
"""Messages from one node to another that may still arrive, or arrive again; more than a link has on its way."""


class _Link:
    """The messages from one node to another that may still arrive."""

    def __init__(self) -> None:
        self.waiting: deque[tuple[bytes, SentMessage]] = deque()
        self.past: dict[bytes, SentMessage] = {}
        """What has arrived, or was lost: a network may repeat it. The oldest first."""
        self.is_closed = False
        """What was sent last found no connection: the same again is no news."""
        self.match_index = -1
        """Of the last answer to an append: the same one again is no news."""

    def match(self, key: bytes) -> SentMessage | None:
        """Find the message with this key that has arrived: the oldest that is on its way, else one that comes again."""
        for place, (other, sending) in enumerate(self.waiting):
            if other == key:
                del self.waiting[place]
                self.keep(key, sending)
                return sending
        return self.past.get(key)

    def keep(self, key: bytes, sending: SentMessage) -> None:
        self.past.pop(key, None)
        self.past[key] = sending
        if len(self.past) > UNMATCHED_MAX:
            del self.past[next(iter(self.past))]


class Recording:
    """Records what nodes and network do. It keeps the newest `kept` records of each kind."""

    def __init__(self, kept: int) -> None:
        self.messages: deque[SentMessage] = deque(maxlen=kept)
        self.happenings: deque[Happening] = deque(maxlen=kept)
        self.counts: Counter[str] = Counter()
        """Of everything, kept or not: messages by kind and by fate, happenings by what they are, calls."""
        self.now = 0.0
        self.nodes: dict[NodeId, str] = {}
        """All that there ever were, in their order, and what each is now: its role, or "" when it is down."""
        self._number = 0
        self._links: dict[tuple[NodeId, NodeId], _Link] = {}

    def next_number(self) -> int:
        """The number of the next record, of whatever kind: records are ordered by these numbers."""
        self._number += 1
        return self._number

    def sent(self, sender: NodeId, to: NodeId, message: PeerMessage, *, queued: bool) -> None:
        """A node has handed a message to its transport; `queued` says whether that has taken it."""
        kind = type(message).__name__
        link = self._links.setdefault((sender, to), _Link())
        sending = SentMessage(
            number=self.next_number(),
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
        """A message has arrived at the node `to`: note when, on the record of its sending."""
        link = self._links.get((sender, to))
        sending = link.match(key_of(message)) if link is not None else None
        if sending is not None:
            self.counts["arrived again" if sending.arrivals else Fate.ARRIVED] += 1
            sending.fate = Fate.ARRIVED
            sending.arrivals.append(self.now)

    def broke(self, sender: NodeId, to: NodeId | None = None) -> None:
        """The connection from one node to another broke, or all connections of a node; what was on it is lost."""
        for ends, link in self._links.items():
            if ends == (sender, to) or (to is None and sender in ends):
                while link.waiting:
                    self._end(link, *link.waiting.popleft())

    def _end(self, link: _Link, key: bytes, sending: SentMessage) -> None:
        sending.fate = Fate.LOST
        link.keep(key, sending)
        self.counts[Fate.LOST] += 1

    def happened(self, what: What, node: NodeId | None, text: str, detail: str, *, role: str = "") -> None:
        """Record a happening, which is anything but a message."""
        self.counts[what] += 1
        self.happenings.append(
            Happening(
                number=self.next_number(), at=self.now, what=what, node=node, label=text, detail=detail, role=role
            )
        )

    def broken(self, at: float, text: str) -> None:
        """Record that a promise was broken, at the time `at`."""
        self.happenings.append(
            Happening(
                number=self.next_number(),
                at=at,
                what=What.BROKEN,
                node=None,
                label=f"✖ {short(text, 100)}",
                detail=text,
            )
        )
