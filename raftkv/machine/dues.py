"""Does what is due: an entry that says how much runs scheduled commands, and removes rows of expiring tables."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import msgspec
import xxhash

from raftkv.entry import Entry
from raftkv.machine.active import Active
from raftkv.machine.expiring import Expiry, encode_ms
from raftkv.machine.outcome import Outcome, OutcomeKind, error_type_of, rejected
from raftkv.machine.overlay import Absent, Overlay
from raftkv.machine.payloads import NO_SESSION, CommandPayload
from raftkv.machine.recorder import Recorder
from raftkv.machine.timers import RECORD_KEY, Due, Fired, Timers, decode_due, read_record, record_in

_encoder = msgspec.msgpack.Encoder()

Run: TypeAlias = Callable[[CommandPayload, Entry, int], Outcome]
"""Runs a command for an entry; the number tells its dice from those of others that run for the same entry."""


class Waiting:
    """What waits in the store for its time. Reads nothing to say when the first of it is due."""

    def __init__(self, overlay: Overlay) -> None:
        self._overlay = overlay
        self._record = record_in(overlay.store)
        self._expiring: Mapping[str, Expiry] = {}
        self._first_ms: dict[str, int | None] = {}

    def activate(self, active: Active) -> None:
        """A version has become active."""
        self._expiring = active.expiring
        self._first_ms = {name: each.first_ms(self._overlay) for name, each in active.expiring.items()}

    def written(self, batch: Mapping[bytes, bytes | None]) -> None:
        """These changes are in the store."""
        if RECORD_KEY in batch:
            self._record = read_record(batch[RECORD_KEY])
        for name, expiry in self._expiring.items():
            if expiry.bound in batch:
                self._first_ms[name] = expiry.first_ms(batch)

    @property
    def timers(self) -> int:
        """How many scheduled commands there are."""
        return self._record.count

    @property
    def next_ms(self) -> int | None:
        """When the first command is due, or the first row may be over; None when nothing waits."""
        first_ms = self._record.first[0] if self._record.first is not None else None
        for each in self._first_ms.values():
            if each is not None and (first_ms is None or each < first_ms):
                first_ms = each
        return first_ms


class Dues:
    """Runs what is due at an entry: each command, and each row with what runs for it, for itself."""

    def __init__(
        self,
        overlay: Overlay,
        timers: Timers,
        instance: Any,
        active: Callable[[], Active],
        run: Run,
        recorder: Recorder,
        on_fired: Callable[[Fired], None] | None,
    ) -> None:
        self._overlay = overlay
        self._timers = timers
        self._instance = instance
        self._active = active
        self._run = run
        self._recorder = recorder
        self._on_fired = on_fired
        self._before: dict[bytes, bytes | Absent | None] = {}
        self._at = 0, 0
        """The index and the time of the entry."""
        self._done: list[object] = []
        self._size = 0
        """Bytes that are changed so far."""

    def apply(self, entry: Entry) -> tuple[object, ...]:
        """Do what is due at an entry, all of it or nothing: what is done by it.

        What it makes due comes with a later entry, even if that is at once.
        """
        bound = decode_due(entry)
        self._at = entry.index, entry.time_ms
        self._before, self._done, self._size = {}, [], 0
        try:
            left = bound.count - self._fire_all(entry, bound)
            for expiry in self._active().expiring.values():
                if left > 0 and self._size < bound.change_bytes:
                    left -= self._expire(expiry, entry, left, bound.change_bytes)
        except BaseException:
            self._overlay.undo()
            self._overlay.give_back(self._before)
            raise
        return self._done, self._overlay.get(RECORD_KEY)

    def _fire_all(self, entry: Entry, bound: Due) -> int:
        """Run the scheduled commands that are due; how many these are."""
        due = self._timers.due(entry.time_ms, bound.count)
        for at, place in enumerate(due):
            if self._size >= bound.change_bytes:
                break
            timer = self._timers.take(place, due[at + 1 :], entry.time_ms)
            if timer is None:
                continue  # one before has cancelled it
            self._overlay.keep_part(self._before)
            self._call(timer.name, timer.args, place[1], place[0], entry)
        return len(due)

    def _call(self, name: str, args: bytes, number: int, due_ms: int, entry: Entry) -> None:
        """Run a command as a part of the entry."""
        outcome = self._run(CommandPayload(NO_SESSION, 0, 0, name, msgspec.Raw(args)), entry, number)
        self._told(name, outcome, number, due_ms, entry, args)
        payload = error_type_of(outcome.payload) if outcome.kind is OutcomeKind.REJECTED else outcome.payload
        self._keep(number, outcome.kind, payload)

    def _told(self, name: str, outcome: Outcome, number: int, due_ms: int, entry: Entry, args: bytes = b"") -> None:
        if self._on_fired is not None:
            is_known = name in self._active().commands
            self._on_fired(Fired(name, number, due_ms, entry.time_ms, outcome, is_known, args))

    def _keep(self, *what: object) -> None:
        """A part of the entry is done."""
        if self._recorder.is_on:
            self._recorder.add(*self._at)
        changes = list(self._overlay.own.items())
        self._size += self._overlay.own_bytes
        self._overlay.keep_part(self._before)
        self._done.append((*what, changes))

    def _expire(self, expiry: Expiry, entry: Entry, count: int, bytes_max: int) -> int:
        """Remove up to `count` rows of a table that are over; how many these are."""
        overlay = self._overlay
        first_ms = expiry.first_ms(overlay)
        if first_ms is None or first_ms > entry.time_ms:
            return 0
        found = list(itertools.islice(expiry.in_order(overlay, first_ms), count + 1))
        over = [(ends_ms, key) for ends_ms, key, _ in found[:count] if ends_ms <= entry.time_ms]
        # First of all, as what runs for a row may set rows that are over before this.
        self._bound(expiry, found[len(over)][0] if len(found) > len(over) else None)
        for at, (ends_ms, key) in enumerate(over):
            if self._size >= bytes_max:
                first_ms = expiry.first_ms(overlay)
                self._bound(expiry, ends_ms if first_ms is None else min(first_ms, ends_ms))
                return at
            self._remove(expiry, ends_ms, key, entry)
        return len(over)

    def _bound(self, expiry: Expiry, first_ms: int | None) -> None:
        self._overlay.own[expiry.bound] = None if first_ms is None else encode_ms(first_ms)
        self._keep(expiry.table)

    def _remove(self, expiry: Expiry, ends_ms: int, key: bytes, entry: Entry) -> None:
        """Remove a row that is over, unless it was set again, and run the table's command for it."""
        overlay, place = self._overlay, expiry.time_place(ends_ms, key)
        data = overlay.get(place)
        if data is None:
            return  # what ran for one before has taken it away
        view = self._instance.parts[expiry.table].__get__(self._instance, None)
        if not data:
            data, changes = view.removal(key)
            self._without_limits([*changes, (expiry.ends + key, None, 0)])
        self._without_limits([(place, None, 0)])
        self._size += len(data)
        self._keep(expiry.table)
        if expiry.hook:
            number = xxhash.xxh3_64_intdigest(place)
            try:
                args = b"\x92" + _encoder.encode(view.decoded_key(key)) + data
            except OverflowError as exc:
                self._told(expiry.hook, rejected(exc), number, ends_ms, entry)
                return
            self._call(expiry.hook, args, number, ends_ms, entry)

    def _without_limits(self, changes: Sequence[tuple[Any, ...]]) -> None:
        """Make changes that are not a command's doing."""
        for key, value, _, *table in changes:
            self._overlay.own[key] = value
            self._size += len(key)
            if table:
                self._overlay.count_row(table[0], -1)
