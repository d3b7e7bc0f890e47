"""`Table` and `Value`: the replicated parts of a state machine, typed and ordered."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Generic, Protocol, TypeVar, overload

import msgspec

from raftkv.errors import MachineError, StateCorruption, TooMuchWork
from raftkv.machine.keys import KeyCodec, prefix_end
from raftkv.machine.methods import Span
from raftkv.machine.overlay import Access
from raftkv.machine.types import PLAIN, check_type
from raftkv.state import TABLE_PREFIX

K = TypeVar("K")
V = TypeVar("V")
D = TypeVar("D")

# A value may be a set where its type says list or Any: sorted, it is the same bytes on every node.
_encoder = msgspec.msgpack.Encoder(order="deterministic")
_MISSING: Any = object()


class Machine(Protocol):
    """What tables and values use of the state machine that they belong to."""

    _overlay: Access
    """They read and change the state through this."""
    _views: dict[str, Any]
    """The views of the tables that were used, by table name."""
    _ghosts: Mapping[str, Access]
    """What stands for the state in tables and values that the active version lacks."""
    _narrowers: Mapping[str, Callable[[bytes], bytes]]
    """By table or value, how the active version would have encoded what the class has encoded, where that differs."""


class _Codec(Generic[V]):
    """Encodes values of one type, and refuses all others."""

    def __init__(self, kind: Any) -> None:
        self._kind = kind
        self._is_plain = kind in PLAIN
        self._decoder: msgspec.msgpack.Decoder[V] = msgspec.msgpack.Decoder(kind)

    def encode(self, value: V) -> bytes:
        """Raises `TypeError` when `value` is of another type; its fields are checked too."""
        if self._is_plain and type(value) is not self._kind:
            raise TypeError(f"a value must be of type {self._kind.__name__}, not {value!r}")
        try:
            data = _encoder.encode(value)
            if not self._is_plain:
                self._decoder.decode(data)
        except (msgspec.MsgspecError, TypeError, OverflowError) as exc:
            raise TypeError(f"{value!r} can't be stored: {exc}") from exc
        return data

    def narrowed(self, narrower: Callable[[bytes], bytes]) -> Callable[[V], bytes]:
        """`encode` as another version of the class would have it."""

        def encode(value: V) -> bytes:
            try:
                return narrower(self.encode(value))
            except msgspec.MsgspecError as exc:
                raise TypeError(f"{value!r} can't be stored: {exc}") from exc

        return encode

    def decode(self, data: bytes, where: str) -> V:
        try:
            return self._decoder.decode(data)
        except msgspec.MsgspecError as exc:
            raise StateCorruption(
                f"{where} holds a value that is not of the type that the class gives it now ({exc}): "
                "run the version of the application that wrote it, and change types in steps that can read the old ones"
            ) from exc


class _Part:
    """Tables and values have this in common: a name, which gives them their place in the store."""

    def __init__(self, since: int, until: int | None) -> None:
        frame = sys._getframe(2)
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


class Table(_Part, Generic[K, V]):
    """An ordered, replicated mapping, on disk and not in memory: `stock = Table(str, int)` in the class's body.

    Keys are `str`, `bytes`, `int`, or a tuple of these with a fixed length; values are whatever msgspec
    serialises, but for sets. In a method, `self.stock` is a `TableView` of it. `until=3` says that version 3 of the
    machine has no such table any more: what is in it is deleted when version 3 becomes active, behind the upgrades that
    lead there, which may read it.
    """

    def __init__(self, key: type[K], value: type[V], *, since: int = 1, until: int | None = None) -> None:
        super().__init__(since, until)
        self._key_type, self._value_type = key, value

    @property
    def types(self) -> tuple[Any, Any]:
        """Those of its keys and its values."""
        return self._key_type, self._value_type

    def bind(self, name: str) -> None:
        where = f"{self.line}: table {name}"
        super().bind(name)
        check_type(self._value_type, where)
        self.keys: KeyCodec = KeyCodec(self._key_type, where)
        self.values: _Codec[V] = _Codec(self._value_type)

    @overload
    def __get__(self, machine: None, owner: Any) -> Table[K, V]: ...
    @overload
    def __get__(self, machine: Machine, owner: Any) -> TableView[K, V]: ...
    def __get__(self, machine: Machine | None, owner: Any) -> Table[K, V] | TableView[K, V]:
        if machine is None:
            return self
        view: TableView[K, V] | None = machine._views.get(self.name)
        if view is None:
            access = machine._ghosts.get(self.name, machine._overlay)
            view = machine._views[self.name] = TableView(self, access, machine._narrowers.get(self.name))
        return view


class TableView(Generic[K, V]):
    """A table as a command or query sees it. A command sees its own changes at once, others see them when it has ended.

    Values are copies: to change one, set it again. A key or value of another type raises `TypeError`.
    """

    __slots__ = ("_decode", "_encode", "_key", "_overlay", "_prefix", "_table")

    def __init__(self, table: Table[K, V], overlay: Access, narrower: Callable[[bytes], bytes] | None) -> None:
        self._table = table
        self._overlay = overlay
        self._prefix = table.prefix
        self._key = table.keys.encode
        self._encode = table.values.encode if narrower is None else table.values.narrowed(narrower)
        self._decode = table.values.decode

    @overload
    def get(self, key: K) -> V | None: ...
    @overload
    def get(self, key: K, default: D) -> V | D: ...
    def get(self, key: K, default: Any = None) -> Any:
        """The value at `key`, or `default`."""
        data = self._overlay.get(self._prefix + self._key(key))
        return default if data is None else self._decode(data, self._table.name)

    def __getitem__(self, key: K) -> V:
        value = self.get(key, _MISSING)
        if value is _MISSING:
            raise KeyError(key)
        return value

    def __setitem__(self, key: K, value: V) -> None:
        self._overlay.put(self._prefix + self._key(key), self._encode(value), len(self._prefix))

    def __delitem__(self, key: K) -> None:
        place = self._prefix + self._key(key)
        if self._overlay.get(place) is None:
            raise KeyError(key)
        self._overlay.put(place, None, len(self._prefix))

    def __contains__(self, key: K) -> bool:
        return self._overlay.get(self._prefix + self._key(key)) is not None

    @overload
    def pop(self, key: K) -> V | None: ...
    @overload
    def pop(self, key: K, default: D) -> V | D: ...
    def pop(self, key: K, default: Any = None) -> Any:
        """Delete `key` and return its value, or `default` when it is not there."""
        value = self.get(key, _MISSING)
        if value is _MISSING:
            return default
        self._overlay.put(self._prefix + self._key(key), None, len(self._prefix))
        return value

    def range(
        self, start: K | None = None, end: K | None = None, *, reverse: bool = False, limit: int | None = None
    ) -> Iterator[tuple[K, V]]:
        """Items with `start` ≤ key < `end` (None: from the first, to the last), in the order of keys."""
        low = self._prefix if start is None else self._prefix + self._key(start)
        high = self._table.end if end is None else self._prefix + self._key(end)
        return self._items(low, high, reverse, limit)

    def prefix(
        self, prefix: K | tuple[Any, ...], *, reverse: bool = False, limit: int | None = None
    ) -> Iterator[tuple[K, V]]:
        """Items whose key begins with `prefix`: some text or bytes, or some leading parts of a tuple."""
        low = self._prefix + self._table.keys.encode_prefix(prefix)
        high = prefix_end(low)
        assert high is not None, "the table's own prefix ends in 00"
        return self._items(low, high, reverse, limit)

    def items(self) -> Iterator[tuple[K, V]]:
        """All items, in the order of keys."""
        return self.range()

    def __iter__(self) -> Iterator[K]:
        return (key for key, _ in self.range())

    def _items(self, low: bytes, high: bytes, reverse: bool, limit: int | None) -> Iterator[tuple[K, V]]:
        if low >= high or (limit is not None and limit <= 0):
            return
        skip, decode_key = len(self._prefix), self._table.keys.decode
        try:
            for count, (place, data) in enumerate(self._overlay.scan(low, high, reverse=reverse), 1):
                yield decode_key(place[skip:]), self._decode(data, self._table.name)
                if count == limit:
                    return
        except TooMuchWork as exc:
            position = exc.position
            exc.position = position[skip:] if position is not None and low < position < high else None
            raise


class Value(_Part, Generic[V]):
    """A single replicated value: `total = Value(int, 0)` in the class's body; then `self.total += 1` in a command.

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
        self._codec: _Codec[V] = _Codec(self._type)
        # Encoded once: a default that could be changed in place would not be the same on every node.
        try:
            self._default_data = self._codec.encode(self._default)
        except TypeError as exc:
            raise MachineError(f"{where}: the default: {exc}") from exc

    @overload
    def __get__(self, machine: None, owner: Any) -> Value[V]: ...
    @overload
    def __get__(self, machine: Machine, owner: Any) -> V: ...
    def __get__(self, machine: Machine | None, owner: Any) -> Value[V] | V:
        if machine is None:
            return self
        data = machine._ghosts.get(self.name, machine._overlay).get(self.prefix)
        return self._codec.decode(self._default_data if data is None else data, self.name)

    def __set__(self, machine: Machine, value: V) -> None:
        narrower = machine._narrowers.get(self.name)
        encode = self._codec.encode if narrower is None else self._codec.narrowed(narrower)
        machine._ghosts.get(self.name, machine._overlay).put(self.prefix, encode(value), len(self.prefix))

    def encoded(self, value: V) -> tuple[bytes, bytes]:
        """The key of this value, and `value` encoded, for code that writes to the store without a command."""
        return self.prefix, self._codec.encode(value)
