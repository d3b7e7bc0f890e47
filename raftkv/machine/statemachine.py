"""`StateMachine`: the base class of applications. A subclass is checked when its class statement runs."""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar

import msgspec
import xxhash

from raftkv.errors import MachineError
from raftkv.machine.limits import Limits
from raftkv.machine.methods import Method, kind_of, line_of
from raftkv.machine.overlay import Access
from raftkv.machine.schema import MethodTypes, PartTypes, Schema, make_schema
from raftkv.machine.tables import Table, Value, _Part
from raftkv.machine.upgrades import Upgrade, target_of

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_RESERVED = frozenset(
    {"now", "now_ms", "random", "index", "fingerprint", "version", "oldest_version", "schema"}
    | {"methods", "parts", "upgrades", "upgrades_between"}
)
VERSION_MAX = 1_000_000


class Moment(msgspec.Struct):
    """What a machine may know of the entry that is being applied (for a query: that was applied last)."""

    index: int = 0
    time_ms: int = 0
    chain: int | None = None
    """Seeds `random`. None for a query, in which each node would draw another number."""
    random: random.Random | None = None


class _Namespace(dict[str, Any]):
    """The names of a class while its body runs; refuses a second command of a name, which Python would let pass."""

    def __setitem__(self, name: str, value: Any) -> None:
        old = self.get(name)
        for known in (old, value):
            if old is not None and (kind_of(known) is not None or isinstance(known, _Part)):
                raise MachineError(
                    f"{_place(value)}: {name} is declared twice, first at {_place(old)}: give one of them another name"
                )
        super().__setitem__(name, value)


def _place(value: Any) -> str:
    if isinstance(value, _Part):
        return value.line
    return line_of(value) if hasattr(value, "__code__") else repr(value)


class _MachineType(type):
    """Runs the body of a state machine's class in a `_Namespace`, and checks what it declares."""

    @classmethod
    def __prepare__(cls, name: str, bases: tuple[type, ...], /, **kwargs: Any) -> _Namespace:
        return _Namespace()

    def __new__(
        cls,
        name: str,
        bases: tuple[type, ...],
        namespace: dict[str, Any],
        /,
        limits: Limits | None = None,
        **kwargs: Any,
    ) -> Any:
        made: Any = super().__new__(cls, name, bases, dict(namespace), **kwargs)
        frame = sys._getframe(1)
        # Types in annotations may be names of the function in which the class is made.
        _declare(made, {**frame.f_locals, **namespace})
        where = f"{frame.f_code.co_filename}:{frame.f_lineno}: {name}"
        if limits is not None:
            made._limits = _checked(limits, where)
        _check_versions(made, where)
        made._schemas = {}
        return made


def _checked(limits: Any, where: str) -> Limits:
    """Raises `MachineError`, beginning with `where`."""
    try:
        return msgspec.convert(msgspec.to_builtins(limits), Limits)
    except (msgspec.ValidationError, TypeError) as exc:
        raise MachineError(f"{where}: the limits: {exc}") from exc


def _wraps_method(value: Any) -> bool:
    return kind_of(getattr(value, "__func__", None) or getattr(value, "fget", None)) is not None


def _declare(made: Any, names: dict[str, Any]) -> None:
    """Collect commands, queries, tables and values, inherited ones too. Raises `MachineError`."""
    methods: dict[str, Method] = {}
    parts: dict[str, Table[Any, Any] | Value[Any]] = {}
    upgrades: dict[str, Upgrade] = {}
    for base in reversed(made.__mro__[1:]):
        methods.update(vars(base).get("methods", {}))
        parts.update(vars(base).get("parts", {}))
        upgrades.update(vars(base).get("upgrades", {}))
    for name, value in list(vars(made).items()):
        if isinstance(value, (Table, Value)):
            _check_name(name, value.line)
            value.bind(name)
            parts[name] = value
            methods.pop(name, None)
        elif isinstance(value, staticmethod | classmethod | property) and _wraps_method(value):
            raise MachineError(f"{made.__module__}.{made.__qualname__}.{name}: a command or query is a plain method")
        elif kind_of(value) is not None:
            _check_name(name, line_of(value))
            methods[name] = Method(value, names)
            parts.pop(name, None)
        elif name == "__init__":
            raise MachineError(
                f"{line_of(value)}: a state machine has no __init__: what it is, is in its tables and values"
            )
        elif target_of(value) is not None:
            _check_name(name, line_of(value))
            upgrades[name] = Upgrade(value, names)
        elif name in methods or name in parts or name in upgrades:
            raise MachineError(
                f"{_place(value)}: {name} stands in the place of what a base class declares, and would not be used: "
                "mark it as that is marked, or choose another name"
            )
    made.methods, made.parts, made.upgrades = methods, parts, upgrades


