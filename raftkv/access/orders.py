"""What operators order about users and roles, and are shown of them. Orders hold passwords in clear; the log never."""

from __future__ import annotations

from typing import Literal, TypeAlias

import msgspec

from raftkv.access.access import Access
from raftkv.access.changes import (
    AddRole,
    GiveRole,
    GrantRight,
    RemoveRole,
    RemoveToken,
    RemoveUser,
    RevokeRight,
    SetCertificates,
    TakeRole,
    TurnOff,
)
from raftkv.access.model import Grant, Token


class _Secret(msgspec.Struct, frozen=True, array_like=True, tag=True, forbid_unknown_fields=True):
    """An order that holds a secret, which no traceback and no log may show."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}(…)"


class NewUser(_Secret, frozen=True):
    """Add a user; without a password, they need a certificate or a token."""

    user: str
    password: str = ""
    roles: tuple[str, ...] = ()
    certificates: tuple[str, ...] = ()


class NewPassword(_Secret, frozen=True):
    """Change a password; an empty one: from now on the user can't sign in by one."""

    user: str
    password: str


class NewToken(_Secret, frozen=True):
    """Make a token, which lasts for so long, or (None) for good. The answer is the token; nobody can read it later."""

    user: str
    ttl_ms: int | None = None


class Enable(_Secret, frozen=True):
    """Let rights count from now on. Whoever orders it has to show that they have the role `ROOT`, now: by how they have
    signed in, or by a password or token in the order."""

    user: str = ""
    password: str = ""
    token: str = ""


AccessOrder: TypeAlias = (
    NewUser
    | NewPassword
    | NewToken
    | Enable
    | RemoveUser
    | SetCertificates
    | AddRole
    | RemoveRole
    | GrantRight
    | RevokeRight
    | GiveRole
    | TakeRole
    | RemoveToken
    | TurnOff
)

PAGE_BYTES = 1 << 20
"""About how much of a list is shown at once."""


class AccessAsk(msgspec.Struct, frozen=True, array_like=True):
    """What to show: what comes behind this name in a list."""

    what: Literal["users", "roles"] = "users"
    after: str = ""


class ShownToken(msgspec.Struct, frozen=True):
    """A token: how its SHA-256 begins, in hexadecimal, and when it is over."""

    begins: str
    expires_ms: int | None


class ShownUser(msgspec.Struct, frozen=True):
    """A user, without any secret, nor a hash of one."""

    user: str
    roles: tuple[str, ...]
    certificates: tuple[str, ...]
    has_password: bool
    tokens: tuple[ShownToken, ...]


class ShownRole(msgspec.Struct, frozen=True):
    """A role and its grants."""

    role: str
    grants: tuple[Grant, ...]


class AccessShown(msgspec.Struct, frozen=True):
    """Some users or roles, in the order of their names, and what holds for all."""

    is_on: bool
    users: int
    roles: int
    tokens: int
    some_users: list[ShownUser] = []
    some_roles: list[ShownRole] = []
    has_more: bool = False


TOKEN_BEGINS = 12
"""Hexadecimal digits that are shown of a token's hash: enough to tell ten thousand from each other."""


def shown(access: Access, ask: AccessAsk) -> AccessShown:
    """What is there, a page of it: at least one, and about `PAGE_BYTES` at most."""
    rows: list[ShownUser] = []
    roles: list[ShownRole] = []
    size, has_more = 0, False
    tokens: dict[str, list[tuple[bytes, Token]]] = {}
    for digest, token in access.tokens.items():
        tokens.setdefault(token.user, []).append((digest, token))
    for name in sorted(access.users if ask.what == "users" else access.roles):
        if name <= ask.after:
            continue
        if size >= PAGE_BYTES:
            has_more = True
            break
        if ask.what == "users":
            user = access.users[name]
            theirs = tuple(ShownToken(d.hex()[:TOKEN_BEGINS], t.expires_ms) for d, t in sorted(tokens.get(name, ())))
            row = ShownUser(name, user.roles, user.certificates, bool(user.password), theirs)
            rows.append(row)
            size += len(msgspec.msgpack.encode(row))
        else:
            role = ShownRole(name, access.roles[name])
            roles.append(role)
            size += len(msgspec.msgpack.encode(role))
    return AccessShown(access.is_on, len(access.users), len(access.roles), len(access.tokens), rows, roles, has_more)
