"""Users and roles for tests, made change by change."""

from __future__ import annotations

import pytest

from raftkv.access import Access, AccessChange
from raftkv.errors import AccessRejected

HASH = "$argon2id$v=19$m=8,t=1,p=1$c2FsdHNhbHQ$hash"


class Kept:
    """An `Access` with the records that its changes give, as a store would have them."""

    def __init__(self) -> None:
        self.access = Access()
        self.records: dict[bytes, bytes] = {}
        self.now_ms = 1_000_000

    def do(self, *changes: AccessChange) -> Access:
        """Make changes; all must be possible."""
        for change in changes:
            for place, data in self.access.apply(change, self.now_ms).items():
                if data is None:
                    del self.records[place]
                else:
                    self.records[place] = data
        return self.access

    def refused(self, change: AccessChange) -> str:
        """Try a change that is not possible; returns why it is not. Nothing may be otherwise afterwards."""
        before = all_of(self.access)
        with pytest.raises(AccessRejected) as caught:
            self.access.apply(change, self.now_ms)
        assert all_of(self.access) == before
        return caught.value.error_type

    def reread(self) -> Access:
        """What another process makes of the records."""
        return Access.read(sorted(self.records.items()))


def all_of(access: Access) -> tuple[object, ...]:
    """Everything that is kept."""
    return dict(access.users), dict(access.roles), dict(access.tokens), access.is_on, access.generation


def digest(number: int) -> bytes:
    """Of a token."""
    return number.to_bytes(32, "big")
