"""Runs a script of calls on two versions of a class side by side, up to the activation of the newer one and beyond."""

from __future__ import annotations

import itertools
import math
import random

import msgspec

from raftkv.entry import Entry, make_entry
from raftkv.errors import InvalidArgument, NodeStopped, NotActive, Rejected
from raftkv.machine import (
    DUE_AT_ONCE,
    NO_SESSION,
    Kept,
    StateMachine,
    Step,
    VersionChange,
    encode_change,
    encode_command,
)
from raftkv.machine.rejection import is_mistake_named
from raftkv.model import GENESIS_CHAIN, EntryKind
from raftkv.state import TABLE_PREFIX
from raftkv.testing.judging.failure import Cause, CounterExample
from raftkv.testing.tracing.sidebyside import Side, Sides
from raftkv.testing.trying.differences import difference, state_difference, told
from raftkv.testing.trying.pair import activation, founding, method_of_call, says_nothing_new, speaker
from raftkv.testing.trying.replica import FIRINGS_MAX, Effect, Replica
from raftkv.testing.trying.script import Call, Script
from raftkv.testing.world.cluster import START_MS

UPGRADE = "upgrade"
"""The kind of a `Fault` at whose time the newer version becomes active (in a world: is installed everywhere)."""

PIECES_MAX = 1_000
"""Of an upgrade, with the few rows that a script makes."""

RESTARTED_AFTER = 5
"""Entries: a restart takes longer than they do."""

LATER_MS = 1_000
"""Time goes on so long behind the last call, for what was scheduled."""

_SCHEDULED = "what was scheduled"
_NOW = "after the upgrade, and had an answer before it"


