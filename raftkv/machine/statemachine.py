"""`StateMachine`: the base class of applications. A subclass is checked when its class statement runs."""

from __future__ import annotations

import random
import sys
from collections import deque
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar, Concatenate, ParamSpec, TypeAlias, TypeVar

import msgspec
import xxhash

from raftkv.access import Touch
from raftkv.errors import MachineError
from raftkv.machine.counts import Region
from raftkv.machine.events import Events
from raftkv.machine.expiring import Expiry
from raftkv.machine.forms import Forms
from raftkv.machine.indexes import Indexes
from raftkv.machine.limits import Limits
from raftkv.machine.loans import Loans
from raftkv.machine.methods import NEVER, Method, hook_of, kind_of, line_of, repeats
from raftkv.machine.mixing import check_bases
from raftkv.machine.overlay import KeySpace
from raftkv.machine.parts import Part
from raftkv.machine.recorder import History
from raftkv.machine.scheduler import Scheduler
from raftkv.machine.schema import MethodTypes, PartTypes, Schema, make_schema
from raftkv.machine.tables import Declared, Set, Table, Value
from raftkv.machine.upgrades import Upgrade, target_of

P = ParamSpec("P")
T = TypeVar("T")
Cells: TypeAlias = Table[Any, Any] | Set[Any] | Value[Any] | Events[Any]
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_RESERVED = frozenset(
    {"now", "now_ms", "random", "index", "fingerprint", "version", "oldest_version", "schema"}
    | {"methods", "parts", "upgrades", "upgrades_between", "schedule", "cancel", "touches"}
)
VERSION_MAX = 1_000_000
_CHANGEABLE = (dict, list, set, bytearray, deque)
"""What nobody may keep in a class: it would be state outside of tables."""


class Moment(msgspec.Struct):
    """What a machine may know of the entry that is being applied (for a query: that was applied last)."""

    index: int = 0
    time_ms: int = 0
    """The entry's; for a query, the present."""
    is_told: bool = False
    """Whether a query has asked what time it is: then its result may be another one although nothing has changed."""
    chain: int | None = None
    """Seeds `random`. None for a query, in which each node would draw another number."""
    random: random.Random | None = None
    floor: int = 0
    """Numbers up to it may have been handed out already by another cluster with the same beginning."""

    def next_number(self, last: int) -> int:
        """The first one behind `last` that nobody has had, also not in a cluster of which this one was restored or
        recovered."""
        return max(last, self.floor) + 1


class _Namespace(dict[str, Any]):
    """The names of a class while its body runs; refuses a second command of a name, which Python would let pass."""

    def __setitem__(self, name: str, value: Any) -> None:
        old = self.get(name)
        for known in (old, value):
            if old is not None and (kind_of(known) is not None or isinstance(known, Declared | Part)):
                raise MachineError(
                    f"{_place(value)}: {name} is declared twice, first at {_place(old)}: give one of them another name"
                )
        super().__setitem__(name, value)


def _place(value: Any) -> str:
    if isinstance(value, Declared | Part):
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
        history: History | None = None,
        **kwargs: Any,
    ) -> Any:
        made: Any = super().__new__(cls, name, bases, dict(namespace), **kwargs)
        frame = sys._getframe(1)
        # Types in annotations may be names of the function in which the class is made.
        where = f"{frame.f_code.co_filename}:{frame.f_lineno}: {name}"
        if bases:
            _refuse_state(made, where)
        _declare(made, {**frame.f_locals, **namespace})
        if limits is not None:
            made._limits = _checked(limits, Limits, f"{where}: the limits")
        if history is not None:
            made._history = _checked(history, History, f"{where}: the history")
        check_bases(made, [base for base in made.__mro__[1:] if isinstance(base, _MachineType)][:-1], where)
        _check_versions(made, where)
        made._schemas = {}
        return made


def _checked(settings: Any, kind: type[T], where: str) -> T:
    """Raises `MachineError`, beginning with `where`."""
    try:
        return msgspec.convert(msgspec.to_builtins(settings), kind)
    except (msgspec.ValidationError, TypeError) as exc:
        raise MachineError(f"{where}: {exc}") from exc


def _refuse_state(made: Any, where: str) -> None:
    """Raises `MachineError` for an attribute of the class, or of one that it mixes in, that commands could change."""
    for kind in made.__mro__:
        if kind is not made and isinstance(kind, _MachineType):
            continue  # it was checked when it was made
        for name, value in vars(kind).items():
            if isinstance(value, _CHANGEABLE) and not name.startswith("__"):
                what = name if kind is made else f"{kind.__name__}.{name}"
                raise MachineError(
                    f"{where}: {what} is a {type(value).__name__}, which is forgotten at the next restart, and differs "
                    f"between nodes: declare `{name} = Table(…)`, Set or Value if commands change "
                    f"it, and {_instead(value)} if nobody does"
                )


