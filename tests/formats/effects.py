"""What commands did to the state when they were first released: kept scripts, and how they are played again.

A file of `tests/formats/scripts` is a log: each line an entry, with the digest of the state after it and, for people,
the call and its outcome; behind `---` each key and value that is in the state at the end, in hexadecimal. The digest is
chained over all effects: each change of a row in its order, results, and which exception a command raised.

    python -m tests.formats.effects             # plays them all; ends with 1 and names the first entry that differs
"""

from __future__ import annotations

import base64
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import msgspec

from raftkv.access import decode_access_change
from raftkv.disk.simulated import SimDisk
from raftkv.entry import Entry, make_entry
from raftkv.machine import (
    CHANGE_ACCESS,
    Founding,
    Outcome,
    Runner,
    StateMachine,
    decode_change,
    decode_command,
    read_rejection,
)
from raftkv.machine.outcome import OutcomeKind, error_type_of
from raftkv.machine.sessions import is_answer
from raftkv.machine.timers import Fired
from raftkv.model import GENESIS_CHAIN, EntryKind
from raftkv.state import META_KEY, MemoryStore, Store
from tests.formats.machines import MACHINES

FOLDER = Path(__file__).parent / "scripts"
SESSIONS_MAX, SESSION_TTL_MS = 4, 120_000
"""So few that some are forgotten in each script."""

SAID_MAX = 100
"""Characters of a call, and of its outcome, that a line shows."""

RULE = (
    "Nodes of both releases in one cluster would part there (Diverged), and a log or a snapshot of before would give "
    "another state. Let the command do what it did; what it is to do from now on must wait until every node of the "
    "cluster can do it: raftkv/machine/versions.py says how. What is kept is never made anew."
)


class Line(msgspec.Struct, frozen=True):
    """An entry, and what the state was after it."""

    time_ms: int
    kind: EntryKind
    payload: bytes
    digest: int
    said: str = ""

    def __str__(self) -> str:
        payload = base64.b64encode(self.payload).decode() or "-"
        return f"{self.time_ms} {self.kind.name} {payload} {self.digest:016x} {self.said}"


class Kept(msgspec.Struct, frozen=True):
    """What a file holds."""

    lines: list[Line]
    rows: dict[bytes, bytes]


class OtherwiseError(AssertionError):
    """A command does otherwise than it did when it was released."""


def read(name: str) -> Kept:
    """The script of that name, as it was kept."""
    log, _, rows = (FOLDER / f"{name}.txt").read_text(encoding="utf-8").partition("---\n")
    lines = []
    for line in log.splitlines():
        time_ms, kind, payload, digest, said = line.split(" ", 4)
        data = b"" if payload == "-" else base64.b64decode(payload)
        lines.append(Line(int(time_ms), EntryKind[kind], data, int(digest, 16), said))
    pairs = (line.split(" ") for line in rows.splitlines())
    return Kept(lines, {bytes.fromhex(key): bytes.fromhex(value) for key, value in pairs})


def write(path: Path, kept: Kept) -> None:
    """Keep it. Raises `FileExistsError`."""
    rows = (f"{key.hex()} {value.hex()}" for key, value in kept.rows.items())
    with path.open("x", encoding="utf-8") as file:
        file.write("\n".join([*map(str, kept.lines), "---", *rows, ""]))


def memory() -> Store:
    """An empty store."""
    return MemoryStore.open(SimDisk(), "/state")


