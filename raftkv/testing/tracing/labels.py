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
from raftkv.entry import Entry
from raftkv.errors import InvalidArgument
from raftkv.machine import BEGIN_LINEAGE, CHANGE_ACCESS, CLOSE_SESSION, OPEN_OWNED_SESSION, OPEN_SESSION
from raftkv.machine.payloads import decode_command
from raftkv.model import EntryKind, Membership
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
"""Characters of an argument; who needs all of it has the history."""
ANSWER_MAX = 2_000
"""Characters of an answer, which is what a failure is about."""
NAMES_MAX = 60
"""Characters of the names of commands at an arrow."""


def label(message: PeerMessage) -> str:
    """The text at a message's arrow: `append 5-7`, `vote t3?`."""
    match message:
        case RequestVote():
            return f"{_vote(message)} t{message.term}?"
        case RequestVoteReply():
            return f"{_vote(message)} t{message.term} {'yes' if message.granted else 'no'}"
        case AppendEntries() if message.last_index > message.prev_index:
            names = ", ".join(dict.fromkeys(filter(None, map(_command, message.entries))))
            span = _span(message.prev_index + 1, message.last_index)
            return f"append {span} {short(names, NAMES_MAX)}" if names else f"append {span}"
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


def _command(entry: Entry) -> str:
    """The name of the command in an entry; none for one that holds no application's command."""
    if entry.kind == EntryKind.DUE:
        return "(due)"
    if entry.kind != EntryKind.COMMAND:
        return ""
    try:
        name = decode_command(entry.payload).name
    except InvalidArgument:
        return "?"
    own = (OPEN_SESSION, OPEN_OWNED_SESSION, CLOSE_SESSION, CHANGE_ACCESS, BEGIN_LINEAGE)
    return "" if name in own else name


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


def answer(value: Any) -> str:
    """An answer as a client has heard it, all of it if that is possible at all."""
    text = _plain(value, ANSWER_MAX)
    return text if len(text) <= ANSWER_MAX else text[: ANSWER_MAX - 1] + "…"


def _plain(value: Any, items_max: int = TEXT_MAX // 2) -> str:
    if isinstance(value, bytes) and value.isascii() and value.decode().isprintable():
        return value.decode() or "''"
    if isinstance(value, tuple | list):
        return "(" + ", ".join(_plain(each, items_max) for each in value[:items_max]) + ")"
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
