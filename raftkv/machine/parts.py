"""`Part`: a machine as a part of another one, `locks = Part(Locks)`, with tables and methods under the part's name.

A table `held` of the part is the table `locks.held` of the whole, and a command `acquire` is `locks.acquire`. No name
in a class has a dot, so none collides. All that a machine may have works: indexes, rows that expire, what is scheduled
or repeats, versions and upgrades, parts of its own.

An instance of a part and one of the whole share all that they are (their `__dict__`): the part sees the state through
the same overlay, in the same command, at the same time.
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Generic, Protocol, TypeVar, overload

from raftkv.errors import MachineError
from raftkv.machine.methods import NEVER, Method, Span, placed
from raftkv.machine.tables import Declared
from raftkv.machine.upgrades import Upgrade


class AsPart(Protocol):
    """What only a `Component` has: that it may be a part of other machines."""

    _is_component: ClassVar[bool]


C = TypeVar("C", bound=AsPart)


class Part(Generic[C]):
    """A component in another machine: `locks = Part(Locks)` in the body of a class.

    In its commands `self.locks.acquire(…)` runs as a part of them: all is done, or nothing. Clients call
    `client.call(App.locks.acquire, …)`, or `await app.locks.acquire(…)`. Each part has tables of its own, so a machine
    may have two of one kind.

    `since` and `until` are as for a `Table`. A component with versions of its own is at one of them in each version of
    the whole: with `versions={1: 1, 4: 2}` it is at its second from the fourth on, and its upgrade runs then.
    """

    def __init__(
        self,
        machine: type[C],
        *,
        since: int = 1,
        until: int | None = None,
        versions: Mapping[int, int] | None = None,
    ) -> None:
        frame = sys._getframe(1)
        self.line = f"{frame.f_code.co_filename}:{frame.f_lineno}"
        self.name = ""
        self.machine = machine
        self.methods: dict[str, Method] = {}
        """By their names in the whole, as are the others."""
        self.parts: dict[str, Any] = {}
        self.upgrades: dict[str, Upgrade] = {}
        self._given = since, until, versions

    def bind(self, name: str, where: str = "") -> None:
        """Take the name that the class gives; raises `MachineError` for what can't be a part."""
        where = where or f"{self.line}: part {name}"
        since, until, versions = self._given
        self.name = name
        self.versions = _checked(self.machine, since, versions, where)
        """The component's versions, by the version of the whole from which on they are in force."""
        self.span = Span(min(self.versions), until)
        """The versions of the whole that have it."""
        self.span.check(where)
        self._made: Any = self._make(where)

    def at(self, version: int) -> int:
        """The component's version in a version of the whole."""
        reached = [own for whole, own in self.versions.items() if whole <= version]
        return reached[-1] if reached else next(iter(self.versions.values()))

    def _reached(self, version: int) -> int | None:
        """The version of the whole from which on the component is at `version` or a later one."""
        return next((whole for whole, own in self.versions.items() if own >= version), None)

    def mapped(self, span: Span) -> Span:
        """The versions of the whole that are these versions of the component."""
        since = self._reached(span.since)
        ends = [self.span.until, None if span.until is None else self._reached(span.until)]
        until = min((each for each in ends if each is not None), default=None)
        return NEVER if since is None or (until is not None and since >= until) else Span(since, until)

    def _make(self, where: str) -> Any:
        """The component's class, with its tables and methods as those of the part."""
        names: dict[str, Any] = {
            "__module__": self.machine.__module__,
            "__qualname__": self.machine.__qualname__,
            "__doc__": self.machine.__doc__,
            "version": property(lambda machine: self.at(vars(machine)["version"])),
            "_scheduler": property(_scheduler),
        }
        component: Any = self.machine
        methods: dict[str, Method] = {}
        parts: dict[str, Any] = {}
        inner = {name: each._inside(self, where) for name, each in component._composed.items()}
        names.update(inner)
        for name, table in component.parts.items():
            if "." not in name:
                moved = _moved(table, f"{self.name}.{name}", self.mapped(table.span))
                names[name] = parts[name] = self.parts[moved.name] = moved
        own = {name: each for name, each in component.methods.items() if "." not in name}
        for name, method in own.items():
            names[name] = placed(method.function, f"{self.name}.{name}")
        made: Any = type.__new__(type(self.machine), component.__name__, (component,), names)
        for name, method in own.items():
            run, span = _reaching(made, names[name]), self.mapped(method.span)
            methods[name] = method.within(f"{self.name}.{name}", names[name], run, span)
            self.methods[f"{self.name}.{name}"] = methods[name]
        self._take_upgrades(component, made)
        for each in inner.values():
            self.methods.update(each.methods)
            self.parts.update(each.parts)
            self.upgrades.update(each.upgrades)
        made.methods, made.parts, made.upgrades = methods, parts, {}
        return made

    def _take_upgrades(self, component: Any, made: Any) -> None:
        first = next(iter(self.versions.values()))
        for name, upgrade in sorted(component.upgrades.items(), key=lambda each: each[1].to):
            to = self._reached(upgrade.to)
            if "." in name or upgrade.to <= first or to is None or not self.span.has(to):
                continue  # an inner part has its own; what the part begins with needs no upgrade
            moved = copy.copy(upgrade)
            moved.name, moved.to = f"{self.name}.{name}", to
            moved.function = _reaching(made, upgrade.function)
            self.upgrades[moved.name] = moved

    def _inside(self, outer: Part[Any], where: str) -> Part[C]:
        """The same part in a component that is a part itself."""
        span = outer.mapped(self.span)
        versions: dict[int, int] = {}
        for whole, own in outer.versions.items():
            if span.has(max(whole, span.since)) and self.at(own) not in versions.values():
                versions[max(whole, span.since)] = self.at(own)
        if span == NEVER:
            versions = {NEVER.since: next(iter(self.versions.values()))}
        moved: Part[C] = Part(self.machine, until=span.until, versions=versions)
        moved.line = self.line
        moved.bind(f"{outer.name}.{self.name}", where)
        return moved

    @overload
    def __get__(self, machine: None, owner: Any) -> type[C]: ...
    @overload
    def __get__(self, machine: Any, owner: Any) -> C: ...
    def __get__(self, machine: Any, owner: Any) -> type[C] | C:
        made: type[C] = self._made if machine is None else _shared(self._made, machine)
        return made


