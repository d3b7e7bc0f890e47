"""Whether what is derived from the rows of tables, indexes and counts, is what the rows say, and so of the history."""

from __future__ import annotations

from collections.abc import Iterator

from raftkv.machine.active import Active
from raftkv.machine.counts import read_counts
from raftkv.machine.expiring import Expiry
from raftkv.machine.indexes import NO_INDEXES
from raftkv.machine.recorder import out_of_order
from raftkv.machine.tables import Set, Table
from raftkv.state import Store


def out_of_step(active: Active, store: Store) -> Iterator[str]:
    """Sentences on what is not as the rows say. Reads all rows."""
    counts = read_counts(store)
    for name in active.schema.parts:
        table: Table[object, object] | Set[object] | None = active.machine.parts.get(name)
        if not isinstance(table, Table | Set):
            continue
        rows = list(store.scan(table.prefix, table.end))
        if counts is not None and counts.get(name, 0) != len(rows):
            yield f"the table {name} has {len(rows)} rows, and {counts.get(name, 0)} are counted"
        indexes = active.indexes.get(name, NO_INDEXES)
        for index in indexes.kept:
            found = {place for place, _ in store.scan(index.start, index.end)}
            due = {
                index.place(table.values.decode(data, name), place[len(table.prefix) :]): place for place, data in rows
            }
            for place in sorted(found - due.keys()):
                yield f"the index {index.name} has a row at {place!r} that the table does not have so"
            for place in sorted(due.keys() - found) if index in indexes.built else ():
                yield f"the index {index.name} lacks the row {table.keys.decode(due[place][len(table.prefix) :])!r}"
        if name in active.expiring:
            yield from _out_of_time(active.expiring[name], {place[len(table.prefix) :] for place, _ in rows}, store)

    yield from out_of_order(store)


def _out_of_time(expiry: Expiry, keys: set[bytes], store: Store) -> Iterator[str]:
    """What is not right of the times of one table's rows."""
    first_ms = expiry.first_ms(store)
    by_key = {
        (int.from_bytes(data, "big"), place[len(expiry.ends) :])
        for place, data in store.scan(expiry.ends, expiry.times)
    }
    in_order = {(ends_ms, key): old for ends_ms, key, old in expiry.in_order(store, 0)}
    for _, key in sorted(by_key):
        if key not in keys:
            yield f"the table {expiry.table} has a time for the row {key!r}, which is not there"
    for ends_ms, key in sorted(by_key ^ {each for each, old in in_order.items() if not old}):
        yield f"the table {expiry.table} has the time {ends_ms} of the row {key!r} in one place only"
    if in_order and (first_ms is None or first_ms > min(in_order)[0]):
        yield f"the table {expiry.table} is not looked at before {first_ms}, and a row is over at {min(in_order)[0]}"
