"""`Table`, `Set` and `Value`: the replicated parts of a state machine, typed and ordered."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import Any, Generic, Literal, Protocol, TypeAlias, TypeVar, overload

from raftkv.errors import MachineError
from raftkv.machine.codec import Codec
from raftkv.machine.counts import Region
from raftkv.machine.expiring import Expiry, Present
from raftkv.machine.indexes import NO_INDEXES, Indexes, check_indexes
from raftkv.machine.keys import KeyCodec
from raftkv.machine.loans import Loans
from raftkv.machine.methods import Span
from raftkv.machine.overlay import KeySpace
from raftkv.machine.sets import SetView
from raftkv.machine.types import check_type
from raftkv.machine.view import Layout, Means, View
from raftkv.state import TABLE_PREFIX

Watch: TypeAlias = bool | Literal["old"]

K = TypeVar("K")
V = TypeVar("V")


class Machine(Protocol):
    """What tables and values use of the state machine that they belong to."""

    _overlay: KeySpace
    """They read and change the state through this."""
    _views: dict[str, Any]
    """The views of the tables that were used, by table name."""
    _ghosts: Mapping[str, KeySpace]
    """What stands for the state in tables and values that the active version lacks."""
    _narrowers: Mapping[str, Callable[[bytes], bytes]]
    """By table or value, how the active version would have encoded what the class has encoded, where that differs."""
    _indexes: Mapping[str, Indexes]
    """Those of the active version, by table."""
    _loans: Loans | None
    """Watches values that a command reads."""
    _expiring: Mapping[str, Expiry]
    """The tables of the active version whose rows may be over, by name."""

    @property
    def _moment(self) -> Present:
        """Knows what time it is."""


class Declared:
    """Tables and values have this in common: a name, which gives them their place in the store."""

    def __init__(self, since: int, until: int | None) -> None:
        frame = sys._getframe(2)
        while frame.f_globals.get("__name__") == __name__ and frame.f_back is not None:
            frame = frame.f_back
        self.line = f"{frame.f_code.co_filename}:{frame.f_lineno}"
        self.span = Span(since, until)
        """The versions of the machine that have it."""
        self.name = ""
        self.prefix = b""
        self.end = b""

    def bind(self, name: str) -> None:
        """Take the name that the class gives; raises `MachineError` for wrong types."""
        self.span.check(f"{self.line}: {name}")
        self.name = name
        self.prefix = TABLE_PREFIX + name.encode() + b"\0"
        self.end = TABLE_PREFIX + name.encode() + b"\1"


class _Table(Declared, Generic[K, V]):
    """What tables and sets have in common."""

    def __init__(self, key: type[K], value: Any, since: int, until: int | None) -> None:
        super().__init__(since, until)
        self._key_type, self._value_type = key, value
        self.expires = False
        """Whether its rows may be over at a time."""
        self.watch: Watch = False
        """Whether its changes are recorded, and with "old" the values before."""

    @property
    def types(self) -> tuple[Any, Any]:
        """Those of its keys and its values."""
        return self._key_type, self._value_type

    @property
    def place(self) -> Region:
        """Where its rows are."""
        return self._rows.place

    def bind(self, name: str) -> None:
        where = f"{self.line}: table {name}"
        super().bind(name)
        check_type(self._value_type, where)
        if self.watch not in (False, True, "old"):
            raise MachineError(f'{where}: `watch` must be True, or "old" to keep the values before, not {self.watch!r}')
        self.keys: KeyCodec = KeyCodec(self._key_type, where)
        self.values: Codec[V] = Codec(self._value_type)
        self._rows = Layout(Region(name, self.prefix, self.end), self.keys, self.values, self.expires)

    def _view(self, machine: Machine) -> View[K, V]:
        """How the machine sees it."""
        access = machine._ghosts.get(self.name, machine._overlay)
        indexes = machine._indexes.get(self.name, NO_INDEXES)
        encode = self.values.narrowed(machine._narrowers.get(self.name))
        expiry = machine._expiring.get(self.name)
        times = None if expiry is None else (expiry, machine._moment)
        return View(self._rows, Means(access, encode, machine._loans, indexes.kept, indexes.built, times))


class Table(_Table[K, V]):
    """An ordered, replicated mapping, on disk and not in memory: `stock = Table(str, int)` in the class's body.

    Keys are `str`, `bytes`, `int`, or a tuple of these with a fixed length; values are whatever msgspec
    serialises, but for sets. In a method, `self.stock` is a `View` of it. `index={"state": str}` finds rows by a field
    of their values too, of a type as keys have it: `self.jobs.by("state", "ready")`. With `expires=True`, rows are
    there until a time, `self.leases.put(key, lease, ttl_s=30)`, at which a command may run: see `on_expire`.
    With `watch=True` its changes are kept for a while, for those who watch it; with `watch="old"` the values before as
    well. `until=3` says that version 3 of the machine has no such table any more: what is in it is deleted when version
    3 becomes active, behind the upgrades that lead there, which may read it.
    """

    def __init__(
        self,
        key: type[K],
        value: type[V],
        *,
        index: Mapping[str, Any] | None = None,
        expires: bool = False,
        watch: Watch = False,
        since: int = 1,
        until: int | None = None,
    ) -> None:
        super().__init__(key, value, since, until)
        self.index = {} if index is None else index
        """The fields that are indexed, with their types."""
        self.expires = expires
        self.watch = watch

    def bind(self, name: str) -> None:
        super().bind(name)
        check_indexes(self.index, self._value_type, f"{self.line}: table {name}")

    @overload
    def __get__(self, machine: None, owner: Any) -> Table[K, V]: ...
    @overload
    def __get__(self, machine: Machine, owner: Any) -> View[K, V]: ...
    def __get__(self, machine: Machine | None, owner: Any) -> Table[K, V] | View[K, V]:
        if machine is None:
            return self
        view: View[K, V] | None = machine._views.get(self.name)
        if view is None:
            view = machine._views[self.name] = self._view(machine)
        return view


class Set(_Table[K, None]):
    """An ordered, replicated set of keys: `seen = Set(str)` in the class's body. In a method, `self.seen` is a
    `SetView` of it. All else is as for a `Table`."""

    def __init__(
        self, key: type[K], *, watch: Literal[False, True] = False, since: int = 1, until: int | None = None
    ) -> None:
        super().__init__(key, None, since, until)
        self.watch = watch

    @overload
    def __get__(self, machine: None, owner: Any) -> Set[K]: ...
    @overload
    def __get__(self, machine: Machine, owner: Any) -> SetView[K]: ...
    def __get__(self, machine: Machine | None, owner: Any) -> Set[K] | SetView[K]:
        if machine is None:
            return self
        view: SetView[K] | None = machine._views.get(self.name)
        if view is None:
            view = machine._views[self.name] = SetView(self._view(machine))
        return view


class Value(Declared, Generic[V]):
    """A single replicated value: `total = Value(int, 0)` in the class's body; then `self.total += 1` in a command.

    Where a class that is made from that one sets it, write `total: Value[int] = Value(int, 0)`: without a type there,
    pyright takes what the other class sets for an attribute of its own, as with any descriptor.

    `until` is as for a `Table`.
    """

    def __init__(self, kind: type[V], default: V, *, since: int = 1, until: int | None = None) -> None:
        super().__init__(since, until)
        self._type, self._default = kind, default

    @property
    def types(self) -> tuple[None, Any]:
        """That of its keys, as it has none, and that of the value."""
        return None, self._type

    @property
    def default_data(self) -> bytes:
        """The default, encoded."""
        return self._default_data

    def bind(self, name: str) -> None:
        where = f"{self.line}: value {name}"
        super().bind(name)
        check_type(self._type, where)
        self._codec: Codec[V] = Codec(self._type)
        # Encoded once: a default that could be changed in place would not be the same on every node.
        try:
            self._default_data = self._codec.encode(self._default)
        except (TypeError, RecursionError) as exc:
            raise MachineError(f"{where}: the default: {exc}") from exc

    @overload
    def __get__(self, machine: None, owner: Any) -> Value[V]: ...
    @overload
    def __get__(self, machine: Machine, owner: Any) -> V: ...
    def __get__(self, machine: Machine | None, owner: Any) -> Value[V] | V:
        if machine is None:
            return self
        data = machine._ghosts.get(self.name, machine._overlay).get(self.prefix)
        value = self._codec.decode(self._default_data if data is None else data, self.name)
        if self._codec.is_mutable and machine._loans is not None:
            self._lend(machine._loans, machine, value, data)
        return value

    def _lend(self, loans: Loans, machine: Machine, value: V, data: bytes | None) -> None:
        encode, name = self._codec.narrowed(machine._narrowers.get(self.name)), self.name
        loans.lend(
            value,
            self._default_data if data is None else data,
            self.prefix,
            encode,
            lambda data: self._codec.decode(data, name),
            lambda: f"self.{name}",
            is_default=data is None,
        )

    def __set__(self, machine: Machine, value: V) -> None:
        narrower = machine._narrowers.get(self.name)
        data = self._codec.narrowed(narrower)(value)
        machine._ghosts.get(self.name, machine._overlay).put(self.prefix, data, len(self.prefix))
        if self._codec.is_mutable and machine._loans is not None:
            machine._loans.set_again(value, data, self.prefix)

    def encoded(self, value: V) -> tuple[bytes, bytes]:
        """The key of this value, and `value` encoded, for code that writes to the store without a command."""
        return self.prefix, self._codec.encode(value)
