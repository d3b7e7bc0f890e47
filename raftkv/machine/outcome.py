"""What became of a command."""

from __future__ import annotations

import re
from enum import IntEnum

import msgspec


class OutcomeKind(IntEnum):
    """How a command ended, the same on every node."""

    APPLIED = 0
    """The payload is its result."""
    REJECTED = 1
    """It raised, without effect; the payload is [the exception's name, its text]."""
    SESSION_EXPIRED = 2
    """Its session is not known (any more); it had no effect now."""
    STALE_DUPLICATE = 3
    """Its client had acknowledged the answer before; it had no effect now."""


class Outcome(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """A command's end, with the encoded result or rejection."""

    kind: OutcomeKind
    payload: bytes = b""


SESSION_EXPIRED = Outcome(OutcomeKind.SESSION_EXPIRED)
STALE_DUPLICATE = Outcome(OutcomeKind.STALE_DUPLICATE)

_ADDRESS = re.compile(r" at 0x[0-9a-f]+")
_encoder = msgspec.msgpack.Encoder()


def rejected(error: BaseException) -> Outcome:
    """The outcome of a command that raised."""
    # A default repr names a place in this process's memory, where no other node has the object.
    text = _ADDRESS.sub("", str(error))
    return Outcome(OutcomeKind.REJECTED, _encoder.encode((type(error).__name__, text)))


def rejection_of(outcome: Outcome) -> tuple[str, str]:
    """The exception's name and text."""
    return msgspec.msgpack.decode(outcome.payload, type=tuple[str, str])