def _instead(value: Any) -> str:
    """What holds the same, and can't be changed."""
    if isinstance(value, Mapping):
        return "`MappingProxyType({…})`"
    return "a frozenset" if isinstance(value, set) else "bytes" if isinstance(value, bytearray) else "a tuple"


def _wraps_method(value: Any) -> bool:
    return kind_of(getattr(value, "__func__", None) or getattr(value, "fget", None)) is not None


def _declare(made: Any, names: dict[str, Any]) -> None:
    """Collect commands, queries, tables and values, inherited ones too. Raises `MachineError`."""
    methods: dict[str, Method] = {}
    parts: dict[str, Cells] = {}
    upgrades: dict[str, Upgrade] = {}
    composed: dict[str, Part[Any]] = {}
    kinds: dict[str, dict[str, Any]] = {"methods": methods, "parts": parts, "upgrades": upgrades, "_composed": composed}
    for base in reversed([each for each in made.__mro__[1:] if isinstance(each, _MachineType)]):
        for kind, known in kinds.items():
            _inherit(known, vars(base), kind)
    for name, value in list(vars(made).items()):
        if isinstance(value, (Table, Set, Value, Events)):
            _check_name(name, value.line)
            value.bind(name)
            parts[name] = value
            methods.pop(name, None)
        elif isinstance(value, Part):
            _check_name(name, value.line)
            _compose(name, value)
            for known in (methods, parts, upgrades):
                _inherit(known, {name: value}, "")
            composed[name] = value
            methods.update(value.methods)
            parts.update(value.parts)
            upgrades.update(value.upgrades)
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
        elif repeats(value) or hook_of(value) is not None:
            raise MachineError(f"{line_of(value)}: {name} is to run by itself: mark it with @command as well")
        elif target_of(value) is not None:
            _check_name(name, line_of(value))
            upgrades[name] = Upgrade(value, names)
        elif name in methods or name in parts or name in upgrades or name in composed:
            raise MachineError(
                f"{_place(value)}: {name} stands in the place of what a base class declares, and would not be used: "
                "mark it as that is marked, or choose another name"
            )
    made.methods, made.parts, made.upgrades, made._composed = methods, parts, upgrades, composed
    made._hooks = _hooks(methods, parts)


def _compose(name: str, part: Part[Any]) -> None:
    """Make `part` what it is in a class. Raises `MachineError`."""
    machine: Any = part.machine
    if not (isinstance(machine, type) and issubclass(machine, Component)):
        what = getattr(machine, "__name__", repr(machine))
        raise MachineError(
            f"{part.line}: part {name}: {what} is no component: derive it from raftkv.Component instead of StateMachine"
        )
    if part.name:
        raise MachineError(f"{part.line}: part {name}: it is {part.name} already: make a Part for each")
    part.bind(name)


def _inherit(known: dict[str, Any], declared: Mapping[str, Any], kind: str) -> None:
    """Add what a class has declared of a kind to what the classes before it in the order have, in the stead of all that
    it has given another meaning. What it has inherited itself is from one of them."""
    own = {name: each for name, each in declared.get(kind, {}).items() if name.partition(".")[0] in declared}
    for name in [name for name in known if name.partition(".")[0] in declared and name not in own]:
        del known[name]
    known.update(own)


def _hooks(methods: dict[str, Method], parts: dict[str, Cells]) -> dict[str, str]:
    """The commands that run for rows which are over, by table. Raises `MachineError`."""
    hooks: dict[str, str] = {}
    for name, method in methods.items():
        table = hook_of(method.function)
        if table is None:
            continue
        if "." in name:
            table = f"{name.rpartition('.')[0]}.{table}"
            if table not in parts:
                continue  # no version of the whole has it
        part, where = parts.get(table), f"{method.line}: {name}"
        if not isinstance(part, Table) or not part.expires:
            raise MachineError(f"{where}: on_expire({table!r}): there is no `{table} = Table(…, expires=True)`")
        if table in hooks:
            raise MachineError(f"{where}: {hooks[table]} runs for rows of {table} already: let one do the work of both")
        takes = [kind for _, kind, _ in method.takes]
        if method.is_query or tuple(takes[:2]) != part.types or method.required != 2:
            raise MachineError(f"{where}: must be a command that takes a key and a value as {table} has them")
        hooks[table] = name
    return hooks


