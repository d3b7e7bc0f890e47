"""Messages in words: a few characters beside an arrow, and a line that shows when one points at it."""

from __future__ import annotations

from typing import Any

import msgspec

from raftkv.core.messages import (
    AppendEntries,
    AppendReply,
    InstallSnapshot,
    ReadIndex,
    ReadIndexReply,
    RequestVote,
    RequestVoteReply,
    TimeoutNow,
)
from raftkv.model import Membership
from raftkv.snapshot import (
    SnapshotAck,
    SnapshotChunk,
    SnapshotDone,
    SnapshotNeed,
    SnapshotOffer,
    SnapshotPreparing,
    SnapshotRefused,
)
from raftkv.testing.judging.operation import Operation
from raftkv.wire import DigestReport, DigestRequest, DivergedNotice, NoAgreementNotice, PeerMessage

TEXT_MAX = 24
"""Characters of an argument or a result; who needs all of it has the history."""


def label(message: PeerMessage) -> str:
    """The text at a message's arrow: `append 5-7`, `vote t3?`."""
    match message:
        case RequestVote():
            return f"{_vote(message)} t{message.term}?"
        case RequestVoteReply():
            return f"{_vote(message)} t{message.term} {'yes' if message.granted else 'no'}"
        case AppendEntries() if message.last_index > message.prev_index:
            return f"append {_span(message.prev_index + 1, message.last_index)}"
        case AppendEntries():
            return f"heartbeat c{message.commit_index}"
        case AppendReply() if message.rejected:
            return f"no, try {message.conflict_index}"
        case AppendReply():
            return f"ok {message.match_index}" + (" snapshot?" if message.wants_snapshot else "")
        case InstallSnapshot():
            return f"install {message.snapshot.index}"
        case TimeoutNow():
            return "timeout now"
        case ReadIndex():
            return "read?"
        case ReadIndexReply():
            return f"read {message.index if message.index is not None else 'no'}"
        case DigestReport():
            return f"digest {message.index}"
        case DigestRequest():
            return f"digest? {message.index}"
        case NoAgreementNotice():
            return f"no agreement {message.index}"
        case DivergedNotice():
            return f"diverged {message.index}"
        case _:
            return _SNAPSHOTS.get(type(message), type(message).__name__.lower())


_SNAPSHOTS: dict[type, str] = {
    SnapshotOffer: "snap offer",
    SnapshotPreparing: "snap wait",
    SnapshotNeed: "snap need",
    SnapshotChunk: "snap chunk",
    SnapshotAck: "snap ack",
    SnapshotDone: "snap done",
    SnapshotRefused: "snap no",
}


def _vote(message: RequestVote | RequestVoteReply) -> str:
    return "prevote" if message.pre_vote else "vote"


def _span(first: int, last: int) -> str:
    return str(first) if first == last else f"{first}-{last}"


def describe(message: PeerMessage) -> str:
    """All fields but bulk data, in a line."""
    parts = []
    for field in message.__struct_fields__:
        value = getattr(message, field)
        if field == "entries":
            value = len(value)
        parts.append(f"{field}={short(value)}")
    return f"{type(message).__name__}({', '.join(parts)})"


def short(value: Any, room: int = TEXT_MAX) -> str:
    """A value in at most `room` characters; text and numbers without quotes."""
    text = _plain(value)
    return text if len(text) <= room else text[: room - 1] + "…"


def _plain(value: Any) -> str:
    if isinstance(value, bytes) and value.isascii() and value.decode().isprintable():
        return value.decode() or "''"
    if isinstance(value, tuple | list):
        return "(" + ", ".join(_plain(each) for each in value[: TEXT_MAX // 2]) + ")"
    return str(value) or "''"


def words_of(operation: Operation) -> str:
    """`write r0 1.5`, or, where the arguments are all there is, `receive(apple, 3)`."""
    key, argument = operation.key, operation.argument
    if isinstance(key, tuple) and len(key) == 2 and isinstance(key[0], type):
        key = key[1]  # a frozen value comes with its type
    if isinstance(argument, tuple) and (key is None or key in argument):
        return f"{operation.name}{short(argument)}"
    words = [operation.name, short(key), "" if argument is None else short(argument)]
    return " ".join(word for word in words if word)


def members(membership: Membership) -> str:
    """`1 2 3 +4`: voters and learners; `1 2 3 → 1 2 4` while a change is joint."""
    words = [" ".join(map(str, membership.voters))]
    if membership.is_joint:
        words = [" ".join(map(str, membership.outgoing)), "→", *words]
    return " ".join([*words, *(f"+{learner}" for learner in membership.learners)])


def is_routine(message: PeerMessage) -> bool:
    """Whether a message is one of those that nodes send all the time: a heartbeat, a digest."""
    return isinstance(message, DigestReport) or (
        isinstance(message, AppendEntries) and message.last_index == message.prev_index
    )


def key_of(message: PeerMessage) -> bytes:
    """A key that is equal for equal messages between two nodes. Bulk data is left out of it."""
    match message:
        case AppendEntries():
            return msgspec.msgpack.encode(msgspec.structs.replace(message, entries=[]))
        case SnapshotChunk():
            return msgspec.msgpack.encode(msgspec.structs.replace(message, data=b""))
        case _:
            return msgspec.msgpack.encode(message)
