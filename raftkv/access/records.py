"""How users, roles and tokens stand in the state: one key for each, and one for what holds for all."""

from __future__ import annotations

from typing import Any

import msgspec

from raftkv.access.model import Grant, Token, User
from raftkv.errors import UNREADABLE, StateCorruption

WHOLE = b""
_USER, _ROLE, _TOKEN = b"u", b"r", b"t"


class Whole(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """What holds for all of it."""

    is_on: bool = False
    generation: int = 0
    """How many changes there were."""


def user_place(name: str) -> bytes:
    """The key of a user."""
    return _USER + name.encode()


def role_place(name: str) -> bytes:
    """The key of a role."""
    return _ROLE + name.encode()


def token_place(digest: bytes) -> bytes:
    """The key of a token."""
    return _TOKEN + digest


class Records(msgspec.Struct):
    """All of it, as it is read back."""

    whole: Whole = Whole()
    users: dict[str, User] = {}
    roles: dict[str, tuple[Grant, ...]] = {}
    tokens: dict[bytes, Token] = {}

    def read(self, place: bytes, data: bytes) -> None:
        """Take in one of them. Raises `StateCorruption`."""
        kind, name = place[:1], place[1:]
        try:
            if place == WHOLE:
                self.whole = _decode(data, Whole)
            elif kind == _USER:
                self.users[name.decode()] = _decode(data, User)
            elif kind == _ROLE:
                self.roles[name.decode()] = _decode(data, tuple[Grant, ...])
            elif kind == _TOKEN:
                self.tokens[name] = _decode(data, Token)
            else:
                raise StateCorruption(f"among users and roles is a record of another kind: {place[:16]!r}")
        except UNREADABLE as exc:
            raise StateCorruption(f"the record {place[:80]!r} of users and roles can't be read: {exc}") from exc


_encoder = msgspec.msgpack.Encoder()


def encode_record(record: Whole | User | Token | tuple[Grant, ...]) -> bytes:
    """The value at its key."""
    return _encoder.encode(record)


def _decode(data: bytes, kind: Any) -> Any:
    return msgspec.msgpack.decode(data, type=kind)
