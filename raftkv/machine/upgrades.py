"""Upgrades: methods that run once, on every node at the same entry, when a version of the machine becomes active."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, TypeVar, get_type_hints

import msgspec

from raftkv.errors import MachineError
from raftkv.machine.depth import check_nesting, shown
from raftkv.machine.types import check_type

F = TypeVar("F", bound=Callable[..., Any])

_MARK = "_raftkv_upgrade"
_encoder = msgspec.msgpack.Encoder(order="deterministic")


def upgrade(*, to: int) -> Callable[[F], F]:
    """Mark a method that every node runs once, when version `to` becomes active: it may rewrite tables.

    ```python
    @upgrade(to=2)
    def count(self) -> None:                            # at once, within the limits of one command
        self.total = sum(1 for _ in self.stock)

    @upgrade(to=3)
    def tag(self, after: str | None) -> str | None:     # in pieces, between which commands go on
        for sku, item in self.stock.range(after, limit=1_000):
            ...
        return sku                                      # where to go on; None when it is done
    ```

    A method in pieces is called with None first, then with what it has returned, until it returns None; each piece is
    an entry of its own. Meanwhile `to` is active, and commands meet rows that are not rewritten yet. When an upgrade
    raises, nothing is changed on any node; `raftkv upgrade` tries again, with a mended class once all nodes run it.
    Pieces that went well may be replayed: the mended method must do the same in them.
    """

    def marked(function: F) -> F:
        setattr(function, _MARK, to)
        return function

    return marked


def target_of(value: Any) -> int | None:
    """The version that an upgrade leads to; None for what is no upgrade."""
    return getattr(value, _MARK, None) if inspect.isfunction(value) else None


class Upgrade:
    """An upgrade as its class declares it."""

    def __init__(self, function: Callable[..., Any], names: dict[str, Any]) -> None:
        """`names` resolve annotations that refer to the function around the class. Raises `MachineError`."""
        self.function = function
        self.name = function.__name__
        self.to = target_of(function) or 0
        code = function.__code__
        self.line = f"{code.co_filename}:{code.co_firstlineno}"
        where = f"{self.line}: upgrade {self.name}"
        if type(self.to) is not int or self.to < 2:
            raise MachineError(f"{where}: `to` must be the number of a version, 2 or above, not {self.to!r}")
        parameters = list(inspect.signature(function).parameters.values())[1:]
        if inspect.iscoroutinefunction(function) or inspect.isgeneratorfunction(function):
            raise MachineError(f"{where}: must be a plain function; it runs at once, from beginning to end")
        if len(parameters) > 1 or any(each.kind is not each.POSITIONAL_OR_KEYWORD for each in parameters):
            raise MachineError(f"{where}: takes nothing, or (to go on in pieces) where to go on: `after: str | None`")
        self.in_pieces = bool(parameters)
        self._cursor: Any = type(None)
        if self.in_pieces:
            self._cursor = self._type_of(parameters[0].name, names, where)
            check_type(self._cursor, f"{where}, argument {parameters[0].name}")

    def _type_of(self, name: str, names: dict[str, Any], where: str) -> Any:
        try:
            return get_type_hints(self.function, localns=names, include_extras=True)[name]
        except KeyError:
            raise MachineError(f"{where}: argument {name} needs a type, like `{name}: str | None`") from None
        except Exception as exc:  # whatever making a type raises
            raise MachineError(f"{where}: {exc}; a type must be known where the class is made") from exc

    def run(self, machine: Any, cursor: bytes) -> bytes | None:
        """Run it, or its next piece; returns the encoded cursor for the next one, or None when all is done.

        Raises what the method raises, `TypeError` for a cursor of another type, and `RecursionError` for one that is
        nested deeper than `NESTED_MAX`.
        """
        if not self.in_pieces:
            self.function(machine)
            return None
        after = msgspec.msgpack.decode(cursor, type=self._cursor) if cursor else None
        returned = self.function(machine, after)
        if returned is None:
            return None
        data = _encoder.encode(returned)
        check_nesting(data, f"what {self.name} returned")
        try:
            msgspec.msgpack.decode(data, type=self._cursor)
        except msgspec.MsgspecError as exc:
            raise TypeError(f"{self.name} returned {shown(returned)}, which is no {self._cursor}") from exc
        if data == cursor:
            raise ValueError(f"{self.name} returned {shown(returned)} again: it would never be done")
        return data