def _checked(machine: Any, since: int, versions: Mapping[int, int] | None, where: str) -> dict[int, int]:
    """Which version of the component is in force from which version of the whole on. Raises `MachineError`."""
    name, oldest, newest = machine.__name__, machine.oldest_version, machine.version
    if versions is None:
        if newest != 1:
            raise MachineError(
                f"{where}: {name} has versions {oldest} to {newest}: say at which of them it is in which version of "
                f"this class, like `versions={{{since}: {newest}}}`"
            )
        return {since: 1}
    found = dict(sorted(versions.items()))
    if not found or (since != 1 and since != min(found)):
        raise MachineError(f"{where}: it is there since the first of `versions`: leave `since` out")
    own = list(found.values())
    if own != list(range(own[0], own[0] + len(own))):
        raise MachineError(f"{where}: versions={found}: those of {name} must rise one by one")
    if own[0] < oldest or own[-1] > newest:
        raise MachineError(f"{where}: versions={found}: {name} has versions {oldest} to {newest}")
    return found


def _moved(table: Declared, name: str, span: Span) -> Any:
    """A table, value or stream of events as one of a part."""
    moved = copy.copy(table)
    moved.span = span
    moved.bind(name)
    return moved


def _shared(made: Any, machine: Any) -> Any:
    """The instance of a part that goes with one of the whole. Not kept there: such a circle would keep a store open."""
    found = object.__new__(made)
    object.__setattr__(found, "__dict__", vars(machine))
    return found


def _reaching(made: Any, function: Callable[..., Any]) -> Callable[..., Any]:
    """`function` of a part, to be called with the whole."""

    def reach(machine: Any, *args: Any) -> Any:
        return function(_shared(made, machine), *args)

    return reach


def _scheduler(machine: Any) -> Any:
    """Schedules commands of the part, and of the whole; None in a query."""
    scheduler = vars(machine).get("_scheduler")
    return None if scheduler is None else scheduler.within(type(machine))
