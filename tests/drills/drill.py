"""What a drill is: the same trouble for both systems, and each system's way out of it."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from tests.drills.etcds import EtcdNodes
from tests.drills.ours import OurNodes


def _possible() -> str | None:
    """Most drills can be done wherever there are nodes."""
    return None


class Drill(msgspec.Struct, frozen=True):
    """A function for each system makes the trouble, calls `trouble`, types what ends it, and calls `relief`."""

    name: str
    title: str
    """What has happened, or what is wanted, as the table says it."""
    ours: Callable[[OurNodes], None]
    etcds: Callable[[EtcdNodes], None] | None
    """None where etcd has no way, which `note` then says."""
    note: str = ""
    """What must be known to compare the two."""
    missing: Callable[[], str | None] = _possible
    """Why it can't be done here; None when it can."""
