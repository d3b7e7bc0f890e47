"""Users, roles and tokens for tests of the listener, and how each of them signs in."""

from __future__ import annotations

import argon2

from raftkv.access import (
    ROOT,
    Access,
    AccessChange,
    AddRole,
    AddToken,
    AddUser,
    GiveRole,
    Grant,
    GrantRight,
    RemoveToken,
    TurnOn,
    digest_of,
)
from raftkv.wire import SignIn

NOW_MS = 1_600_000_000_000

_hasher = argon2.PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)
"""Quick to try, which is all that these tests want of it."""

GRANTS = {
    "app": [Grant("command", "put"), Grant("query", "get")],
    "reader": [Grant("read", b"")],
    "tenant": [Grant("read", b"ten/"), Grant("write", b"ten/")],
    "operator": [Grant("admin", "status"), Grant("admin", "snap*")],
}
"""By role; for each there is a user of the same name."""

USERS = {"boss": ROOT, **{role: role for role in GRANTS}, "idler": None}


def hashed(password: str) -> str:
    """What is kept of a password."""
    return _hasher.hash(password)


def password_of(user: str) -> str:
    """Of one of `USERS`."""
    return f"the password of {user}"


def signs_in(user: str) -> SignIn:
    """By a password."""
    return SignIn(user, password_of(user))


def shows(token: str) -> SignIn:
    """By a token."""
    return SignIn(token=token)


CALLERS: dict[str, SignIn | None] = {
    **{user: signs_in(user) for user in USERS},
    "nobody": None,
    "stranger": shows("a token that nobody was given"),
    "outdated": shows("a token of boss that is over"),
    "revoked": shows("a token of boss that was taken back"),
    "mistyped": SignIn("boss", "not the password of boss"),
    "unknown": SignIn("ghost", "whatever it may be"),
}
"""Who connects, and what they show."""

NOBODIES = ["nobody", "stranger", "outdated", "revoked", "mistyped", "unknown"]
"""Those of them who are nobody's users, or do not show it rightly."""


def make(access: Access, *changes: AccessChange) -> None:
    """Make changes; all must be possible."""
    for change in changes:
        access.apply(change, NOW_MS)


def peopled(*, on: bool = True) -> Access:
    """All of the above."""
    access = Access()
    for role, grants in GRANTS.items():
        make(access, AddRole(role), *(GrantRight(role, grant) for grant in grants))
    for user, role in USERS.items():
        make(access, AddUser(user, hashed(password_of(user)), (), (f"{user}.example",)))
        if role is not None:
            make(access, GiveRole(user, role))
    over, revoked = CALLERS["outdated"], CALLERS["revoked"]
    assert over is not None and revoked is not None
    access.apply(AddToken("boss", digest_of(over.token), 1_000), NOW_MS - 10_000)
    make(access, AddToken("boss", digest_of(revoked.token), None))
    make(access, RemoveToken("boss", digest_of(revoked.token).hex()))
    make(access, AddToken("tenant", digest_of("the token of tenant"), None))
    make(access, AddToken("tenant", digest_of("for a minute"), 60_000))
    if on:
        make(access, TurnOn())
    return access
