"""Draws scripts of commands, for `tests/formats/scripts`, by lot: right and wrong, in sessions, at times that leap.

    python -m tests.formats.draw NAME…          # of those in `tests.formats.machines` that have no file yet

What is kept is never made anew: a machine or a command that came later gets a script of its own, under another name.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import msgspec

from raftkv.access import (
    AccessChange,
    AddRole,
    AddToken,
    AddUser,
    GiveRole,
    Grant,
    GrantRight,
    RemoveRole,
    RemoveToken,
    RemoveUser,
    RevokeRight,
    SetCertificates,
    SetPassword,
    TakeRole,
    TurnOff,
    TurnOn,
)
from raftkv.kv import ChangedAt, Delete, Exists, Get, Increment, Missing, Put, ValueIs, VersionIs
from raftkv.machine import (
    CLOSE_SESSION,
    NO_SESSION,
    OPEN_OWNED_SESSION,
    OPEN_SESSION,
    Activation,
    Founding,
    Outcome,
    StateMachine,
    Step,
    encode_change,
    encode_command,
    encode_schema,
    lineage_payload,
)
from raftkv.machine.accesses import access_payload
from raftkv.machine.outcome import OutcomeKind
from raftkv.machine.timers import DUE_AT_ONCE, Due, encode_due
from raftkv.model import EntryKind
from raftkv.recipes.turns import GRANTS_AT_ONCE, Hold
from tests.formats.effects import FOLDER, Kept, Line, Player, memory, write
from tests.formats.machines import MACHINES, Before, Lease

START_MS = 1_577_836_800_000
STEPS = 250
PASSES_MS = (0, 0, 0, 1, 20, 40, 99, 100, 333, 500, 1_000, 2_500, 5_000, 11_000)
"""How much time passes before an entry; now and then it leaps further, or is set back."""
LEAPS_MS = (3_600_000, 86_400_001, -400_000)

NAMES, OWNERS = ("a", "b", "c", "ü", ""), ("ann", "bob", "cid", "dan")
TTLS_S = (0.1, 0.25, 1.0, 3.0005, 10.0, 10.0, 30.0, 30.0)
WAITS_S = (0.0, 0.0, 0.5, 5.0, 60.0)
SHORT_S = (0.0, 0.5, 1.0, 1.0005, 7.0, 90.0)
TEXTS = ("", "x", "größer", "10.0.0.7:80")

VALUES: Mapping[str, tuple[Any, ...]] = {
    "name": NAMES[:3],
    "group": NAMES[:2],
    "queue": ("q", "r"),
    "key": ("k1", "k2", "k3"),
    "resource": ("disk", "tape"),
    "account": ("ann", "bob"),
    "owner": OWNERS,
    "member": OWNERS,
    "worker": OWNERS[:2],
    "data": TEXTS,
    "error": TEXTS,
    "result": TEXTS,
    "request": TEXTS[:1],
    "answer": TEXTS,
    "ttl_s": TTLS_S,
    "wait_s": WAITS_S,
    "visibility_s": TTLS_S,
    "hold_s": TTLS_S,
    "keep_s": (*TTLS_S, 300.0),
    "delay_s": (0.0, 0.0, 0.3, 4.0),
    "backoff_s": (0.0, 0.001, 0.7, 1.0, 100.0),
    "after_s": SHORT_S,
    "per_s": (1.0, 0.0015, 60.0, 7.3),
    "limit": (2, 3, 3, 3, 7),
    "permits": (1, 1, 2, 3),
    "burst": (0, 0, 5, 20),
    "cost": (1, 1, 2, 3),
    "parties": (1, 2, 2, 2, 3),
    "priority": (0, 0, 3, 9),
    "attempts": (1, 2, 3, 5),
    "cents": (1, 10),
    "count": (0, 1, 2, 3, 9),
    "price": (0.0, -0.0, 0.1, 1e300),
    "block": (0, 1, 2),
    "colour": ("red", "green", ""),
    "before": ("red", "green", ""),
    "size": (-3, -1, 0, 1, 2, 40),
    "tags": ([], ["x"], ["z", "a"]),
    "more": ({}, {"z": 1, "a": 2}),
    "hold": (Hold("ann", 1, 1_000), Hold("bob", 2, 10_000, "x")),
    "waiter": (Hold("ann", 1, 1_000), Hold("cid", 1, 5_000)),
    "lease": (Lease("ann"), Lease("bob", 2)),
    "value": (b"", b"1", b"-7", b"x"),
    "by": (1, -1, 5, 2**62),
}
"""What arguments may be, by their names."""

SPANS_S = (0.0, 0.099, 1e9, -1.0)
WRONG: Mapping[str, tuple[Any, ...]] = {
    "name": ("ü", ""),
    "request": TEXTS[1:2],
    **dict.fromkeys(("ttl_s", "wait_s", "visibility_s", "hold_s", "keep_s", "delay_s", "backoff_s", "per_s"), SPANS_S),
    "limit": (0, 1, 5_000_000_000),
    "permits": (0, 8),
    "burst": (-1,),
    "cost": (0, 100),
    "parties": (0, 1_001),
    "priority": (10, -1),
    "attempts": (0,),
    "cents": (99,),
    "value": (b"99999999999999999999",),
    "by": (2**64 - 1,),
}
"""What is unlike the others, or refused by the command that gets it."""

HANDED_OUT = ("token", "receipt", "job")
"""Numbers that commands have returned: mostly one of the last ones."""

UNDOING = frozenset(
    ["abandon", "delete", "drop", "forget", "hand_back", "leave", "lose", "refill", "release", "remove"]
)
"""Commands that end what others have begun: rarer, so that there is something to go on with."""

ROOMS = ("name", "group", "key")
"""To one of these belongs a number that was handed out for it."""

KV_KEYS = (b"a", b"b", b"c\x00", b"\xff", b"")
_encoder = msgspec.msgpack.Encoder()


def own_values(name: str) -> dict[str, tuple[Any, ...]]:
    """Where a script has other arguments of a name than the others."""
    if name in ("keyvalue", "watched", "sessions", "access"):
        conditions: tuple[Any, ...] = (Exists(b"a"), Missing(b"b"), ValueIs(b"a", b"1"), VersionIs(b"a", 2))
        operations: tuple[Any, ...] = (Put(b"a", b"1"), Delete(b"b"), Get(b"a"), Increment(b"b", 3), Put(b"c", b"x"))
        some = ([], list(operations[:2]), list(operations[2:]), list(operations))
        return {
            "key": KV_KEYS,
            "expected": (None, b"1", b"x"),
            "conditions": ([], [conditions[0]], [conditions[1]], list(conditions), [ChangedAt(b"a", 20)]),
            "then": some,
            "otherwise": some,
        }
    if name in ("events", "expiring"):
        return {"ttl_s": SHORT_S}
    if name == "upgrades":
        return {"name": ("a", "b", "c", "d", "e", "f"), "shelf": ("", "left", "right")}
    return {}


class Draw:
    """Draws one script and plays it: what commands return is what later ones are given."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.machine: type[StateMachine] = MACHINES[name]
        self.player = Player(self.machine, memory())
        self.lines: list[Line] = []
        self._dice = random.Random(f"raftkv {name}")
        self._values = {**VALUES, **own_values(name)}
        self._now_ms = START_MS
        self._numbers: dict[str, list[tuple[Any, int]]] = {name: [("a", 1)] for name in HANDED_OUT}
        """With what they were handed out for."""
        self._sessions: dict[int, list[int]] = {}
        """The sequence number that each is at, and below which all is acknowledged."""
        self._last: list[bytes] = []

    def draw(self) -> Kept:
        """The script, with what came of it."""
        founder = Before if self.name == "upgrades" else self.machine
        self.add(EntryKind.NOOP, encode_change(Founding(founder.version, encode_schema(founder.schema()))))
        stories = self._stories()
        for step in range(STEPS):
            self._pass_time(step)
            self._fire()
            if step in stories:
                stories[step]()
            elif not self._own_entry():
                self._command()
        return Kept(self.lines, self.player.rows())

    def add(self, kind: EntryKind, payload: bytes) -> Outcome | None:
        """The next entry."""
        line, outcome = self.player.line(self._now_ms, kind, payload)
        self.lines.append(line)
        return outcome

    def _pass_time(self, step: int) -> None:
        if step % 70 != 69:
            self._now_ms += self._dice.choice(PASSES_MS)
            return
        leap_ms = LEAPS_MS[step // 70 % len(LEAPS_MS)]
        self._now_ms += leap_ms
        if leap_ms < 0:
            self.add(EntryKind.CLOCK, b"")

    def _fire(self) -> None:
        """Do what is due, as a leader has it done: not always at once, nor all of it in one entry."""
        for _ in range(4):
            due_ms = self.player.runner.next_due_ms
            if due_ms is None or due_ms > self._now_ms or self._dice.random() < 0.2:
                return
            self.add(EntryKind.DUE, DUE_AT_ONCE if self._dice.random() < 0.7 else encode_due(Due(2, 100)))

    def _own_entry(self) -> bool:
        """Now and then: what is raftkv's own."""
        chance = self._dice.random()
        if chance < 0.02 or len(self._sessions) < 2:
            name, args = self._dice.choice([(OPEN_SESSION, ()), (OPEN_OWNED_SESSION, (self._dice.choice(OWNERS),))])
            outcome = self.add(EntryKind.COMMAND, encode_command(NO_SESSION, 0, 0, name, _encoder.encode(args)))
            assert outcome is not None
            self._sessions[msgspec.msgpack.decode(outcome.payload)] = [1, 1]
        elif chance < 0.03:
            session_id = self._dice.choice(list(self._sessions))
            self.add(EntryKind.COMMAND, encode_command(session_id, 0, 0, CLOSE_SESSION, _encoder.encode(())))
        elif chance < 0.04:
            self.add(EntryKind.NOOP, b"")
        elif chance < 0.07 and self._last:
            self.add(EntryKind.COMMAND, self._dice.choice(self._last[-6:]))  # sent again
        elif chance < 0.75 and self.name == "access":
            self.add(EntryKind.COMMAND, access_payload(self._dice.choice(list(self._changes()))))
        else:
            return False
        return True

    def _command(self) -> None:
        active = self.player.runner.active.commands
        offered = [name for name in sorted(active) if name not in self._rare() or self._is_rare()]
        if self.name == "lineage":  # in which keys are of two types
            offered = [name for name in offered if not name.endswith("_is_over")]
        name = self._dice.choice(offered)
        if name.rpartition(".")[2] in UNDOING and self._dice.random() < 0.6:
            name = self._dice.choice(offered)
        method, takes = active[name].method, active[name].takes
        count = self._dice.randint(method.required, takes)
        args = self._args([argument for argument, _, _ in method.takes[:count]])
        session_id, payload = self._sent(name, method.encode_args(tuple(args.values()), {}))
        outcome = self.add(EntryKind.COMMAND, payload)
        assert outcome is not None
        self._last.append(payload)
        if outcome.kind is OutcomeKind.APPLIED:
            room = next((args[each] for each in ROOMS if each in args), "")
            self._keep_numbers(room, msgspec.msgpack.decode(outcome.payload))
        elif outcome.kind is not OutcomeKind.REJECTED and self._dice.random() < 0.7:
            self._sessions.pop(session_id, None)

    def _rare(self) -> set[str]:
        """Commands that run by themselves, and undo what others have done."""
        return {"turn", "settle", "locks.settle", *self.machine._hooks.values()}

    def _is_rare(self) -> bool:
        return self._dice.random() < 0.1

    def _sent(self, name: str, args: bytes) -> tuple[int, bytes]:
        """Through a session, which need not be there any more, or through none."""
        if self._dice.random() < 0.4:
            return NO_SESSION, encode_command(NO_SESSION, 0, 0, name, args)
        session_id = self._dice.choice(list(self._sessions)[-5:])
        at = self._sessions[session_id]
        at[0] += 1
        if self._dice.random() < 0.3:
            at[1] = self._dice.randint(at[1], at[0])
        return session_id, encode_command(session_id, at[0] - 1, at[1], name, args)

    def _args(self, names: list[str]) -> dict[str, Any]:
        args = {name: self._value(name) for name in names}
        for name in HANDED_OUT:
            if name in args:
                known = self._numbers[name]
                room, args[name] = self._dice.choice(known if self._is_rare() else known[-3:])
                if not self._is_rare():
                    args.update((each, room) for each in ROOMS if each in args and room in self._values[each])
        return args

    def _value(self, argument: str) -> Any:
        if argument in HANDED_OUT:
            return None
        if (
            argument == "key"
            and self.name != "lineage"
            and "held" in {part.rpartition(".")[2] for part in self.machine.parts}
        ):
            return self._dice.choice([pair for pair in self._numbers["token"] if pair[0] in NAMES])
        if argument in WRONG and self._is_rare():
            return self._dice.choice(WRONG[argument])
        return self._dice.choice(self._values[argument])

    def _keep_numbers(self, room: Any, result: Any) -> None:
        """What a result has handed out."""
        if type(result) is int and result > 0:
            result = dict.fromkeys(("token", "job"), result)
        for name in HANDED_OUT:
            if isinstance(result, dict) and result.get(name):
                self._numbers[name].append((room, result[name]))

    def _changes(self) -> Iterator[AccessChange]:
        """One of each kind, about few names: many meet what is there, some what is not."""
        rarely = self._is_rare()
        user, role = ("x y" if rarely else self._dice.choice(("ann", "bob"))), self._dice.choice(("clerk", "guest"))
        what = self._dice.choice(("command", "query", "read", "write", "admin"))
        patterns: tuple[Any, ...] = (b"", b"orders/") if what in ("read", "write") else ("get", "*")
        grant = Grant(what, "" if rarely else self._dice.choice(patterns))
        digest = bytes([self._dice.randrange(4)]) * 32
        names = self._dice.choice(((), ("cn=b", "cn=a"), ("cn=c",)))
        password = "plain" if rarely else self._dice.choice(("", "$argon2id$v=19$x"))
        yield AddUser("root", password, ("root",))
        yield AddUser(user, password, self._dice.choice(((), ("root",), ("guest", "clerk"))), names)
        yield RemoveUser(user)
        yield SetPassword(user, password)
        yield SetCertificates(user, names)
        yield from (AddRole(role), RemoveRole(role))
        yield from (GrantRight(role, grant), GrantRight("clerk", grant), RevokeRight(role, grant))
        yield from (GiveRole(user, role), GiveRole(user, "root"), TakeRole(user, role), TakeRole(user, "root"))
        yield AddToken(user, digest, 0 if rarely else self._dice.choice((None, 1_000, 60_000)))
        yield RemoveToken(user, self._dice.choice(("", digest.hex()[:6])))
        yield from (TurnOn(), TurnOff())

    def _stories(self) -> dict[int, Callable[[], object]]:
        """What happens at a certain step, of which there is one only."""
        if self.name == "readwrite":
            return {150: self._crowd}
        if self.name == "lineage":
            first, second = lineage_payload("a" * 32, 50), lineage_payload("b" * 32, 180)
            return {
                80: lambda: self.add(EntryKind.COMMAND, first),
                81: lambda: self.add(EntryKind.NOOP, b""),
                211: self._set_back,
                212: lambda: self.add(EntryKind.COMMAND, second),
                213: lambda: self.add(EntryKind.NOOP, b""),
            }
        if self.name == "upgrades":
            put = encode_command(NO_SESSION, 0, 0, "put", _encoder.encode(("stop", 1)))
            take = encode_command(NO_SESSION, 0, 0, "take", _encoder.encode(("stop",)))
            return {
                80: lambda: self.add(EntryKind.COMMAND, put),
                90: lambda: self._change(Activation(2, encode_schema(self.machine.schema()))),
                **dict.fromkeys(range(93, 130, 4), self._step),
                130: lambda: self.add(EntryKind.COMMAND, take),
                **dict.fromkeys(range(133, 200, 4), self._step),
            }
        return {}

    def _set_back(self) -> None:
        """The log's time is before the first restore again."""
        self._now_ms = START_MS
        self.add(EntryKind.CLOCK, b"")

    def _crowd(self) -> None:
        """More wait than get a token in one command."""
        for number in range(GRANTS_AT_ONCE + 5):
            name = "acquire_write" if number == 0 else "acquire_read"
            args = _encoder.encode(("crowd", f"party {number}", 30.0, 5.0))
            self.add(EntryKind.COMMAND, encode_command(NO_SESSION, 0, 0, name, args))
        args = _encoder.encode(("crowd", "party 0"))
        self.add(EntryKind.COMMAND, encode_command(NO_SESSION, 0, 0, "leave", args))

    def _step(self) -> None:
        kept = self.player.runner.active.kept
        if kept is not None and kept.left:
            self._change(Step(kept.version, kept.steps))

    def _change(self, change: Activation | Step) -> None:
        self.add(EntryKind.UPGRADE, encode_change(self.player.runner.tried(change)))


def main() -> None:
    """Draw what is named."""
    FOLDER.mkdir(exist_ok=True)
    for name in sys.argv[1:]:
        write(FOLDER / f"{name}.txt", Draw(name).draw())


if __name__ == "__main__":
    main()