class SideBySide:
    """One script on replicas without a cluster. `run` raises `CounterExample`."""

    def __init__(self, old: type[StateMachine], new: type[StateMachine], script: Script, *, shows_pieces: bool) -> None:
        self._old, self._new = old, new
        self._script = script
        self._shows_pieces = shows_pieces
        self._before, self._after = Replica(old), Replica(new)
        self._restarted = Replica(new)
        """A replica of the newer class whose process ends now and then, and before each piece of an upgrade."""
        self._entries: list[Entry] = []
        self._chain = GENESIS_CHAIN
        self._now_ms = START_MS
        self._done: list[tuple[str, str, Effect | None, Effect]] = []
        """What was done so far: in words, the command, and what it came to with either class."""

    def picture(self, described: str) -> Sides:
        """What both classes did, up to what `described` says."""
        rows, last = list[Side](), len(self._done) - 1
        for at, (what, name, one, other) in enumerate(self._done):
            left = [] if one is None else told(self._old, name, one)
            rows.append(Side(what, left, told(self._new, name, other), is_fine=one is None or at < last))
        if not (rows and rows[-1].differs):
            rows.append(Side("then", [], described.splitlines()))
        return Sides(f"version {self._old.version}", f"version {self._new.version}", rows)

    def run(self) -> None:
        due = min((fault.at_ms for fault in self._script.faults if fault.kind == UPGRADE), default=math.inf)
        calls = sorted(self._script.calls, key=lambda call: call.at_ms)
        self._apply_to_both(self._entry(EntryKind.NOOP, founding(self._old)), "the first entry")
        for call in calls:
            if call.at_ms < due:
                self._wait(call.at_ms)
                self._call_both(call)
        last_ms = max((call.at_ms for call in calls), default=0)
        if due < math.inf and self._old.version < self._new.version:
            self._wait(int(due))
            self._upgrade(calls, due)
            self._wait_new(max(last_ms, int(due)) + LATER_MS)
        else:
            self._wait(last_ms + LATER_MS)
        self._in_other_batches()

    def _entry(self, kind: EntryKind, payload: bytes) -> Entry:
        entry = make_entry(len(self._entries) + 1, 1, self._now_ms, kind, payload, self._chain)
        self._entries.append(entry)
        self._chain = entry.chain
        return entry

    def _payload(self, call: Call) -> bytes:
        """As the client of the call encodes it."""
        method = method_of_call(self._old, self._new, call)
        args = method.encode_args(call.args, {})
        if method.is_query:
            return method.query_payload(args)
        return encode_command(NO_SESSION, 0, 0, method.name, args)

    def _is_query(self, call: Call) -> bool:
        return method_of_call(self._old, self._new, call).is_query

    # Before the activation

    def _call_both(self, call: Call) -> None:
        self._now_ms = START_MS + call.at_ms
        payload = self._payload(call)
        if self._is_query(call):
            self._require_answer(call, payload, self._after, f"while version {self._old.version} is active")
            return
        refusals = [_refusal(replica, payload) for replica in (self._before, self._after)]
        if all(refusals):
            if call.client % 2 or says_nothing_new(self._old, self._new, call):
                self._refused(call, refusals[0])
            return
        self._apply_to_both(self._entry(EntryKind.COMMAND, payload), call.described, call.name)

    def _wait(self, at_ms: int) -> None:
        """Let time pass while the old version is active: run what was scheduled, as both classes do it."""
        for _ in range(FIRINGS_MAX):
            if not self._is_due(self._before, at_ms):
                break
            self._apply_to_both(self._entry(EntryKind.DUE, DUE_AT_ONCE), _SCHEDULED)

    def _wait_new(self, at_ms: int) -> None:
        """Let time pass while the newer version is active."""
        for _ in range(FIRINGS_MAX):
            if not self._is_due(self._after, at_ms):
                break
            entry = self._entry(EntryKind.DUE, DUE_AT_ONCE)
            effect = self._after.apply(entry)
            self._done.append((_SCHEDULED, "", None, effect))
            if effect.failed is not None:
                text = f"{_SCHEDULED} stops every node once version {self._new.version} is active: {effect.failed}"
                raise CounterExample(Cause.FAILED, text)
            self._restart(entry, effect, _SCHEDULED)

    def _is_due(self, replica: Replica, at_ms: int) -> bool:
        """Whether anything is due by then; it is the time of that then."""
        due_ms = replica.runner.next_due_ms
        if due_ms is None or due_ms > START_MS + at_ms:
            return False
        self._now_ms = max(self._now_ms, due_ms)
        return True

    def _refused(self, call: Call, why: Exception | None) -> None:
        version = speaker(self._old, self._new, call).version
        text = f"{call.described} by a client of version {version} is refused: {why}"
        raise CounterExample(Cause.VERSIONS_DIFFER, text)

    def _apply_to_both(self, entry: Entry, what: str, name: str | None = None) -> None:
        """Apply an entry to replicas of both classes, and compare what it does."""
        one, other = self._before.apply(entry), self._after.apply(entry)
        self._done.append((what, name or "", one, other))
        active = f"while version {self._old.version} is active"
        for machine, effect in ((self._old, one), (self._new, other)):
            if effect.failed is not None:
                text = f"{what} stops a node of version {machine.version}, {active}: {effect.failed}"
                raise CounterExample(Cause.FAILED, text)
        if one.without_text() != other.without_text():
            place, first, second = difference(self._new, one, other)
            said = f"{place} is {first} with version {self._old.version} and {second} with version {self._new.version}"
        elif list(one.changes) != list(other.changes):
            said = "the versions write the same, in another order"
        elif self._before.runner.applied.digest != self._after.runner.applied.digest:
            said = "the versions' digests differ"
        else:
            self._restart(entry, other, what)
            return
        remedy = f"it must do what it did as long as `self.version` is {self._old.version}"
        method = self._new.methods.get(name or "")
        line = f"\n{method.line}: {remedy}" if method is not None else ""
        raise CounterExample(Cause.VERSIONS_DIFFER, f"{what}, {active}: {said}{line}")

    def _restart(self, entry: Entry, effect: Effect, what: str) -> None:
        """Apply an entry once more, now and then in a process that has seen nothing before, and compare."""
        if entry.kind == EntryKind.UPGRADE or entry.index % RESTARTED_AFTER == 0:
            self._restarted = self._restarted.reopened()
        again = self._restarted.apply(entry)
        if again != effect:
            place, first, second = difference(self._new, effect, again)
            raise CounterExample(
                Cause.REMEMBERS,
                f"{what} uses something outside of tables, which a restart forgets, or that differs between nodes: "
                f"{place} is {first} in one process, and {second} in a new one with the same tables",
            )

    # From the activation on

    def _upgrade(self, calls: list[Call], due: float) -> None:
        self._now_ms = START_MS + int(due)  # rows that are over by then are no loss
        answered = [
            (call, payload, answer)
            for call in calls
            if self._is_query(call)
            and (answer := self._answer(self._before, payload := self._payload(call), self._now_ms)) is not None
        ]
        self._change(activation(self._new))
        alone = self._after.reopened()
        """Will get all pieces before any call."""
        begun, between = len(self._entries), []
        for _, group in itertools.groupby([call for call in calls if call.at_ms >= due], key=lambda call: call.at_ms):
            for call in group:
                self._wait_new(call.at_ms)
                is_between = self._is_upgrading
                if self._call_new(call) and is_between:
                    between.append(call)
            self._step()
        for _ in range(PIECES_MAX):
            if not self._step():
                break
        else:
            kept = self._kept
            raise CounterExample(
                Cause.UPGRADE_FAILED,
                f"the upgrade to version {kept.version} is not done after {PIECES_MAX} pieces: {', '.join(kept.left)}",
            )
        alone = self._finished(alone, begun)
        for call, payload, answer in answered:
            self._require_answer(call, payload, alone, _NOW)
            self._require_no_less(call, payload, alone, answer)
        if between and not self._shows_pieces:
            self._compare_orders(alone, begun, between)

    @property
    def _kept(self) -> Kept:
        kept = self._after.runner.active.kept
        assert kept is not None, "the state began with a version"
        return kept

    @property
    def _is_upgrading(self) -> bool:
        return self._after.runner.active.is_upgrading

    def _step(self) -> bool:
        """Run the next piece of an upgrade, if any is left."""
        if not self._is_upgrading:
            return False
        self._change(Step(self._kept.version, self._kept.steps))
        return True

    def _change(self, change: VersionChange) -> None:
        """Make the newer version active, or go on with its upgrades, by an entry as a leader proposes it."""
        entry = self._entry(EntryKind.UPGRADE, encode_change(self._after.runner.tried(change)))
        effect = self._after.apply(entry)
        what = f"the upgrade to version {self._new.version}"
        self._done.append((what, "", None, effect))
        if effect.failed is not None:
            raise CounterExample(Cause.UPGRADE_FAILED, f"{what} stops every node: {effect.failed}")
        if self._kept.failed:
            upgrade = self._new.upgrades.get(self._kept.failed.partition(":")[0])
            line = "" if upgrade is None else f"\n{upgrade.line}: it must go well with whatever is in the tables"
            raise CounterExample(Cause.UPGRADE_FAILED, f"{what} fails: {self._kept.failed}{line}")
        self._restart(entry, effect, what)

    def _call_new(self, call: Call) -> bool:
        """Make a call while the newer version is active; whether it got into the log."""
        self._now_ms = START_MS + call.at_ms
        payload = self._payload(call)
        if self._is_query(call):
            self._require_answer(
                call, payload, self._after, "while the upgrade goes on" if self._is_upgrading else "after the upgrade"
            )
            return False
        refusal = _refusal(self._after, payload)
        if refusal is not None:
            known = self._new.schema().methods.get(call.name)
            if call.client % 2 and known is not None and not isinstance(refusal, NotActive):
                self._refused(call, refusal)
            return False
        entry = self._entry(EntryKind.COMMAND, payload)
        effect = self._after.apply(entry)
        self._done.append((call.described, call.name, None, effect))
        if effect.failed is not None:
            text = f"{call.described} stops every node once version {self._new.version} is active: {effect.failed}"
            raise CounterExample(Cause.FAILED, text)
        self._restart(entry, effect, call.described)
        self._require_no_new_mistake(call, payload, entry, effect)
        return True

    def _require_no_new_mistake(self, call: Call, payload: bytes, entry: Entry, effect: Effect) -> None:
        """Raises when a call that went well, had the version not been raised, shows a mistake now."""
        if call.name not in self._old.methods or _refusal(self._before, payload) is not None:
            return
        self._before = _behind(self._before, entry)
        instead = self._before.apply(entry)
        if effect.rejected is not None and is_mistake_named(effect.rejected[0]) and instead.result is not None:
            line = self._new.methods[call.name].line
            raise CounterExample(
                Cause.UPGRADE_LOSES,
                f"{call.described} raises {': '.join(effect.rejected)} once version {self._new.version} is active, and "
                f"goes well as long as it is not\n{line}: it meets what version {self._old.version} has left",
            )

    def _finished(self, replica: Replica, begun: int) -> Replica:
        """The replica, with all upgrades done."""
        for index in itertools.count(begun + 1):
            kept = replica.runner.active.kept
            if kept is None or not kept.left:
                break
            payload = encode_change(replica.runner.tried(Step(kept.version, kept.steps)))
            replica.apply(make_entry(index, 1, self._entries[begun - 1].time_ms, EntryKind.UPGRADE, payload, index))
            if kept == replica.runner.active.kept:
                break
        return replica

    def _compare_orders(self, replica: Replica, begun: int, between: list[Call]) -> None:
        """Compare what is in the tables with what is there when the same calls come after the last piece."""
        for entry in self._entries[begun:]:
            if entry.kind in (EntryKind.COMMAND, EntryKind.DUE):
                replica = _behind(replica, entry)
                replica.apply(entry)
        found = state_difference(self._new, _tables(self._after), _tables(replica))
        if found is None:
            return
        place, first, second = found
        names = [each.name for each in self._new.upgrades.values() if each.in_pieces and each.to > self._old.version]
        lines = [self._new.upgrades[name].line for name in names]
        raise CounterExample(
            Cause.UPGRADE_LOSES,
            f"{place} is {first} when {', '.join(call.described for call in between)} comes between the pieces of the "
            f"upgrade ({', '.join(names)}), and {second} when it comes after the last one\n"
            f"{', '.join(lines)}: a piece must not undo what commands have written meanwhile, nor pass over it, and "
            "commands must do right by rows that are not rewritten yet (`shows_pieces=True` if this is meant)",
        )

    # Queries, and batches

    def _answer(self, replica: Replica, payload: bytes, now_ms: int) -> bytes | None:
        """The encoded answer to a query; None when there is none."""
        try:
            return replica.ask(payload, now_ms).result
        except (InvalidArgument, NotActive, NodeStopped):
            return None

    def _require_no_less(self, call: Call, payload: bytes, replica: Replica, before: bytes) -> None:
        """Raises when a query answers None, or fewer items, where it had more to say just before the upgrade: a row was
        lost. Any other answer may be what the new version is for."""
        answer = self._answer(replica, payload, self._now_ms)
        if answer is None or not _is_less(msgspec.msgpack.decode(answer), msgspec.msgpack.decode(before)):
            return
        method = self._new.methods[call.name]
        shown, more = method.decode_result(answer), self._old.methods[call.name].decode_result(before)
        raise CounterExample(
            Cause.UPGRADE_LOSES,
            f"the query {call.described} gives {shown!r} after the upgrade, and more just before it: {more!r} "
            f"(leave the query out if this is meant)\n{method.line}",
        )

    def _require_answer(self, call: Call, payload: bytes, replica: Replica, when: str) -> None:
        """Raises when a query can't read what is there, or raises what looks like a mistake, or (when it had an answer
        `before`) anything that it does not declare."""
        method = self._new.methods.get(call.name)
        try:
            replica.runner.query(payload)
            return
        except (InvalidArgument, NotActive):
            return  # the newer version has other queries
        except Rejected as exc:
            had_answer = when is _NOW
            if exc.fields or not (had_answer or is_mistake_named(exc.error_type)):
                return
            said = f"raises {exc.error_type}: {exc.message}"
        except NodeStopped as exc:
            said = f"can't read what is there: {exc}"
        line = "" if method is None else f"\n{method.line}"
        raise CounterExample(Cause.UPGRADE_LOSES, f"the query {call.described} {said}, {when}{line}")

    def _in_other_batches(self) -> None:
        """Apply the same log in pieces of other sizes, with restarts between them, and compare."""
        dice, replica, first = random.Random(self._script.seed), Replica(self._new), 0
        while first < len(self._entries):
            size = dice.randint(1, 12)
            replica = replica.reopened()
            replica.runner.apply(self._entries[first : first + size])
            first += size
        for said in self._after.runner.out_of_step():
            raise CounterExample(Cause.UPGRADE_LOSES, f"after the upgrade {said}")
        if replica.runner.applied.digest == self._after.runner.applied.digest:
            return
        found = state_difference(self._new, self._after.values, replica.values)
        said = "the digests differ" if found is None else f"{found[0]} is {found[1]}, and {found[2]}"
        raise CounterExample(
            Cause.REMEMBERS,
            f"the same log, applied in other batches and by other processes, gives another state: {said}",
        )


def _is_less(answer: object, before: object) -> bool:
    """Whether it is None, or has fewer items: both are as msgpack has them."""
    if answer is None or before is None:
        return before is not None
    kinds = (list, dict)
    return isinstance(answer, kinds) and type(answer) is type(before) and len(answer) < len(before)


def _refusal(replica: Replica, payload: bytes) -> Exception | None:
    """Why a leader would not let a command into the log; None when it would."""
    try:
        replica.runner.check(payload)
    except (InvalidArgument, NotActive) as exc:
        return exc
    return None


def _behind(replica: Replica, entry: Entry) -> Replica:
    """The replica, or a copy that has applied all before the entry, as far as it knows."""
    applied = replica.runner.applied
    if applied.index == entry.index - 1:
        return replica
    return replica.reopened(msgspec.structs.replace(applied, index=entry.index - 1))


def _tables(replica: Replica) -> dict[bytes, bytes]:
    return {place: data for place, data in replica.values.items() if place.startswith(TABLE_PREFIX)}
