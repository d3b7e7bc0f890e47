"""Passwords are kept as argon2 hashes, which are slow to try."""

from __future__ import annotations

import pytest

from raftkv.access.passwords import hash_password, verify_password
from raftkv.errors import InvalidArgument


def test_a_password_is_known_again_and_no_other_one_is() -> None:
    """Each hash has a salt of its own, and says how it was made."""
    first, second = hash_password("correct horse"), hash_password("correct horse")
    assert first != second and first.startswith("$argon2id$v=19$m=19456,t=2,p=1$")
    assert verify_password(first, "correct horse") and verify_password(second, "correct horse")
    assert not verify_password(first, "correct horsf") and not verify_password(first, "")


def test_nothing_is_a_password_where_none_is_kept() -> None:
    """Also not the one that stands in for it, so that it takes as long."""
    for tried in ("", "nobody's password", "x" * 2_000):
        assert not verify_password("", tried)
    assert not verify_password("$argon2id$nonsense", "correct horse")


@pytest.mark.parametrize("password", ["", "1234567", "x" * 1_025])
def test_a_password_that_is_too_short_or_long_is_refused(password: str) -> None:
    """Its text is not in what is said of it."""
    with pytest.raises(InvalidArgument) as caught:
        hash_password(password)
    assert "8 to 1024" in str(caught.value) and (not password or password not in str(caught.value))
