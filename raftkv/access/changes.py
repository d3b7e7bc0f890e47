"""The changes of users, roles and tokens, as they stand in the log: no secret is in them, only hashes."""

from __future__ import annotations

from typing import TypeAlias, assert_never

import msgspec

from raftkv.access.model import (
    PASSWORD_HASH_MAX,
    ROLES_OF_ONE_MAX,
    ROOT,
    Grant,
    check_certificates,
    check_grant,
    check_name,
)
from raftkv.errors import UNREADABLE, InvalidArgument

DIGEST_BYTES = 32


class _Change(msgspec.Struct, frozen=True, array_like=True, tag=True, forbid_unknown_fields=True):
    """A change of a later raftkv has another name or more fields, and is refused whole."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(_shown(self))})"


def _shown(change: msgspec.Struct) -> list[str]:
    hidden = ("password", "digest")
    return [f"{name}={getattr(change, name)!r}" for name in change.__struct_fields__ if name not in hidden]


class AddUser(_Change, frozen=True):
    """A new user. `password` is a hash, or empty."""

    user: str
    password: str = ""
    roles: tuple[str, ...] = ()
    certificates: tuple[str, ...] = ()


class RemoveUser(_Change, frozen=True):
    """A user goes, with all their tokens."""

    user: str


class SetPassword(_Change, frozen=True):
    """`password` is a hash, or empty: then one can't sign in by a password any more."""

    user: str
    password: str


class SetCertificates(_Change, frozen=True):
    """From now on these names of certificates are the user's."""

    user: str
    certificates: tuple[str, ...]


class AddRole(_Change, frozen=True):
    """A new role, without grants."""

    role: str


class RemoveRole(_Change, frozen=True):
    """A role goes that no user has."""

    role: str


class GrantRight(_Change, frozen=True):
    """A role gets a grant; nothing happens when it has it."""

    role: str
    grant: Grant


class RevokeRight(_Change, frozen=True):
    """A role loses a grant that it has."""

    role: str
    grant: Grant


class GiveRole(_Change, frozen=True):
    """A user gets a role; nothing happens when they have it."""

    user: str
    role: str


class TakeRole(_Change, frozen=True):
    """A user loses a role that they have."""

    user: str
    role: str


class AddToken(_Change, frozen=True):
    """A new token, by the SHA-256 of its secret; it lasts for so long from the entry's time on, or (None) for good."""

    user: str
    digest: bytes
    ttl_ms: int | None


class RemoveToken(_Change, frozen=True):
    """The user's token whose SHA-256 begins with this hexadecimal text goes; all of the user's, if it is empty."""

    user: str
    begins: str


class TurnOn(_Change, frozen=True):
    """From now on nobody does what no grant allows."""


class TurnOff(_Change, frozen=True):
    """From now on everybody may do everything; users and roles stay."""


AccessChange: TypeAlias = (
    AddUser
    | RemoveUser
    | SetPassword
    | SetCertificates
    | AddRole
    | RemoveRole
    | GrantRight
    | RevokeRight
    | GiveRole
    | TakeRole
    | AddToken
    | RemoveToken
    | TurnOn
    | TurnOff
)

_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[AccessChange] = msgspec.msgpack.Decoder(AccessChange)


def encode_access_change(change: AccessChange) -> bytes:
    """As it stands in the log."""
    return _encoder.encode(change)


def decode_access_change(data: bytes | msgspec.Raw) -> AccessChange:
    """Raises `InvalidArgument`, also for a change that only a later raftkv knows."""
    try:
        return _decoder.decode(data)
    except UNREADABLE as exc:
        raise InvalidArgument(f"a change of users and roles that can't be read: {exc}") from exc


def check_change(change: AccessChange) -> None:
    """Raises `InvalidArgument` for names, patterns and numbers that can't be, whatever the state is."""
    for field in change.__struct_fields__:
        if field in ("user", "role"):
            check_name(field, getattr(change, field))
    match change:
        case AddUser():
            check_certificates(change.certificates)
            _check_hash(change.password)
            if len(change.roles) > ROLES_OF_ONE_MAX:
                raise InvalidArgument(f"{len(change.roles)} roles: a user may have at most {ROLES_OF_ONE_MAX}")
            for role in change.roles:
                check_name("role", role)
        case SetPassword():
            _check_hash(change.password)
        case SetCertificates():
            check_certificates(change.certificates)
        case AddRole() | RemoveRole() | GrantRight() | RevokeRight() if change.role == ROOT:
            raise InvalidArgument(f"the role {ROOT} is built in, and may do everything")
        case GrantRight() | RevokeRight():
            check_grant(change.grant)
        case AddToken():
            if len(change.digest) != DIGEST_BYTES:
                raise InvalidArgument(f"a token's digest has {len(change.digest)} bytes: must be {DIGEST_BYTES}")
            if change.ttl_ms is not None and not 1 <= change.ttl_ms <= TTL_MS_MAX:
                raise InvalidArgument(f"a token can't last for {change.ttl_ms} ms: 1 to {TTL_MS_MAX}")
        case RemoveUser() | AddRole() | RemoveRole() | GiveRole() | TakeRole() | RemoveToken() | TurnOn() | TurnOff():
            pass
        case _:
            assert_never(change)


TTL_MS_MAX = 100 * 366 * 86_400_000
"""A hundred years."""


def _check_hash(password: str) -> None:
    if len(password) > PASSWORD_HASH_MAX or (password and not password.startswith("$argon2")):
        raise InvalidArgument("what was to be kept of a password is no argon2 hash")
