"""What is kept of users: how they sign in, which roles they have, and what each role grants."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import msgspec

from raftkv.errors import InvalidArgument

ROOT = "root"
"""The role that may do everything. It is built in; users get it as they get any other."""

USERS_MAX = 10_000
TOKENS_MAX = 10_000
TOKENS_OF_ONE_MAX = 100
"""Of one user, so that an entry which removes a user changes few rows."""
ROLES_MAX = 1_000
ROLES_OF_ONE_MAX = 100
GRANTS_MAX = 20_000
"""Of all roles together: 20 MiB, if all patterns are as long as they may be."""
GRANTS_OF_ONE_MAX = 1_000
CERTIFICATES_MAX = 16
"""Names of certificates that one user may show."""
NAME_MAX = 64
CERTIFICATE_NAME_MAX = 256
PATTERN_BYTES_MAX = 1_024
PASSWORD_HASH_MAX = 512

VERBS = (
    "access",
    "backup",
    "clock",
    "configure",
    "member",
    "metrics",
    "snapshot",
    "status",
    "transfer",
    "upgrade",
)
"""The orders that the right `admin` is for."""

What: TypeAlias = Literal["command", "query", "read", "write", "admin"]

if TYPE_CHECKING:
    Pattern: TypeAlias = str | bytes
else:
    Pattern = Any  # msgspec has no union of these two, though MessagePack tells them apart; `Grant` looks itself

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]*", re.ASCII)
_NAME_PATTERN = re.compile(r"[A-Za-z0-9_.*-]+", re.ASCII)


class Grant(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """One right: to call commands or queries, to read or write keys, or to give orders."""

    what: What
    pattern: Pattern
    """Of `command`, `query` and `admin`: a name, in which `*` stands for any characters. Of `read` and `write`, which
    are for the key-value machine: what keys begin with."""

    def __post_init__(self) -> None:
        if not isinstance(self.pattern, str | bytes):
            raise TypeError("a pattern must be text, or bytes")

    def order(self) -> tuple[str, bytes]:
        """By this, roles keep their grants sorted."""
        return self.what, self.pattern if isinstance(self.pattern, bytes) else self.pattern.encode()

    def describe(self) -> str:
        """`command shop.*`, `write 'orders/'`."""
        pattern = self.pattern if isinstance(self.pattern, str) else repr(self.pattern)[1:]
        return f"{self.what} {pattern}"


class User(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Somebody who signs in by a password, a certificate, or one of their tokens."""

    password: str = ""
    """Its argon2 hash; empty for a user who can't sign in by one."""
    roles: tuple[str, ...] = ()
    """Sorted."""
    certificates: tuple[str, ...] = ()
    """The names of certificates by which one is this user; sorted. No two users have one in common."""

    def __repr__(self) -> str:
        password = "set" if self.password else "none"
        return f"User(password {password}, roles={self.roles}, certificates={self.certificates})"


class Token(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """What is kept of a token, under the SHA-256 of what its holder shows."""

    user: str
    expires_ms: int | None = None
    """From when on it is over, in milliseconds since the epoch; None: never."""

    def is_over(self, now_ms: int) -> bool:
        """Whether nobody gets in by it any more."""
        return self.expires_ms is not None and now_ms >= self.expires_ms


def check_name(what: str, name: str) -> None:
    """Raises `InvalidArgument` for what can't be the name of a user or role (`what`)."""
    if len(name) > NAME_MAX or not _NAME.fullmatch(name):
        raise InvalidArgument(
            f"{what} {name[: NAME_MAX + 1]!r}: a name has 1 to {NAME_MAX} letters, digits and . _ @ -, and begins with "
            "a letter or digit"
        )


def check_certificates(names: tuple[str, ...]) -> None:
    """Raises `InvalidArgument` for what can't be names of certificates, and for too many of them."""
    if len(names) > CERTIFICATES_MAX:
        raise InvalidArgument(f"{len(names)} certificates: a user may have at most {CERTIFICATES_MAX}")
    for name in names:
        if not 1 <= len(name) <= CERTIFICATE_NAME_MAX or not name.isprintable():
            raise InvalidArgument(f"a certificate's name has 1 to {CERTIFICATE_NAME_MAX} printable characters")


def check_grant(grant: Grant) -> None:
    """Raises `InvalidArgument` for a grant whose pattern is none of its kind."""
    pattern, are_keys = grant.pattern, grant.what in ("read", "write")
    if isinstance(pattern, bytes) is not are_keys:
        raise InvalidArgument(f"{grant.describe()}: must be {'a prefix in bytes' if are_keys else 'a name as text'}")
    if len(pattern) > PATTERN_BYTES_MAX:
        raise InvalidArgument(f"a pattern of {len(pattern)} bytes: must be at most {PATTERN_BYTES_MAX}")
    if isinstance(pattern, str) and not _NAME_PATTERN.fullmatch(pattern):
        raise InvalidArgument(f"{grant.what} {pattern!r}: a pattern has letters, digits, . _ - and * for any of them")
