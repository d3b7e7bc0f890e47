"""What one asks of the history of a state machine's changes, and gets: the same words on a node and on its clients."""

from __future__ import annotations

import re

import msgspec

from raftkv.errors import InvalidArgument, RaftKVError
from raftkv.model import Index

INDEX_MAX, POSITION_MAX = 2**63 - 1, 2**32 - 1
LINEAGE_CHARS = 12
_TEXT = re.compile(r"([0-9]{1,19})(?:\.([0-9]{1,10}))?(?:@([0-9a-f]{12}))?")


def lineage_of(cluster_id: str) -> str:
    """What cursors of a cluster say of it: a part of its id that no two of them have in common."""
    return cluster_id[:LINEAGE_CHARS]


class Cursor(msgspec.Struct, frozen=True, order=True, array_like=True, gc=False):
    """A place in the history of changes: behind one change, or (`Cursor.behind`) behind all of an entry's.

    As a string it is `12.3@0f1e2d3c4b5a`, or `12@…` for what is behind all of entry 12; `Cursor.parse` reads it again.
    """

    index: Index
    position: int
    """Among the changes of the entry, from 0 on."""
    lineage: str = ""
    """Which cluster's it is, as clients note it: one that is restored from a backup or recovered uses indexes again,
    for other entries. Empty where nobody has said it."""

    @classmethod
    def behind(cls, index: Index, lineage: str = "") -> Cursor:
        """Behind all that the entry `index` and those before it have changed."""
        return cls(index, POSITION_MAX, lineage)

    @classmethod
    def parse(cls, text: str) -> Cursor:
        """The cursor that is written so. Raises `InvalidArgument`."""
        found = _TEXT.fullmatch(text)
        index, position = (int(found[1]), int(found[2] or POSITION_MAX)) if found else (INDEX_MAX + 1, 0)
        if index > INDEX_MAX or position > POSITION_MAX:
            raise InvalidArgument(f"{text!r} is no cursor: write it as `str(cursor)` does, like 12.3")
        return cls(index, position, (found[3] or "") if found else "")

    def __str__(self) -> str:
        place = f"{self.index}" if self.position == POSITION_MAX else f"{self.index}.{self.position}"
        return f"{place}@{self.lineage}" if self.lineage else place


BEGINNING = Cursor(0, 0)
"""Before every change."""


class Compacted(RaftKVError):
    """The history does not go back to where one wants to go on: changes would be missed.

    Read the table, and go on behind the index of what was read, or miss them and go on behind `oldest`.
    """

    def __init__(self, oldest: Cursor) -> None:
        super().__init__(
            f"the history of changes is kept from behind {oldest} on: read the table as it is, and go on behind the "
            "index at which it was read"
        )
        self.oldest = oldest
        """What changed behind it is still there."""


class OtherLineage(RaftKVError):
    """The cursor is of another cluster than this one, and not of what both have in common.

    This one was restored from a backup or recovered from a survivor, which did not have that entry, or not for sure; it
    has used its index again, for another one. Read the table, and go on behind the cursor of what was read.
    """

    def __init__(self, cursor: Cursor, common: Index | None) -> None:
        """`common` is the last entry that both clusters certainly have; None when they may have nothing in common."""
        shared = (
            "and nothing is known of what they have in common"
            if common is None
            else f"and up to entry {common} they are the same: this one was restored or recovered from there"
        )
        super().__init__(
            f"the cursor {cursor} is of another cluster than this one, {shared}. What was changed may be undone here: "
            "read the table as it is, and go on behind the cursor of that"
        )
        self.cursor = cursor
        self.common = common


class Recorded(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One change as a node keeps it: of a row, or an event."""

    cursor: Cursor
    time_ms: int
    """The log's time of the entry, in milliseconds since the epoch."""
    key: bytes
    """The row's, as its table encodes keys; empty for an event."""
    value: bytes | None
    """The new value, encoded, or the event; None: the row is gone."""
    old: bytes | None = None
    """The value before, if it was asked for; None: there was no row."""


class Asked(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What one wants to know of the changes of one table, set, or stream of events."""

    source: str
    """Its name."""
    after: Cursor = BEGINNING
    start: bytes = b""
    """Only of rows with `start` ≤ key < `end`, as the table encodes keys; None: to the last."""
    end: bytes | None = None
    old: bool = False
    """Whether the values before are wanted as well; the table must keep them."""

    def wants(self, key: bytes) -> bool:
        """Whether a row with this encoded key is among those asked for."""
        return self.start <= key and (self.end is None or key < self.end)


class Found(msgspec.Struct, frozen=True, array_like=True):
    """Changes in the order in which they were made. There may be more, or none as there was too much to look at."""

    changes: list[Recorded]
    after: Cursor
    """Where to go on. With all read it is behind the last applied entry, so that a watcher of what seldom changes does
    not fall behind what the history keeps."""
