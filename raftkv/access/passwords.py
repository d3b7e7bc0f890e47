"""Passwords as they are kept: argon2id hashes, which take so long to try that nobody tries many.

Both functions take some tens of milliseconds of a core, and 19 MiB: too long for an event loop, so call them in a
thread, and few at once.
"""

from __future__ import annotations

import functools

from raftkv.errors import InvalidArgument
from raftkv.extras import needs

with needs("server", "a node with users"):
    import argon2

PASSWORD_MIN, PASSWORD_MAX = 8, 1_024
"""Characters. What is longer costs more to send than to hash, and is no password."""

_hasher = argon2.PasswordHasher(time_cost=2, memory_cost=19 * 1024, parallelism=1)
"""What OWASP asks for at least: 30 to 60 ms of a core, and so little memory that two at once are no burden to a small
machine. One lane, as another one would take a second core. A hash says how it was made, so more may be asked later."""


def check_password(password: str) -> None:
    """Raises `InvalidArgument` for what is too short or too long to be one; the text does not say what it is."""
    if not PASSWORD_MIN <= len(password) <= PASSWORD_MAX:
        raise InvalidArgument(f"a password of {len(password)} characters: must have {PASSWORD_MIN} to {PASSWORD_MAX}")


def hash_password(password: str) -> str:
    """What is kept of a password. Raises `InvalidArgument`, as `check_password` does."""
    check_password(password)
    return str(_hasher.hash(password))


def verify_password(kept: str, password: str) -> bool:
    """Whether it is the one of which this is kept. It takes as long when nothing is kept (`kept` is empty), so that
    nobody learns from the time who is a user."""
    if len(password) > PASSWORD_MAX:
        return False
    try:
        return bool(_hasher.verify(kept or _decoy(), password)) and bool(kept)
    except (argon2.exceptions.VerificationError, argon2.exceptions.InvalidHashError):
        return False


@functools.cache
def _decoy() -> str:
    return str(_hasher.hash("nobody's password"))
