"""How much a command may write: limits of the machine's class, as they decide outcomes, alike on all nodes."""

from __future__ import annotations

from typing import Annotated

import msgspec

from raftkv.config import KIB, MIB
from raftkv.machine.rejection import Rejection


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """What a state machine's commands may write: `class Inventory(StateMachine, limits=Limits(value_bytes=4 * MIB))`.

    They are part of what a command does: nodes with other limits would reject other commands, and differ. So they
    stand in the class and not among a node's settings, and change as the code of a command changes.
    """

    key_bytes: Annotated[int, msgspec.Meta(ge=1, le=64 * KIB)] = 4 * KIB
    """Of one encoded key: RocksDB compares and keeps keys whole, in memory too."""
    value_bytes: Annotated[int, msgspec.Meta(ge=1, le=64 * MIB)] = MIB
    """Of one encoded value: it is written and read whole, and waits in memory with others."""
    change_bytes: Annotated[int, msgspec.Meta(ge=1, le=256 * MIB)] = 16 * MIB
    """Of all keys and values that one command sets or deletes: they are in memory until its batch is written."""
    timers: Annotated[int, msgspec.Meta(ge=0, le=100_000_000)] = 1_000_000
    """Scheduled commands that wait at the same time, about 100 bytes each: so a forgotten `cancel` ends in an error
    and not in a full disk."""


class TooLarge(Rejection):
    """A command would have written more than its machine's `Limits` allow; it has no effect."""

    what: str
    size: int
    limit: int

    def __str__(self) -> str:
        return f"{self.what} would have {self.size} bytes: must be at most {self.limit}"


class TooManyRows(Rejection):
    """A table has more rows than one command deletes; it has no effect."""

    table: str
    rows: int
    limit: int

    def __str__(self) -> str:
        return (
            f"{self.table} has {self.rows} rows, and a command clears at most {self.limit}: clear it in pieces, by "
            f"`clear(limit={self.limit})` in one command after the other until it is empty"
        )
