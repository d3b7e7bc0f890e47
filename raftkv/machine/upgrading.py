"""Applies the entries that make a version of the machine active, and runs the upgrades that lead there."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any, TypeGuard

import msgspec

from raftkv.config import MIB
from raftkv.entry import Entry
from raftkv.errors import UNREADABLE, MachineFailed, NodeStopped
from raftkv.machine.active import Active
from raftkv.machine.expiring import place_name
from raftkv.machine.forms import Forms
from raftkv.machine.outcome import read_rejection, rejected
from raftkv.machine.overlay import Ghost, Overlay
from raftkv.machine.schema import Schema
from raftkv.machine.upgrades import Upgrade
from raftkv.machine.versions import (
    BUILD,
    DROP,
    Activation,
    Founding,
    Kept,
    Step,
    VersionChange,
    decode_change,
    encode_kept,
    read_kept,
)
from raftkv.state import TABLE_PREFIX, VERSION_KEY

ROWS_AT_ONCE = 1_000
"""Rows that one entry deletes, of a table that the new version lacks, or adds to an index that it has."""

NOT_ITS_OWN = (OSError, MemoryError, SystemError)
"""Exceptions that a command need not raise on every node alike: they come from the machine, not from the command."""


class Upgrading:
    """The active version of one state machine on one store, and what changes it."""

    def __init__(self, machine: Any, overlay: Overlay, instance: Any, on_active: Callable[[Active], None]) -> None:
        """`on_active` is called with each version that becomes active, now with that of the store.

        Raises `WrongVersion` or `SchemaChanged` when the class can't run that, `StateCorruption`.
        """
        self._machine = machine
        self._overlay = overlay
        self._instance = instance
        self._on_active = on_active
        self.ghost = Ghost(writable=True)
        """Stands for the tables that the active version lacks."""
        self._activate(Active.of(machine, read_kept(overlay.store)))

    def _activate(self, active: Active) -> None:
        self.active = active
        self._overlay.limit(active.limits)
        vars(self._instance).update(
            version=active.version,
            _views={},
            _ghosts=dict.fromkeys(active.ghosts, self.ghost),
            _narrowers=active.narrowers,
            _indexes=active.indexes,
            _expiring=active.expiring,
            _forms=Forms(active),
        )
        self._on_active(active)

    def apply(self, entry: Entry) -> None:
        """Apply an entry that may change the version; what it changes in the state is in the overlay.

        Raises `WrongVersion` or `SchemaChanged` when this class can't run the version: then nothing is changed.
        """
        try:
            change: VersionChange = decode_change(entry.payload)
        except UNREADABLE as exc:
            raise MachineFailed(
                f"entry {entry.index} holds no change of the version that this raftkv knows ({exc}). It was not "
                "applied. Start this node with the version of raftkv that the others run"
            ) from exc
        kept = self.active.kept
        if kept is None:
            if not isinstance(change, Step):
                self._keep(self._founded(change))
        elif _has_effect(change, kept):  # else another leader was quicker
            if isinstance(change, Activation):
                self._raise_to(change, kept)
            else:
                self._step(change, kept)

    def tried(self, change: VersionChange) -> VersionChange:
        """`change` with what its upgrades raise on the state as it is; nothing of it stays."""
        kept, active = self.active.kept, self.active
        if kept is None or not _has_effect(change, kept):
            return change
        try:
            if isinstance(change, Activation):
                _, error = self._attempt(change, kept)
            else:
                _, error = self._run(kept, first=False)
        except MachineFailed as exc:
            error = str(exc)  # it might go well on others, but it is better to be on the safe side
        finally:
            self._overlay.undo()
            if self.active is not active:
                self._activate(active)
        return msgspec.structs.replace(change, failed=error)

    def _keep(self, kept: Kept) -> None:
        active = self.active.going_on(kept)
        self._overlay.own[VERSION_KEY] = encode_kept(kept)
        self._activate(active)

    def _founded(self, founding: Founding | Activation) -> Kept:
        """The first version that is kept; its indexes lack what was written before there was any."""
        kept = Kept(founding.version, founding.schema)
        tables = self.active.going_on(kept).indexes.values()
        indexes = [index for each in tables for index in each.kept if self._overlay.counts.get(index.table)]
        return msgspec.structs.replace(kept, left=tuple(BUILD + index.name for index in indexes))

    def _raise_to(self, change: Activation, before: Kept) -> None:
        if change.failed:
            self._keep(msgspec.structs.replace(before, failed_version=change.version, failed=change.failed))
            return
        kept, error = self._attempt(change, before)
        if error:
            raise _unlike_the_leader(error)
        self._keep(kept)
        self._instance._version_raised()

    def _attempt(self, change: Activation, before: Kept) -> tuple[Kept, str]:
        """Make a version active, and begin what leads there: all of it, or up to the first upgrade in pieces; returns
        what is to be kept then, and what was raised."""
        old = self.active
        upgrades = self._machine.upgrades_between(before.version, change.version)
        raised = Kept(change.version, change.schema)
        new = Active.of(self._machine, raised)
        had, has = _index_names(old.schema), _index_names(new.schema)
        built, gone = [name for name in has if name not in had], [name for name in had if name not in has]
        times_gone = [place_name(table) for table in old.schema.expiring if table not in new.schema.expiring]
        left = (
            *(each.name for each in upgrades),
            *(BUILD + name for name in built if name.rpartition(".")[0] in old.schema.parts),
            *(DROP + name for name in (*map(_as_table, self._gone(old, new)), *gone, *times_gone)),
        )
        raised = msgspec.structs.replace(raised, left=left)
        self._activate(new.going_on(raised))
        return self._run(raised, first=True)

    def _gone(self, old: Active, new: Active) -> list[str]:
        """The tables and values that `new` lacks: those of `old`, and those of versions between, which upgrades may
        fill on their way."""
        parts, own = old.schema.parts, self._machine.parts
        between = [name for name in own if name not in parts and old.version < own[name].span.since < new.version]
        return [name for name in (*parts, *between) if name not in new.schema.parts]

    def _step(self, step: Step, before: Kept) -> None:
        if step.failed:
            kept = msgspec.structs.replace(before, failed_version=before.version, failed=step.failed)
        else:
            kept, error = self._run(before, first=False)
            if error:
                raise _unlike_the_leader(error)
        self._keep(msgspec.structs.replace(kept, steps=before.steps + 1))

    def _run(self, kept: Kept, *, first: bool) -> tuple[Kept, str]:
        """Run upgrades until one is in pieces, or its next piece; returns what is left then, and what was raised."""
        kept = msgspec.structs.replace(kept, failed_version=0, failed="")
        while kept.left:
            name, *left = kept.left
            in_pieces = name.startswith((BUILD, DROP)) or self._machine.upgrades[name].in_pieces
            if first and in_pieces:
                return kept, ""  # each piece is an entry of its own
            cursor, error = self._piece(name, kept)
            if error:
                return kept, f"{name}: {error}"
            if cursor is not None:
                return msgspec.structs.replace(kept, cursor=cursor), ""
            kept = msgspec.structs.replace(kept, left=tuple(left), cursor=b"")
            first = True
        return kept, ""

    def _piece(self, name: str, kept: Kept) -> tuple[bytes | None, str]:
        """Run the next piece; returns where to go on, and what was raised."""
        if name.startswith(DROP):
            return self._drop(name[len(DROP) :]), ""
        return self._build(name[len(BUILD) :], kept.cursor) if name.startswith(BUILD) else self._call(name, kept)

    def _call(self, name: str, kept: Kept) -> tuple[bytes | None, str]:
        upgrade, overlay = self._machine.upgrades[name], self._overlay
        overlay.writable = True
        self._show(self._going(upgrade, kept))
        try:
            cursor = upgrade.run(self._instance, kept.cursor)
            self._instance._loans.check()
            return cursor, ""
        except NodeStopped:
            raise
        except NOT_ITS_OWN as exc:
            raise MachineFailed(
                f"the upgrade {name} ({upgrade.line}) failed with {type(exc).__name__}: {exc}, which need not happen "
                "on every node. It was not applied. Mend the cause, then start the node"
            ) from exc
        except KeyboardInterrupt:
            raise
        except BaseException as exc:  # noqa: BLE001 (every node raises it alike)
            return None, str(read_rejection(rejected(exc).payload))
        finally:
            overlay.writable = False
            self._instance._loans.clear()
            self._show(())
            self.ghost.clear()

    def _going(self, upgrade: Upgrade, kept: Kept) -> list[str]:
        """The tables and values that go with the active version, and that the upgrade may still read: they are of the
        version that it leads to, or of the one before."""
        going = [name[len(DROP) :].rstrip(".") for name in kept.left if name.startswith(DROP)]
        spans = {name: part.span for name, part in self._machine.parts.items() if name in going}
        return [name for name, span in spans.items() if span.has(upgrade.to - 1) or span.has(upgrade.to)]

    def _show(self, going: Collection[str]) -> None:
        """Let the instance see what is in these, though the active version lacks them."""
        ghosts = {name: self.ghost for name in self.active.ghosts if name not in going}
        vars(self._instance).update(_views={}, _ghosts=ghosts)

    def _build(self, name: str, cursor: bytes) -> tuple[bytes | None, str]:
        """Add the next rows to an index; commands keep those up that are in it already."""
        table, overlay, size = self._machine.parts[name.rpartition(".")[0]], self._overlay, 0
        index = next(each for each in self.active.indexes[table.name].kept if each.name == name)
        start = msgspec.msgpack.decode(cursor, type=bytes) + b"\0" if cursor else table.prefix
        for count, (place, data) in enumerate(overlay.scan(start, table.end, reverse=False), 1):
            try:
                found = index.place(table.values.decode(data, table.name), place[len(table.prefix) :])
            except TypeError as exc:
                return None, str(exc)
            overlay.own[found] = b""
            size += len(place) + len(data)
            if count == ROWS_AT_ONCE or size > MIB:
                return msgspec.msgpack.encode(place), ""
        return None, ""

    def _drop(self, name: str) -> bytes | None:
        """Delete the next rows of a table or index that the class does not have any more; None when that is done."""
        overlay, size = self._overlay, 0
        if name.endswith("."):
            name = name[:-1]
            prefix = TABLE_PREFIX + name.encode()
        else:
            prefix = TABLE_PREFIX + "\2".join(name.rsplit(".", 1)).encode()
        for count, (key, value) in enumerate(overlay.scan(prefix + b"\0", prefix + b"\1", reverse=False), 1):
            overlay.own[key] = None
            if name in overlay.counts:
                overlay.count_row(name, -1)
            size += len(key) + len(value)
            if count == ROWS_AT_ONCE or size > MIB:
                return msgspec.msgpack.encode(key)
        return None


def _as_table(name: str) -> str:
    """A table as `Kept.left` names it when it goes: its name may be that of an index otherwise."""
    return f"{name}." if "." in name else name


def _index_names(schema: Schema) -> list[str]:
    return [f"{table}.{field}" for table, fields in schema.indexes.items() for field in fields]


def _has_effect(change: VersionChange, kept: Kept) -> TypeGuard[Activation | Step]:
    match change:
        case Activation():
            return change.version > kept.version and not kept.left
        case Step():
            return bool(kept.left) and (change.version, change.number) == (kept.version, kept.steps)
        case Founding():
            return False


def _unlike_the_leader(error: str) -> MachineFailed:
    return MachineFailed(
        f"the upgrade {error}: it did not raise this on the leader that tried it before. It was not applied. Start "
        "this node with the version of the application that the others run; if it stops every node, start all of them "
        "with a mended class"
    )