def _check_versions(made: Any, where: str) -> None:
    """Raises `MachineError` for versions that make no sense."""
    newest, oldest = made.version, made.oldest_version
    for name, value in (("version", newest), ("oldest_version", oldest)):
        if type(value) is not int or not 1 <= value <= VERSION_MAX:
            raise MachineError(f"{where}: {name} must be 1 to {VERSION_MAX}, not {value!r}")
    if oldest > newest:
        raise MachineError(f"{where}: oldest_version is {oldest}, which is above version, {newest}")
    late = {each.line: each.span.since for each in [*made.methods.values(), *made.parts.values()]}
    late.update((each.line, each.to) for each in made.upgrades.values())
    for line, version in late.items():
        if version > newest:
            raise MachineError(f"{line}: this is of version {version}, but the class is of version {newest}")


class StateMachine(metaclass=_MachineType):
    """The base of an application's state: tables, single values, commands and queries.

    `class Inventory(StateMachine, limits=Limits(...))` gives its commands other limits than the default `Limits`.
    `version = 2` in its body says that it is the application's second version: see "Changing your application" in the
    README.
    It has no other state: setting any other attribute raises, as it would neither be replicated nor survive a
    restart. Mistakes in a class raise `MachineError` when the class is made; the text names the line to change.
    """

    methods: ClassVar[dict[str, Method]] = {}
    """Commands and queries by name."""
    parts: ClassVar[dict[str, Table[Any, Any] | Value[Any]]] = {}
    """Tables and single values by name."""
    upgrades: ClassVar[dict[str, Upgrade]] = {}
    """By name."""
    version: int = 1
    """In the class: the version that its code is of. In a method: the version that is active, which may be older."""
    oldest_version: ClassVar[int] = 1
    """The oldest version that the class can still run."""
    _host_decides: ClassVar[bool] = False
    """Whether the program around it says which version is active: a new state begins with the oldest one then."""
    _limits: ClassVar[Limits] = Limits()
    _schemas: ClassVar[dict[int, Schema]]
    _overlay: Access
    _views: dict[str, Any]
    _ghosts: Mapping[str, Access]
    _narrowers: Mapping[str, Callable[[bytes], bytes]]
    _moment: Moment

    def __setattr__(self, name: str, value: Any) -> None:
        part = self.parts.get(name)
        if not isinstance(part, Value):
            raise AttributeError(
                f"{type(self).__name__}.{name} can't be set: it would be forgotten at the next restart, "
                f"and differ between nodes; declare `{name} = Value(…)` or a Table in the class"
            )
        part.__set__(self, value)

    def _version_raised(self) -> None:
        """Called when an entry has made another version active, for a host that keeps more than the state. Upgrades
        would not do for that: a leader tries them before."""

    @property
    def index(self) -> int:
        """The log index of the command that runs; in a query, of the last one applied."""
        return self._moment.index

    @property
    def now_ms(self) -> int:
        """The leader's time of that entry, in milliseconds since the epoch. It never goes back along the log, except at
        `raftkv clock reset`, by which an operator says that it is ahead of the clocks."""
        return self._moment.time_ms

    @property
    def now(self) -> datetime:
        """The same as a datetime in UTC."""
        return _EPOCH + timedelta(milliseconds=self._moment.time_ms)

    @property
    def random(self) -> random.Random:
        """Random numbers, the same on every node: the entry seeds them. Not secret. Commands only."""
        moment = self._moment
        if moment.random is None:
            if moment.chain is None:
                raise TypeError("a query has no dice: each node would draw another number")
            moment.random = random.Random(moment.chain)  # noqa: S311 (being predictable is its purpose)
        return moment.random

    @classmethod
    def schema(cls, version: int | None = None) -> Schema:
        """What the class declares of a version (the newest): tables, single values, commands, queries and limits."""
        version = cls.version if version is None else version
        known = cls._schemas.get(version)
        if known is None:
            known = cls._schemas[version] = make_schema(
                cls.__name__,
                version,
                {
                    name: MethodTypes(method.kind, method.takes, method.returns)
                    for name, method in cls.methods.items()
                    if method.span.has(version)
                },
                {name: _described(part) for name, part in cls.parts.items() if part.span.has(version)},
                (cls._limits.key_bytes, cls._limits.value_bytes, cls._limits.change_bytes),
            )
        return known

    @classmethod
    def upgrades_between(cls, old: int, new: int) -> list[Upgrade]:
        """What runs, in order, when `new` becomes active after `old`."""
        found = [each for each in cls.upgrades.values() if old < each.to <= new]
        return sorted(found, key=lambda each: each.to)

    @classmethod
    def fingerprint(cls) -> str:
        """The class's name and a hash of its declarations. Nodes of one cluster must agree in the name."""
        offered = sorted(f"{method.kind} {method.describe()}" for method in cls.methods.values())
        kept = sorted(cls.parts)
        if cls._limits != Limits():
            kept.append(repr(cls._limits))
        if cls.version != 1:
            kept.append(f"version {cls.version}")
        return f"{cls.__name__}/{xxhash.xxh3_64_hexdigest(chr(10).join([*offered, *kept]).encode())}"


def _described(part: Table[Any, Any] | Value[Any]) -> PartTypes:
    key, value = part.types
    if isinstance(part, Value):
        return PartTypes("value", key, value, part.default_data)
    return PartTypes("table", key, value)


def _check_name(name: str, line: str) -> None:
    if name in _RESERVED:
        raise MachineError(f"{line}: {name} is a name that every state machine has: choose another one")