def _check_versions(made: Any, where: str) -> None:
    """Raises `MachineError` for versions that make no sense."""
    newest, oldest = made.version, made.oldest_version
    for name, value in (("version", newest), ("oldest_version", oldest)):
        if type(value) is not int or not 1 <= value <= VERSION_MAX:
            raise MachineError(f"{where}: {name} must be 1 to {VERSION_MAX}, not {value!r}")
    if oldest > newest:
        raise MachineError(f"{where}: oldest_version is {oldest}, which is above version, {newest}")
    declared = [*made.methods.values(), *made.parts.values(), *made._composed.values()]
    late = [(each.line, each.span.since) for each in declared if each.span != NEVER]
    late += [(each.line, each.to) for each in made.upgrades.values()]
    for line, version in late:
        if version > newest:
            raise MachineError(f"{line}: this is of version {version}, but the class is of version {newest}")


class StateMachine(metaclass=_MachineType):
    """The base of an application's state: tables, single values, commands and queries.

    `class Inventory(StateMachine, limits=Limits(...), history=History(...))` gives its commands other limits than the
    default `Limits`, and keeps more or less of what changes in watched tables than the default `History`.
    `version = 2` in its body says that it is the application's second version: see "Changing your application" in the
    README.
    It has no other state: setting any other attribute raises, as it would neither be replicated nor survive a
    restart. Mistakes in a class raise `MachineError` when the class is made; the text names the line to change.
    """

    methods: ClassVar[dict[str, Method]] = {}
    """Commands and queries by name."""
    parts: ClassVar[dict[str, Cells]] = {}
    """Tables and single values by name."""
    upgrades: ClassVar[dict[str, Upgrade]] = {}
    """By name."""
    _composed: ClassVar[dict[str, Part[Any]]] = {}
    """Machines that are parts of this one, by name."""
    version: int = 1
    """In the class: the version that its code is of. In a method: the version that is active, which may be older."""
    oldest_version: ClassVar[int] = 1
    """The oldest version that the class can still run."""
    _host_decides: ClassVar[bool] = False
    """Whether the program around it says which version is active: a new state begins with the oldest one then."""
    _host_writes: ClassVar[bool] = False
    """Whether the program around it writes to the store too: then nobody counts rows as they come and go."""
    _limits: ClassVar[Limits] = Limits()
    _history: ClassVar[History] = History()
    _schemas: ClassVar[dict[int, Schema]]
    _hooks: ClassVar[dict[str, str]] = {}
    """The commands that run for rows of expiring tables, by table."""
    _overlay: KeySpace
    _views: dict[str, Any]
    _ghosts: Mapping[str, KeySpace]
    _narrowers: Mapping[str, Callable[[bytes], bytes]]
    _indexes: Mapping[str, Indexes]
    _loans: Loans | None
    _expiring: Mapping[str, Expiry]
    _moment: Moment
    _scheduler: Scheduler | None = None
    """None in a query."""

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
        """The log index of the command or upgrade that runs; in a query, of the last one applied.

        What an upgrade is told of time and chance is that of the entry before its own: the leader that tries it
        beforehand has no other, and it must go alike for all.
        """
        return self._moment.index

    @property
    def now_ms(self) -> int:
        """The leader's time of that entry, in milliseconds since the epoch. It never goes back along the log, except at
        `raftkv clock reset`, by which an operator says that it is ahead of the clocks.

        In a query it is the present: what the leader would stamp an entry with, where the leader answers. Elsewhere
        it may lag, but is at least the last entry's time. It does not go back on one node either.
        """
        self._moment.is_told = True
        return self._moment.time_ms

    @property
    def now(self) -> datetime:
        """The same as a datetime in UTC."""
        return _EPOCH + timedelta(milliseconds=self.now_ms)

    @property
    def random(self) -> random.Random:
        """Random numbers, the same on every node: the entry seeds them. Not secret. Commands only."""
        moment = self._moment
        if moment.random is None:
            if moment.chain is None:
                raise TypeError("a query has no dice: each node would draw another number")
            moment.random = random.Random(moment.chain)  # noqa: S311 (being predictable is its purpose)
        return moment.random

    def schedule(
        self,
        when: float | timedelta | datetime,
        command: Callable[Concatenate[Any, P], Any],
        /,
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> int:
        """Have the cluster run a command of this class later, once: `self.schedule(30, Jobs.expire, job_id)`.

        `when` is in so many seconds (or a timedelta) from `now` on, or a datetime with a time zone; what is past is
        due at once. Returns a handle for `cancel`, which may be kept in a table. In the command, `now` is never before
        that time; if it raises, what it did is undone, the nodes' logs say so, and it is not tried again.

        Commands only. Raises `TooManyTimers`, `InvalidArgument` for arguments that the command does not take,
        `TypeError` for what is no time or no command of this class. An active version that does not have the command
        yet keeps nothing; the handle is 0 then.
        """
        if self._scheduler is None:
            raise TypeError("only a command may schedule another one; this is a query")
        return self._scheduler.schedule(self._moment.time_ms, when, command, args, kwargs)

    def cancel(self, handle: int) -> bool:
        """Forget what was scheduled; False when it has run, or was cancelled before. Commands only."""
        if self._scheduler is None:
            raise TypeError("only a command may cancel another one; this is a query")
        return self._scheduler.cancel(handle)

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
                    name: MethodTypes(method.kind, method.takes, method.returns, method.every_ms)
                    for name, method in cls.methods.items()
                    if method.span.has(version)
                },
                {name: _described(part) for name, part in cls.parts.items() if part.span.has(version)},
                (cls._limits.key_bytes, cls._limits.value_bytes, cls._limits.change_bytes, cls._limits.timers),
                {
                    name: dict(part.index)
                    for name, part in cls.parts.items()
                    if isinstance(part, Table) and part.index and part.span.has(version)
                },
                {
                    name: cls._hook(name, version)
                    for name, part in cls.parts.items()
                    if isinstance(part, Table) and part.expires and part.span.has(version)
                },
                *cls._recorded(version),
            )
        return known

    @classmethod
    def _recorded(cls, version: int) -> tuple[dict[str, bool], tuple[int, ...]]:
        """The tables that are watched in this version, with whether old values are kept; and how much of it is."""
        parts = [part for part in cls.parts.values() if part.span.has(version)]
        watched = {part.name: part.watch == "old" for part in parts if isinstance(part, Table | Set) and part.watch}
        if not watched and not any(isinstance(part, Events) for part in parts):
            return {}, ()
        return watched, (cls._history.count, cls._history.bytes, cls._history.age_s)

    @classmethod
    def _hook(cls, table: str, version: int) -> str:
        """The command that runs for a table's rows that are over, in this version; "" when there is none."""
        name = cls._hooks.get(table, "")
        return name if name and cls.methods[name].span.has(version) else ""

    @classmethod
    def touches(cls, name: str, args: tuple[Any, ...]) -> tuple[Touch, ...] | None:
        """All keys that a call reads and writes, so that who may do what can be said by keys; None when that is not
        known.

        To be overridden; nodes ask it of a request before anything else is done with it. `name` is that of a command or
        query, or `watch.` and a table's; the arguments of the latter are where the watched rows begin and end.
        """
        return None

    @classmethod
    def upgrades_between(cls, old: int, new: int) -> list[Upgrade]:
        """What runs, in order, when `new` becomes active after `old`."""
        found = [each for each in cls.upgrades.values() if old < each.to <= new]
        return sorted(found, key=lambda each: each.to)

    @classmethod
    def _counted(cls) -> list[Region]:
        """Where the rows are that are counted."""
        tables = [part for part in cls.parts.values() if isinstance(part, Table | Set)]
        return [] if cls._host_writes else [table.place for table in tables]

    @classmethod
    def fingerprint(cls) -> str:
        """The class's name and a hash of its declarations. Nodes of one cluster must agree in the name."""
        offered = sorted(f"{method.kind} {method.describe()}" for method in cls.methods.values())
        offered += sorted(f"{each.name} every {each.every_ms}" for each in cls.methods.values() if each.every_ms)
        kept = sorted(cls.parts)
        if cls._limits != Limits():
            kept.append(repr(cls._limits))
        if cls.version != 1:
            kept.append(f"version {cls.version}")
        return f"{cls.__name__}/{xxhash.xxh3_64_hexdigest(chr(10).join([*offered, *kept]).encode())}"


def _described(part: Cells) -> PartTypes:
    key, value = part.types
    if isinstance(part, Value):
        return PartTypes("value", key, value, part.default_data)
    kind = "events" if isinstance(part, Events) else "set" if isinstance(part, Set) else "table"
    return PartTypes(kind, key, value)


def _check_name(name: str, line: str) -> None:
    if name in _RESERVED:
        raise MachineError(f"{line}: {name} is a name that every state machine has: choose another one")


class Component(StateMachine):
    """A state machine of which others may be made: `class Locks(Component)`, then `locks = Part(Locks)` in another one,
    or `class App(Inventory, Locks)`. Alone it is a state machine as any other."""

    _is_component: ClassVar[bool] = True
    _forms: Forms
    """In commands, encodes what is kept inside of other values."""
