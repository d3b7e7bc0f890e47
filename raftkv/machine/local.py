"""A state machine without any cluster, for unit tests of an application."""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from typing import Any, Concatenate, Generic, ParamSpec, TypeVar, TypeVarTuple, overload

from raftkv.config import MIB
from raftkv.disk.simulated import SimDisk
from raftkv.entry import make_entry
from raftkv.errors import InvalidArgument, Rejected, TimedOut, TooMuchWork
from raftkv.history import BEGINNING, Cursor, Found
from raftkv.machine.changes import Change, Source, asked, find_source, read_change
from raftkv.machine.events import Events
from raftkv.machine.methods import Method
from raftkv.machine.naming import find_method, is_part
from raftkv.machine.outcome import Outcome, OutcomeKind, read_rejection
from raftkv.machine.payloads import NO_SESSION, encode_command, encode_query
from raftkv.machine.rejection import as_declared
from raftkv.machine.runner import Runner
from raftkv.machine.schema import encode_schema
from raftkv.machine.statemachine import Component, StateMachine
from raftkv.machine.tables import Set, Table
from raftkv.machine.timers import DUE_AT_ONCE, Fired
from raftkv.machine.versions import Activation, Kept, Step, encode_change, encode_kept
from raftkv.model import GENESIS_CHAIN, EntryKind
from raftkv.state import VERSION_KEY, Applied, MemoryStore

M = TypeVar("M", bound=StateMachine)
C = TypeVar("C", bound=Component)
P = ParamSpec("P")
R = TypeVar("R")
K = TypeVar("K")
V = TypeVar("V")
Ts = TypeVarTuple("Ts")

START_MS = 1_577_836_800_000
"""The first entry's time by default: 2020-01-01, so that tests have the same results every day."""


AT_ONCE_MAX = 1_000
"""Entries in which time may stand still."""


