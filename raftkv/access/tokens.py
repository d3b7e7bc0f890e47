"""Tokens: what their holders show, and what is kept of it."""

from __future__ import annotations

import hashlib
import secrets

PREFIX = "rkv_"
"""By this, tools that look for secrets in files and logs find a token."""


def new_token() -> str:
    """A token of 256 random bits, as text."""
    return PREFIX + secrets.token_urlsafe(32)


def digest_of(token: str) -> bytes:
    """What is kept of a token. It is random, so nobody finds it by trying; a quick hash will do."""
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()
