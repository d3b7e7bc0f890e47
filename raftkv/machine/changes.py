"""`Change`: what an application reads of a history, in the types of its tables and events; and how it asks for it."""

from __future__ import annotations

from typing import Any, Generic, TypeAlias, TypeVar

import msgspec

from raftkv.errors import InvalidArgument
from raftkv.history import Asked, Cursor, Recorded
from raftkv.machine.events import Events
from raftkv.machine.keys import prefix_end
from raftkv.machine.tables import Set, Table
from raftkv.model import Index

K = TypeVar("K")
V = TypeVar("V")

Source: TypeAlias = Table[Any, Any] | Set[Any] | Events[Any]
"""What one may watch."""


class Change(msgspec.Struct, Generic[K, V], frozen=True, kw_only=True):
    """One change of a row, or an event."""

    cursor: Cursor
    """To go on behind it."""
    time_ms: int
    """The log's time, in milliseconds since the epoch."""
    key: K
    """None for an event."""
    value: V | None
    """The new value, or the event; None for a row that is gone, and for keys of a set."""
    old: V | None = None
    """The value before, if it was asked for; None: there was no row."""
    deleted: bool = False
    """Whether the row is gone."""

    @property
    def index(self) -> Index:
        """The log index of the command that made it."""
        return self.cursor.index


def find_source(machine: Any, asked: object) -> Source:
    """The table, set or stream of events of this name, or the one that a class declares so: `Inventory.stock`.

    Of one of a base class that `machine` has declared anew it is the one of `machine`. Raises `InvalidArgument`.
    """
    name = asked if isinstance(asked, str) else getattr(asked, "name", None)
    found = machine.parts.get(name)
    if isinstance(found, Table | Set | Events) and (
        found is asked
        or isinstance(asked, str)
        or any(asked is each for base in machine.__mro__ for each in vars(base).values())
    ):
        return found
    known = [name for name, part in machine.parts.items() if isinstance(part, Events) or getattr(part, "watch", False)]
    raise InvalidArgument(
        f"{name or repr(asked)} is nothing of {machine.__name__} that can be watched: give a table, set or stream of "
        f"events as the class has it, like {machine.__name__}.stock; it has {', '.join(known) or 'none'}"
    )


def read_change(source: Source, recorded: Recorded) -> Change[Any, Any]:
    """A change of `source` in its types. Raises `StateCorruption` for one that it can't have made."""
    read, name = source.values.decode, source.name
    value, old = (None if data is None else read(data, name) for data in (recorded.value, recorded.old))
    return Change(
        cursor=recorded.cursor,
        time_ms=recorded.time_ms,
        key=None if isinstance(source, Events) else source.keys.decode(recorded.key),
        value=value,
        old=old,
        deleted=recorded.value is None,
    )


def asked(
    source: Source, after: Cursor, *, prefix: Any = None, start: Any = None, end: Any = None, old: bool = False
) -> Asked:
    """What asks for changes behind `after` of rows whose key begins with `prefix`, or with `start` ≤ key < `end`.

    Raises `InvalidArgument` for keys of another type, and for keys of events, which have none.
    """
    if prefix is None and start is None and end is None:
        return Asked(source.name, after, old=old)
    if isinstance(source, Events):
        raise InvalidArgument(f"events have no keys: watch all of {source.name}, and choose among them")
    if prefix is not None and not (start is None and end is None):
        raise InvalidArgument("watch either a prefix or a range of keys, not both")
    try:
        if prefix is not None:
            low = source.keys.encode_prefix(prefix)
            return Asked(source.name, after, low, prefix_end(low), old)
        low = b"" if start is None else source.keys.encode(start)
        return Asked(source.name, after, low, None if end is None else source.keys.encode(end), old)
    except (TypeError, ValueError) as exc:
        raise InvalidArgument(f"{source.name}: {exc}") from exc
