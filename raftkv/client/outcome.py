"""What a node's answer means for the call that it answers."""

from __future__ import annotations

from enum import Enum

import msgspec

from raftkv.client.call import Answer
from raftkv.errors import (
    UNREADABLE,
    Busy,
    ChangeRefused,
    DiskLow,
    Forbidden,
    FrameError,
    Indeterminate,
    InvalidArgument,
    NotCaughtUp,
    NotLeader,
    RaftKVError,
    Rejected,
    SessionExpired,
    TooMuchWork,
    Unauthenticated,
    Unavailable,
    ViewExpired,
)
from raftkv.history import Compacted, Cursor, OtherLineage
from raftkv.machine import read_rejection
from raftkv.model import Index
from raftkv.wire import Response, Status

_partings = msgspec.msgpack.Decoder(tuple[Cursor, Index | None])


class Verdict(Enum):
    """What to do about an answer."""

    DONE = "done"
    """The result."""
    FINAL = "final"
    """An error that trying again won't change."""
    ELSEWHERE = "elsewhere"
    """Certainly not done: another node may do it."""
    LATER = "later"
    """Certainly not done: the same node may do it in a moment."""
    UNKNOWN = "unknown"
    """It may have been done, and this node can't tell."""


def read_response(response: Response) -> tuple[Verdict, Answer | RaftKVError]:
    """The verdict, with the answer or the error. Raises `FrameError` for a response that can't be read."""
    status = response.status
    if status is Status.OK:
        return Verdict.DONE, Answer(response.payload, response.index)
    if status is Status.REJECTED:
        return Verdict.FINAL, _rejected(response.payload)
    text = response.payload.decode("utf-8", "replace")
    match status:
        case Status.NOT_LEADER:
            return Verdict.ELSEWHERE, NotLeader(address=response.leader or None)
        case Status.UNAVAILABLE:
            return Verdict.ELSEWHERE, Unavailable(text)
        case Status.BUSY:
            return Verdict.LATER, Busy(text)
        case Status.DISK_LOW:
            return Verdict.FINAL, DiskLow(text)  # no voter has room, and only an operator can change that
        case Status.INDETERMINATE:
            return Verdict.UNKNOWN, Indeterminate(text)
        case Status.SESSION_EXPIRED:
            return Verdict.FINAL, SessionExpired("the cluster has forgotten the session")
        case Status.INVALID:
            return Verdict.FINAL, InvalidArgument(text)
        case Status.CHANGE_REFUSED:
            return Verdict.FINAL, ChangeRefused(text)
        case Status.TOO_MUCH_WORK:
            return Verdict.FINAL, TooMuchWork(text)
        case Status.VIEW_EXPIRED:
            return Verdict.FINAL, ViewExpired(text)
        case Status.COMPACTED:
            return Verdict.FINAL, _compacted(text)
        case Status.OTHER_LINEAGE:
            return Verdict.FINAL, _other_lineage(response.payload)
        case Status.NOT_CAUGHT_UP:
            return Verdict.FINAL, NotCaughtUp(text)
        case Status.UNAUTHENTICATED:
            return Verdict.FINAL, Unauthenticated(text)
        case Status.FORBIDDEN:
            return Verdict.FINAL, Forbidden(text)
    raise FrameError(f"an answer with status {status!r}")


def _compacted(text: str) -> Compacted:
    try:
        return Compacted(Cursor.parse(text))
    except InvalidArgument as exc:
        raise FrameError(f"an unreadable cursor: {exc}") from exc


def _other_lineage(payload: bytes) -> OtherLineage:
    try:
        return OtherLineage(*_partings.decode(payload))
    except UNREADABLE as exc:
        raise FrameError(f"an unreadable cursor: {exc}") from exc


def _rejected(payload: bytes) -> Rejected:
    try:
        return read_rejection(payload)
    except UNREADABLE as exc:
        raise FrameError(f"an unreadable rejection: {exc}") from exc
