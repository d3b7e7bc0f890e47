"""The payloads of commands and queries: name and arguments, and for a command the session whose retry it may be."""

from __future__ import annotations

import msgspec

from raftkv.errors import UNREADABLE, InvalidArgument
from raftkv.machine.depth import NESTED_MAX, is_nested_deeper

NO_SESSION = 0
"""In place of a session's id: the command is applied as often as it is in the log."""

OPEN_SESSION = "*open"
"""Opens a session; the result is its id, the index of this entry."""

OPEN_OWNED_SESSION = "*own"
"""The same for the user whose name is its argument; nobody else may use it. A leader makes it of the former."""

CLOSE_SESSION = "*close"
"""Forgets the session that it names."""

CHANGE_ACCESS = "*access"
"""Changes users and roles; its argument is a change of `raftkv.access`. It is none of those that clients send."""

BEGIN_LINEAGE = "*lineage"
"""Says which cluster this one goes on from, and up to which entry. It stands in the log from the beginning."""


class CommandPayload(msgspec.Struct, array_like=True, frozen=True, gc=False, forbid_unknown_fields=True):
    """A command as it stands in the log (thesis §6.3). A payload with more fields is refused.

    `sequence` is the client's number for it, unique in its session; every answer below `acked_below` has
    arrived at the client, which will not ask for it again.
    """

    session_id: int
    sequence: int
    acked_below: int
    name: str
    args: msgspec.Raw


class QueryPayload(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """A query as a client sends it; it never gets into the log."""

    name: str
    args: msgspec.Raw


_encoder = msgspec.msgpack.Encoder()
_commands = msgspec.msgpack.Decoder(CommandPayload)
_queries = msgspec.msgpack.Decoder(QueryPayload)


def encode_command(session_id: int, sequence: int, acked_below: int, name: str, args: bytes) -> bytes:
    """`args` are the encoded arguments (`Method.encode_args`)."""
    return _encoder.encode((session_id, sequence, acked_below, name, msgspec.Raw(args)))


def encode_query(name: str, args: bytes) -> bytes:
    """`args` are the encoded arguments (`Method.encode_args`)."""
    return _encoder.encode((name, msgspec.Raw(args)))


def open_owned_session(owner: str) -> bytes:
    """The command that opens a session for this user only."""
    return encode_command(NO_SESSION, 0, 0, OPEN_OWNED_SESSION, _encoder.encode((owner,)))


def decode_command(payload: bytes) -> CommandPayload:
    """Raises `InvalidArgument`."""
    try:
        return _commands.decode(payload)
    except UNREADABLE as exc:
        raise InvalidArgument(f"a command that can't be read: {exc}") from exc


def check_depth(name: str, payload: bytes) -> None:
    """Raises `InvalidArgument` for a command, called `name`, that some interpreter could not read."""
    if is_nested_deeper(payload, NESTED_MAX):
        raise InvalidArgument(
            f"{name}: its arguments have values nested deeper than {NESTED_MAX}, which not every node could read: send "
            "them in pieces, or encoded, as bytes"
        )


def decode_query(payload: bytes) -> QueryPayload:
    """Raises `InvalidArgument`."""
    try:
        return _queries.decode(payload)
    except UNREADABLE as exc:
        raise InvalidArgument(f"a query that can't be read: {exc}") from exc
