"""Outcomes: how commands end."""

from __future__ import annotations

import re
from collections.abc import Callable
from enum import IntEnum
from typing import TypeAlias

import msgspec

from raftkv.config import KIB
from raftkv.errors import NotActive, RaftKVError, Rejected
from raftkv.machine.rejection import Rejection
from raftkv.model import Index


class OutcomeKind(IntEnum):
    """How a command ended, the same on every node."""

    APPLIED = 0
    """The payload is its result."""
    REJECTED = 1
    """It raised, without effect; the payload is [the exception's name, its text], and its fields if it has declared
    some."""
    SESSION_EXPIRED = 2
    """Its session is not known (any more); this time it had no effect."""
    STALE_DUPLICATE = 3
    """Its client had acknowledged the answer before; this time it had no effect."""


class Outcome(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """A command's end, with the encoded result or rejection."""

    kind: OutcomeKind
    payload: bytes = b""


CommandDone: TypeAlias = Callable[[Index, Outcome | RaftKVError], None]
"""Called exactly once: with the entry's index and its outcome, or with 0 and the error."""

QueryDone: TypeAlias = Callable[[Index, bytes | RaftKVError], None]
"""Called exactly once: with the index read at and the result, or with 0 and the error."""

SESSION_EXPIRED = Outcome(OutcomeKind.SESSION_EXPIRED)
STALE_DUPLICATE = Outcome(OutcomeKind.STALE_DUPLICATE)

FIELDS_BYTES_MAX = 64 * KIB
"""Of a rejection that has declared them; they are stored with the session too."""

TEXT_MAX = 4_096
"""Characters of a rejection's text that are kept; it is stored with the session."""

_ADDRESS = re.compile(r" at 0x[0-9a-f]+")
_encoder = msgspec.msgpack.Encoder()


def rejected(error: BaseException) -> Outcome:
    """The outcome of a command that raised."""
    if type(error) is RecursionError:
        return TOO_DEEP
    if isinstance(error, Rejection):
        return _declared(error)
    return Outcome(OutcomeKind.REJECTED, _encoder.encode((_clean(type(error).__name__), _text_of(error))))


TOO_DEEP = Outcome(OutcomeKind.REJECTED, _encoder.encode(("RecursionError", "maximum recursion depth exceeded")))
"""Of a command that ran out of frames. Python's text says what it was doing then, which differs between nodes: a
function that ran often is called in another way than before."""


def not_active(text: str) -> Outcome:
    """The outcome of a command that the active version does not have."""
    return Outcome(OutcomeKind.REJECTED, _encoder.encode((NotActive.__name__, text)))


def _declared(error: Rejection) -> Outcome:
    try:
        fields = error.fields
        if len(fields) > FIELDS_BYTES_MAX:
            raise ValueError(f"{error.error_type} has {len(fields)} bytes: must be at most {FIELDS_BYTES_MAX}")
        text = _clean(_ADDRESS.sub("", _message_of(error)))
    except BaseException as exc:  # noqa: BLE001 (it is the command's, like the exception itself)
        return rejected(exc) if not isinstance(exc, Rejection) else UNSPEAKABLE
    return Outcome(OutcomeKind.REJECTED, _encoder.encode((_clean(error.error_type), text, msgspec.Raw(fields))))


def _message_of(error: Rejection) -> str:
    """Its text; also where that takes more of the stack than there is, which is as much as an interpreter likes."""
    try:
        return error.message
    except RecursionError:
        return NO_TEXT


NO_TEXT = "(its text can't be made)"
"""What is said of an error that says nothing itself."""

UNSPEAKABLE = Outcome(OutcomeKind.REJECTED, _encoder.encode(("Rejection", "its fields can't be read")))
"""Of a command whose rejection can't even be encoded without raising a rejection."""


def _text_of(error: BaseException) -> str:
    """An exception's text, the same on every node, even for an exception that has none."""
    try:
        text = str(error)
    except BaseException:  # noqa: BLE001 (it is the command's, like the exception itself)
        return NO_TEXT
    # A default repr contains the object's address in memory, which differs between nodes.
    return _clean(_ADDRESS.sub("", text))


def _clean(text: str) -> str:
    return text[:TEXT_MAX].encode("utf-8", "backslashreplace").decode()


class _Payload(msgspec.Struct, array_like=True, frozen=True):
    """The payload of a rejection; what stands behind these is of a later version."""

    error_type: str
    message: str
    fields: msgspec.Raw = msgspec.Raw()


_payloads = msgspec.msgpack.Decoder(_Payload)


def read_rejection(payload: bytes) -> Rejected:
    """A rejection, from the payload of its outcome. Raises what msgspec raises when it is none."""
    read = _payloads.decode(payload)
    return Rejected(read.error_type, read.message, bytes(read.fields))


def error_type_of(payload: bytes) -> bytes:
    """Of a rejection, from the payload of its outcome: the name of what was raised."""
    return read_rejection(payload).error_type.encode()


def rejection_payload(rejection: Rejected) -> bytes:
    """The other way round."""
    fields = [msgspec.Raw(rejection.fields)] if rejection.fields else []
    return _encoder.encode([rejection.error_type, rejection.message, *fields])