class LocalMachine(Generic[M]):
    """Runs the state machine `machine` in memory, each command as an entry of its own.

    ```python
    local = LocalMachine(Inventory)
    assert local.receive("apple", 3) == 3
    assert local.on_hand("apple") == 3
    ```

    Commands and queries are its methods; their arguments are checked and encoded as in a cluster. They raise
    `Rejected` for what the method raised, `InvalidArgument` for wrong arguments. Tests may set `now_ms`, the time
    of the next entry and query; `advance` lets time pass, runs what was scheduled, and removes rows that are over.
    """

    def __init__(
        self,
        machine: type[M],
        *,
        version: int | None = None,
        begun_by: type[StateMachine] | None = None,
        now_ms: int = START_MS,
    ) -> None:
        """`version` is the one that is active at first (the newest), as `begun_by` declares it (`machine` itself)."""
        self.machine = machine
        self.now_ms = now_ms
        store = MemoryStore.open(SimDisk(), "/state")
        schema = (begun_by or machine).schema(version)
        store.write({VERSION_KEY: encode_kept(Kept(schema.version, encode_schema(schema)))}, Applied())
        self.fired: list[Fired] = []
        """The scheduled commands that were run, in their order."""
        self._runner = Runner(machine, store, on_mistake=self._met, on_fired=self.fired.append)
        self._runner.begin(now_ms)
        self._mistake: BaseException | None = None
        self._chain = GENESIS_CHAIN
        if "call" in machine.methods:
            vars(self)["call"] = self._own_call
        if "changes" in machine.methods:
            vars(self)["changes"] = self._own_changes

    def __getattr__(self, name: str) -> Any:
        if is_part(self.machine, name):
            return LocalPart(self, name)
        method = find_method(self.machine, name)
        return lambda *args, **kwargs: self._call(method, args, kwargs)

    @overload
    def call(self, method: Callable[Concatenate[M, P], R], /, *args: P.args, **kwargs: P.kwargs) -> R: ...
    @overload
    def call(self, method: Callable[Concatenate[C, P], R], /, *args: P.args, **kwargs: P.kwargs) -> R: ...
    def call(self, method: Callable[..., R], /, *args: Any, **kwargs: Any) -> R:
        """Call a command or query as its class has it, with its types: `local.call(Inventory.receive, "apple", 3)`.

        Also raises `UnknownMethod` for what is none of this machine. A machine may have a method of this name itself;
        that is called when the first argument is no function.
        """
        result: R = self._call(find_method(self.machine, method), args, kwargs)
        return result

    @overload
    def wait_until(
        self, query: Callable[[M, *Ts], R], /, *args: *Ts, until: Callable[[R], object], timeout_s: float | None = None
    ) -> R: ...
    @overload
    def wait_until(
        self, query: Callable[[C, *Ts], R], /, *args: *Ts, until: Callable[[R], object], timeout_s: float | None = None
    ) -> R: ...
    @overload
    def wait_until(
        self, query: str, /, *args: Any, until: Callable[[Any], object], timeout_s: float | None = None
    ) -> Any: ...
    def wait_until(
        self, query: Any, /, *args: *Ts, until: Callable[[Any], object], timeout_s: float | None = None
    ) -> Any:
        """As that of clients: lets time pass (`advance`) from one thing that is due to the next, until `until` holds.

        Without `timeout_s` no time passes. Raises `TimedOut`.
        """
        method, end_ms = find_method(self.machine, query), self.now_ms + round((timeout_s or 0) * 1000)
        while not until(result := self._call(method, args, {})):
            if self.now_ms >= end_ms:
                raise TimedOut(f"{method.name} gave nothing within {timeout_s or 0:g} s that would do")
            due_ms = self._runner.next_due_ms
            next_ms = end_ms if due_ms is None else min(max(due_ms, self.now_ms + 1), end_ms)
            self.advance((next_ms - self.now_ms) / 1000)
        return result

    def _own_call(self, *args: Any, **kwargs: Any) -> Any:
        """`call` of a machine that has such a method itself. No argument is a function, so it can't be mistaken."""
        asked, rest = (args[0], args[1:]) if args and callable(args[0]) else ("call", args)
        return self._call(find_method(self.machine, asked), rest, kwargs)

    @overload
    def changes(
        self,
        source: Table[K, V],
        after: Cursor = ...,
        *,
        prefix: Any = ...,
        start: Any = ...,
        end: Any = ...,
        old: bool = ...,
    ) -> list[Change[K, V]]: ...
    @overload
    def changes(
        self, source: Set[K], after: Cursor = ..., *, prefix: Any = ..., start: Any = ..., end: Any = ...
    ) -> list[Change[K, None]]: ...
    @overload
    def changes(self, source: Events[V], after: Cursor = ...) -> list[Change[None, V]]: ...
    def changes(self, source: Source, after: Cursor = BEGINNING, **wanted: Any) -> list[Change[Any, Any]]:
        """What was changed behind `after`, of all rows or of some: `local.changes(Inventory.stock, prefix="a")`.

        Raises `Compacted`, `InvalidArgument` for what is not watched and for keys of another type.
        """
        source, found = find_source(self.machine, source), Found([], after)
        while found.after < self._runner.newest:
            more = self._runner.changes(asked(source, found.after, **wanted), 1_000, MIB)
            found = Found(found.changes + more.changes, more.after)
        return [read_change(source, each) for each in found.changes]

    def _own_changes(self, *args: Any, **kwargs: Any) -> Any:
        """`changes` of a machine that has such a method itself."""
        if args and isinstance(args[0], Table | Set | Events):
            return type(self).changes(self, *args, **kwargs)
        return self._call(find_method(self.machine, "changes"), args, kwargs)

    @property
    def cursor(self) -> Cursor:
        """Behind all that was changed so far."""
        return self._runner.newest

    @property
    def index(self) -> int:
        """The index of the last entry; each command is one."""
        return self._runner.applied.index

    @property
    def digest(self) -> int:
        """The state's rolling digest: equal commands at equal times give equal digests."""
        return self._runner.applied.digest

    def _met(self, method: Method, error: BaseException) -> None:
        self._mistake = error

    def _call(self, method: Method, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        encoded = method.encode_args(args, kwargs)
        self._mistake = None
        if method.is_query:
            try:
                return method.decode_result(self._runner.query(encode_query(method.name, encoded), self.now_ms))
            except Rejected as rejected:
                raise as_declared(rejected, method) from rejected.__cause__
        outcome = self.apply(encode_command(NO_SESSION, 0, 0, method.name, encoded))
        if outcome.kind is OutcomeKind.REJECTED:
            raise as_declared(read_rejection(outcome.payload), method) from self._mistake
        return method.decode_result(outcome.payload)

    def advance(self, seconds: float) -> int:
        """Let so much time pass, and run each scheduled command at its time; returns how many were.

        What one of them raises is undone, as in a cluster: see `fired`. Raises `InvalidArgument` for time that would
        go back, and `TooMuchWork` when they schedule each other at once, and so time does not go on.
        """
        if not 0 <= seconds < inf:
            raise InvalidArgument(
                f"time goes on by 0 seconds or more, not by {seconds!r}: set now_ms to try an earlier one"
            )
        before, end_ms = len(self.fired), self.now_ms + round(seconds * 1000)
        stands = 0
        while (due_ms := self._runner.next_due_ms) is not None and due_ms <= end_ms:
            stands = stands + 1 if due_ms <= self.now_ms else 0
            if stands > AT_ONCE_MAX:
                raise TooMuchWork(f"at {self.now_ms} commands have scheduled others {stands} times without any delay")
            self.now_ms = max(self.now_ms, due_ms)
            self._append(EntryKind.DUE, DUE_AT_ONCE)
        self.now_ms = end_ms
        return len(self.fired) - before

    @property
    def timers(self) -> int:
        """How many scheduled commands wait for their time."""
        return self._runner.timers

    @property
    def version(self) -> int:
        """The active one."""
        return self._runner.active.version

    def upgrade(self, version: int | None = None) -> None:
        """Make a version (the newest) active, and do all of its upgrades.

        Raises what a cluster's nodes would stop with, and `Rejected` for what an upgrade has raised.
        """
        schema = self.machine.schema(version)
        self._apply_change(Activation(schema.version, encode_schema(schema)))
        while (kept := self._runner.active.kept) is not None and not kept.failed and kept.left:
            self._apply_change(Step(kept.version, kept.steps))
        if kept is not None and kept.failed:
            raise Rejected("UpgradeFailed", kept.failed)

    def _apply_change(self, change: Activation | Step) -> None:
        self._append(EntryKind.UPGRADE, encode_change(self._runner.tried(change)))

    def apply(self, payload: bytes) -> Outcome:
        """Apply an encoded command, with or without a session, as the next entry."""
        outcome = self._append(EntryKind.COMMAND, payload)
        assert outcome is not None
        return outcome

    def query_raw(self, payload: bytes) -> bytes:
        """Run an encoded query; returns its encoded result."""
        return self._runner.query(payload, self.now_ms)

    @property
    def sessions(self) -> int:
        return self._runner.sessions

    def _append(self, kind: EntryKind, payload: bytes) -> Outcome | None:
        """Apply the next entry."""
        entry = make_entry(self.index + 1, 1, self.now_ms, kind, payload, self._chain)
        (outcome,) = self._runner.apply([entry])
        self._chain = entry.chain
        return outcome


class LocalPart:
    """The commands and queries of a part: `local.locks.acquire(…)`."""

    def __init__(self, whole: LocalMachine[Any], name: str) -> None:
        self._whole = whole
        self._name = name

    def __getattr__(self, name: str) -> Any:
        return getattr(self._whole, f"{self._name}.{name}")
