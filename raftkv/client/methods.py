"""Payloads of requests that are no methods of the machine: to open and close sessions."""

from __future__ import annotations

import msgspec

from raftkv.errors import FrameError
from raftkv.machine import CLOSE_SESSION, NO_SESSION, OPEN_SESSION, encode_command

_NO_ARGS = msgspec.msgpack.encode(())

OPEN_SESSION_PAYLOAD = encode_command(NO_SESSION, 0, 0, OPEN_SESSION, _NO_ARGS)


def close_session_payload(session_id: int) -> bytes:
    """The command that makes the cluster forget a session."""
    return encode_command(session_id, 0, 0, CLOSE_SESSION, _NO_ARGS)


def read_session_id(payload: bytes) -> int:
    """Decode the answer to opening a session. Raises `FrameError`."""
    try:
        return msgspec.msgpack.decode(payload, type=int)
    except msgspec.MsgspecError as exc:
        raise FrameError(f"a session's id that can't be read: {exc}") from exc
