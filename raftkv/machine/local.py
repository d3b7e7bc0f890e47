"""A state machine without any cluster, for unit tests of an application."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar

from raftkv.disk.simulated import SimDisk
from raftkv.entry import Entry, make_entry
from raftkv.errors import Rejected
from raftkv.machine.methods import Method
from raftkv.machine.outcome import Outcome, OutcomeKind, read_rejection
from raftkv.machine.payloads import NO_SESSION, encode_command, encode_query
from raftkv.machine.rejection import as_declared
from raftkv.machine.runner import Runner
from raftkv.machine.schema import encode_schema
from raftkv.machine.statemachine import StateMachine
from raftkv.machine.versions import Activation, Kept, Step, encode_change, encode_kept
from raftkv.model import GENESIS_CHAIN, EntryKind
from raftkv.state import VERSION_KEY, Applied, MemoryStore

M = TypeVar("M", bound=StateMachine)

START_MS = 1_577_836_800_000
"""The first entry's time by default: 2020-01-01, so that tests have the same results every day."""


class LocalMachine(Generic[M]):
    """Runs the state machine `machine` in memory, each command as an entry of its own.

    ```python
    local = LocalMachine(Inventory)
    assert local.receive("apple", 3) == 3
    assert local.on_hand("apple") == 3
    ```

    Commands and queries are its methods; their arguments are checked and encoded as in a cluster. They raise
    `Rejected` for what the method raised, `InvalidArgument` for wrong arguments. Tests may set `now_ms`, the time
    of the next entry.
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
        self._runner = Runner(machine, store, on_mistake=self._met)
        self._mistake: BaseException | None = None
        self._chain = GENESIS_CHAIN

    def __getattr__(self, name: str) -> Callable[..., Any]:
        method = self.machine.methods.get(name)
        if method is None:
            known = ", ".join(self.machine.methods)
            raise AttributeError(f"{self.machine.__name__} has no command or query {name!r}; it has {known}")
        return lambda *args, **kwargs: self._call(method, args, kwargs)

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
                return method.decode_result(self._runner.query(encode_query(method.name, encoded)))
            except Rejected as rejected:
                raise as_declared(rejected, method) from rejected.__cause__
        outcome = self.apply(encode_command(NO_SESSION, 0, 0, method.name, encoded))
        if outcome.kind is OutcomeKind.REJECTED:
            raise as_declared(read_rejection(outcome.payload), method) from self._mistake
        return method.decode_result(outcome.payload)

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
        payload = encode_change(self._runner.tried(change))
        entry = make_entry(self.index + 1, 1, self.now_ms, EntryKind.UPGRADE, payload, self._chain)
        self._runner.apply([entry])
        self._chain = entry.chain

    def apply(self, payload: bytes) -> Outcome:
        """Apply an encoded command, with or without a session, as the next entry."""
        entry = self._next_entry(payload)
        (outcome,) = self._runner.apply([entry])
        self._chain = entry.chain
        assert outcome is not None
        return outcome

    def query_raw(self, payload: bytes) -> bytes:
        """Run an encoded query; returns its encoded result."""
        return self._runner.query(payload)

    @property
    def sessions(self) -> int:
        return self._runner.sessions

    def _next_entry(self, payload: bytes) -> Entry:
        return make_entry(self.index + 1, 1, self.now_ms, EntryKind.COMMAND, payload, self._chain)
