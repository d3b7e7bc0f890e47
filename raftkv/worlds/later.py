"""The second version of the workload's machine: all that may change does, and upgrades lead there, one in pieces."""

from __future__ import annotations

import msgspec

from raftkv.machine import Table, command, query, upgrade
from raftkv.worlds import workload

MARKS_MAX = 4

PIECE = 2
"""Rows of one piece: few, so that commands come between."""


class Note(msgspec.Struct):
    """As the first version's, and the last few marks."""

    count: int = 0
    last: bytes = b""
    marks: list[bytes] = []


class Workload(workload.Workload):
    """A field, a table, a command and an optional argument more, and another way to keep an item."""

    version = 2

    notes = Table(bytes, Note)  # type: ignore[assignment]  # a field more
    sizes = Table(bytes, int, since=2)

    @command
    def note(self, key: bytes, item: bytes, mark: bytes = b"") -> int:
        """Keep the last item of many, from version 2 on backwards; returns how many there were."""
        note = self.notes.get(key, Note())
        marks = [*note.marks, mark][-MARKS_MAX:] if mark else note.marks
        # The marks of a caller without any: a node that kept them while version 1 is active would differ.
        marks = marks or [b"none"]
        self.notes[key] = Note(note.count + 1, item if self.version == 1 else item[::-1], marks)
        self.sizes[key] = len(item)
        return note.count + 1

    @command(since=2)
    def note_again(self, key: bytes) -> int:
        """Keep the last item once more."""
        note = self.notes.get(key, Note())
        note.count += 1
        self.notes[key] = note
        return note.count

    @query(since=2)
    def size(self, key: bytes) -> int:
        """How large the last item was."""
        return self.sizes.get(key, 0)

    @upgrade(to=2)
    def turn(self) -> None:
        """Keep backwards what is kept."""
        for key, note in list(self.notes.items()):
            self.notes[key] = Note(note.count, note.last[::-1], note.marks)

    @upgrade(to=2)
    def measure(self, after: bytes | None) -> bytes | None:
        """The sizes of all values, a few in each piece."""
        found = list(self.records.range(after, limit=PIECE + 1))
        for key, record in found[:PIECE]:
            self.sizes[key] = len(record.value)
        return found[PIECE][0] if len(found) > PIECE else None
