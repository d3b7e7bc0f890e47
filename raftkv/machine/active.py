"""What of a class is in force while a version is active, and whether the class can run that version at all."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable
from typing import Any

import msgspec

from raftkv.errors import (
    UNREADABLE,
    InvalidArgument,
    NotActive,
    RaftKVError,
    SchemaChanged,
    StateCorruption,
    WrongVersion,
)
from raftkv.machine.expiring import Expiry
from raftkv.machine.grown import Difference, changed, not_grown
from raftkv.machine.indexes import Indexes, indexes_of
from raftkv.machine.limits import Limits
from raftkv.machine.looking import LOOKS
from raftkv.machine.methods import Method
from raftkv.machine.recorder import sources_of
from raftkv.machine.schema import Schema, decode_schema
from raftkv.machine.shapes import fields_checker, narrower, strict_decoder
from raftkv.machine.versions import BUILD, DROP, Kept

Narrower = Callable[[bytes], bytes]


class Offered(msgspec.Struct, frozen=True):
    """A command of the active version."""

    method: Method
    takes: int
    """Arguments at most; a class of a later version may take more."""
    check: Callable[[Any], None]
    """Raises `msgspec.ValidationError` for encoded arguments that the active version does not know."""
    narrow: Narrower | None
    """How the active version would have encoded the result, if otherwise."""


class Active:
    """The active version as a class sees it.

    A class of a later version is narrowed to it: what it keeps and answers is what a class of the active version would
    have kept and answered, by design of the encoding and not by anybody's care.
    """

    def __init__(self, machine: Any, kept: Kept | None) -> None:
        """`kept` is None before any version is active: the class's own counts then.

        Raises `WrongVersion` or `SchemaChanged` when the class can't run it, `StateCorruption`.
        """
        self.machine = machine
        self.kept = kept
        own: Schema = machine.schema()
        if kept is None:
            self.schema, self.version = own, own.version
        else:
            self.schema, self.version = _read(kept), kept.version
            require(machine, self.version, self.schema)
            _require_upgrades(machine, kept)
        key, value, change, timers = self.schema.limits
        self.limits = Limits(key_bytes=key, value_bytes=value, change_bytes=change, timers=timers)
        narrowed = self.version < own.version
        self.commands = self._offered(narrowed)
        self.repeats = {name: each.every_ms for name, each in self.schema.methods.items() if each.every_ms}
        """In which intervals commands repeat by themselves, in milliseconds."""
        self.ghosts = [name for name in machine.parts if name not in self.schema.parts]
        """Tables and values that the active version lacks."""
        self.indexes = self._indexes()
        """By table."""
        self.expiring = {name: Expiry(name, hook) for name, hook in sorted(self.schema.expiring.items())}
        """The tables whose rows may be over."""
        streams = frozenset(name for name, part in self.schema.parts.items() if part.kind == "events")
        self.sources = sources_of(self.schema.watched, streams, self.expiring, self.schema.history)
        """What is recorded of changes."""
        self._query_checks: dict[str, Callable[[Any], None] | None] = {}
        self.narrowers: dict[str, Narrower] = {}
        if narrowed:
            for name, part in self.schema.parts.items():
                narrow = narrower(part.value, self.schema.records, machine.parts[name].types[1])
                if narrow is not None:
                    self.narrowers[name] = narrow

    @classmethod
    def of(cls, machine: Any, kept: Kept | None) -> Active:
        """As a new one, and raising as that does; but what makes a new one dear is done once for each class and schema
        of a process."""
        if kept is None:
            return _made(machine, None)
        return _made(machine, Kept(kept.version, kept.schema)).going_on(kept)

    @property
    def is_upgrading(self) -> bool:
        """Whether upgrades to it are not done yet."""
        return self.kept is not None and bool(self.kept.left)

    def going_on(self, kept: Kept) -> Active:
        """As it is when `kept` is in the state: with the next piece of an upgrade done, mostly this without its work.

        Raises as a new one does.
        """
        if self.kept is None or (self.kept.version, self.kept.schema) != (kept.version, kept.schema):
            return Active.of(self.machine, kept)
        _require_upgrades(self.machine, kept)
        same = copy.copy(self)
        same.kept = kept
        same.indexes = same._indexes()
        return same

    def _indexes(self) -> dict[str, Indexes]:
        left = () if self.kept is None else self.kept.left
        found = {}
        for name, shapes in self.schema.indexes.items():
            kept = indexes_of(name, shapes)
            found[name] = Indexes(kept, tuple(index for index in kept if BUILD + index.name not in left))
        return found

    def _offered(self, narrowed: bool) -> dict[str, Offered]:
        offered, records = {}, self.schema.records
        for name, known in self.schema.methods.items():
            if known.kind != "command":
                continue
            method: Method = self.machine.methods[name]
            narrow = narrower(known.result, records, method.returns) if narrowed else None
            check = strict_decoder(known.arguments, records)
            offered[name] = Offered(method, len(known.arguments), check, narrow)
        return offered

    def command(self, name: str) -> Offered:
        """Raises `NotActive` for a command that only another version has, `InvalidArgument` for one that none has."""
        offered = self.commands.get(name)
        if offered is None:
            method = self.machine.methods.get(name)
            if method is None or method.is_query:
                raise InvalidArgument(f"{self.machine.__name__} has no command {name!r}")
            raise NotActive(f"the command {name} is not one of version {self.version}, which is active")
        return offered

    def query(self, name: str) -> Method:
        """Raises `NotActive` or `InvalidArgument`, likewise."""
        method: Method | None = self.machine.methods.get(name) or LOOKS.get(name)
        if method is None or not method.is_query:
            raise InvalidArgument(f"{self.machine.__name__} has no query {name!r}")
        if not method.span.has(self.version):
            raise NotActive(f"the query {name} is not one of version {self.version}, which is active")
        return method

    def check_query(self, method: Method, args: msgspec.Raw) -> None:
        """Raises `InvalidArgument` for records with fields that this class lacks: it would answer as if they were not
        there."""
        if method.name not in self._query_checks and method.name not in LOOKS:
            # Queries are the class's own, also while an older version is active.
            own: Schema = self.machine.schema(self.version)
            self._query_checks[method.name] = fields_checker(own.methods[method.name].arguments, own.records)
        check = self._query_checks.get(method.name)
        if check is None:
            return
        try:
            check(args)
        except UNREADABLE as exc:
            raise InvalidArgument(f"{method.describe()}: {exc}") from exc

    def check(self, offered: Offered, args: msgspec.Raw) -> None:
        """Raises `InvalidArgument` for arguments that no version takes, `NotActive` for those that a later one does."""
        try:
            offered.check(args)
        except UNREADABLE as exc:
            raise self._refusal(offered.method, args, exc) from exc

    def _refusal(self, method: Method, args: msgspec.Raw, error: Exception) -> RaftKVError:
        if not isinstance(error, RecursionError):
            try:
                method.decode_args(args)
            except InvalidArgument:
                pass
            else:
                if self.version < self.machine.version:
                    text = f"version {self.version}, which is active, refuses it: {error}"
                    return NotActive(f"{method.describe()}: {text}")
                hint = f"version {self.version} is active: is the client's class a later one?"
                return InvalidArgument(f"{method.describe()}: {error} ({hint})")
        return InvalidArgument(f"{method.describe()}: {error}")


@functools.lru_cache(maxsize=64)
def _made(machine: Any, kept: Kept | None) -> Active:
    return Active(machine, kept)


def _read(kept: Kept) -> Schema:
    try:
        return decode_schema(kept.schema)
    except InvalidArgument as exc:
        raise StateCorruption(f"the schema of the active version can't be read: {exc}") from exc


def _require_upgrades(machine: Any, kept: Kept) -> None:
    missing = [name for name in kept.left if not name.startswith((BUILD, DROP)) and name not in machine.upgrades]
    if missing:
        raise WrongVersion(
            f"the upgrade to version {kept.version} of {machine.__name__} is not done, and this class lacks "
            f"{', '.join(missing)}: install a version of the application that has it"
        )


def require(machine: Any, version: int, schema: Schema) -> None:
    """Raises `WrongVersion` or `SchemaChanged` unless the class can run `version`, which is declared as `schema`."""
    name, oldest, newest = machine.__name__, machine.oldest_version, machine.version
    if not oldest <= version <= newest:
        raise WrongVersion(
            f"version {version} of {name} is active, and this class runs {runs(oldest, newest)}: install a version of "
            f"the application that runs version {version}"
        )
    own = machine.schema(version)
    if differences := changed(schema, own) if version == newest else not_grown(schema, own):
        raise SchemaChanged(
            f"version {version} of {name} is active, and this class (of version {newest}) declares it otherwise: "
            f"{listed(differences)}"
        )


def runs(oldest: int, newest: int) -> str:
    """`version 2`, `versions 2 to 4`."""
    return f"version {oldest}" if oldest == newest else f"versions {oldest} to {newest}"


def listed(differences: list[Difference]) -> str:
    """The first few of them, in words."""
    more = len(differences) - _LISTED
    return "; ".join(map(str, differences[:_LISTED])) + (f"; and {more} more" if more > 0 else "")


_LISTED = 5