class Player:
    """Runs a machine on a store, entry by entry, at the times that the entries have."""

    def __init__(self, machine: type[StateMachine], store: Store) -> None:
        self.machine = machine
        self.store = store
        self._chain = GENESIS_CHAIN
        self.begin()

    def begin(self) -> None:
        """As after a start of the node: all that is known is what is in the store."""
        self._fired: list[Fired] = []
        self.runner = Runner(
            self.machine,
            self.store,
            sessions_max=SESSIONS_MAX,
            session_ttl_ms=SESSION_TTL_MS,
            on_fired=self._fired.append,
        )

    @property
    def digest(self) -> int:
        """The state's, after the last entry."""
        return self.runner.applied.digest

    def apply(self, entries: Iterable[tuple[int, EntryKind, bytes]]) -> list[Outcome | None]:
        """As one write to the store; times are in milliseconds."""
        made: list[Entry] = []
        for time_ms, kind, payload in entries:
            index = self.runner.applied.index + len(made) + 1
            made.append(make_entry(index, 1, time_ms, kind, payload, self._chain))
            self._chain = made[-1].chain
        return self.runner.apply(made)

    def line(self, time_ms: int, kind: EntryKind, payload: bytes) -> tuple[Line, Outcome | None]:
        """Apply one entry; what came of it."""
        self._fired.clear()
        (outcome,) = self.apply([(time_ms, kind, payload)])
        return Line(time_ms, kind, payload, self.digest, self._said(kind, payload, outcome)), outcome

    def _said(self, kind: EntryKind, payload: bytes, outcome: Outcome | None) -> str:
        """For people."""
        if kind is EntryKind.UPGRADE or (kind is EntryKind.NOOP and payload):
            change = decode_change(payload)
            failed = "" if isinstance(change, Founding) or not change.failed else ", which has failed"
            return f"{type(change).__name__} of version {change.version}{failed}"
        if kind is EntryKind.DUE:
            fired = (f"{each.name} {_answer(each.outcome)}" for each in self._fired)
            return f"by itself: {', '.join(fired) or 'rows that are over go'}"[: 2 * SAID_MAX]
        if kind is not EntryKind.COMMAND or outcome is None:
            return kind.name.lower()
        command = decode_command(payload)
        method = self.machine.methods.get(command.name)
        if command.name == CHANGE_ACCESS:
            call = repr(decode_access_change(command.args))
        elif method is None:
            call = command.name
        else:
            call = f"{command.name}{tuple(method.decode_args(command.args))!r}"
        answer = _answer(outcome)
        if outcome.kind is OutcomeKind.APPLIED and method is not None:
            answer = f"is {method.decode_result(outcome.payload)!r}"
        return f"{call[:SAID_MAX]} {answer[:SAID_MAX]}"

    def rows(self) -> dict[bytes, bytes]:
        """All that is in the state; of what commands raised only its kind, as texts may be worded better."""
        found = {}
        for key, value in self.store.scan(b"", None):
            if is_answer(key, value):
                answer = msgspec.msgpack.decode(value, type=Outcome)
                value = error_type_of(answer.payload) if answer.kind is OutcomeKind.REJECTED else value
            if key != META_KEY:
                found[key] = value
        return found


def _answer(outcome: Outcome) -> str:
    """How a command went."""
    if outcome.kind is OutcomeKind.REJECTED:
        return f"raises {read_rejection(outcome.payload).error_type}"
    return "is done" if outcome.kind is OutcomeKind.APPLIED else f"meets {outcome.kind.name}"


def check(name: str, store: Callable[[], Store] = memory, *, restart_every: int = 0) -> None:
    """Play what was kept under a name, each entry alone. Raises `OtherwiseError`, which names the first that differs.

    After each `restart_every` entries, what the machine keeps in memory is made anew from the store.
    """
    kept, player = read(name), Player(MACHINES[name], store())
    for number, line in enumerate(kept.lines, 1):
        found, _ = player.line(line.time_ms, line.kind, line.payload)
        if found.digest != line.digest:
            raise OtherwiseError(_otherwise(name, number, line, found))
        if restart_every and number % restart_every == 0:
            player.begin()
    _check_rows(name, kept, player)


def check_together(name: str, sizes: Sequence[int]) -> None:
    """Play it in writes of several entries each, by turns of these sizes. Raises `OtherwiseError`."""
    kept, player, at = read(name), Player(MACHINES[name], memory()), 0
    while at < len(kept.lines):
        lines = kept.lines[at : at + sizes[at % len(sizes)]]
        player.apply([(line.time_ms, line.kind, line.payload) for line in lines])
        at += len(lines)
        if player.digest != lines[-1].digest:
            raise OtherwiseError(f"{name}: one of the entries up to {at} does otherwise in one write. {RULE}")
    _check_rows(name, kept, player)


def _check_rows(name: str, kept: Kept, player: Player) -> None:
    """What the digest tells nothing of: rows that are counted or kept besides what entries change."""
    found = player.rows()
    for key in sorted(kept.rows.keys() | found.keys()):
        was, now = kept.rows.get(key), found.get(key)
        if was != now:
            raise OtherwiseError(f"{name}: at the end, the state has {now!r} at {key!r}, and had {was!r}. {RULE}")


def _otherwise(name: str, number: int, kept: Line, found: Line) -> str:
    if kept.said == found.said:
        what = f"{kept.said}, as it was; but it changes the state otherwise: other rows, values, times, or their order"
    else:
        what = f"{found.said}, and it was: {kept.said}"
    return f"{name}: entry {number} ({kept.kind.name} at {kept.time_ms} ms) does otherwise: {what}. {RULE}"


def main() -> int:
    """Play all of them."""
    for name in MACHINES:
        try:
            check(name)
        except OtherwiseError as exc:
            print(exc)
            return 1
    print(f"{len(MACHINES)} scripts do what they did")
    return 0


if __name__ == "__main__":
    sys.exit(main())
