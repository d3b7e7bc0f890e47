"""`Events`: a stream of typed events that commands emit, kept in the history of changes and nowhere else."""

from __future__ import annotations

import functools
from typing import Any, Generic, TypeVar, Union, overload

from raftkv.errors import MachineError
from raftkv.machine.codec import Codec
from raftkv.machine.tables import Declared, Machine
from raftkv.machine.types import check_type

E = TypeVar("E")
A = TypeVar("A")
B = TypeVar("B")
C = TypeVar("C")
D = TypeVar("D")


class Emitter(Generic[E]):
    """A stream of events as a command sees it."""

    __slots__ = ("_emit", "_encode")

    def __init__(self, emit: Any, encode: Any) -> None:
        self._emit, self._encode = emit, encode

    def emit(self, event: E) -> None:
        """Tell those who watch, once the command has ended; if it raises, nobody is told. Commands only.

        Raises `TypeError` for what is no event of this stream, `TooLarge`.
        """
        self._emit(self._encode(event))


class Events(Declared, Generic[E]):
    """A stream of events: `shipped = Events(OrderShipped, OrderLost)` in the class's body, then
    `self.shipped.emit(OrderShipped(…))` in a command.

    Events are of one of these types (if of several, Structs with tags), in the order of the log. They are kept as long
    as the machine's `History` says. `until` is as for a `Table`.
    """

    @overload
    def __init__(self, one: type[E], /, *, since: int = 1, until: int | None = None) -> None: ...
    @overload
    def __init__(
        self: Events[A | B], one: type[A], two: type[B], /, *, since: int = 1, until: int | None = None
    ) -> None: ...
    @overload
    def __init__(
        self: Events[A | B | C],
        one: type[A],
        two: type[B],
        three: type[C],
        /,
        *,
        since: int = 1,
        until: int | None = None,
    ) -> None: ...
    @overload
    def __init__(
        self: Events[A | B | C | D],
        one: type[A],
        two: type[B],
        three: type[C],
        four: type[D],
        /,
        *,
        since: int = 1,
        until: int | None = None,
    ) -> None: ...
    @overload
    def __init__(self: Events[Any], /, *kinds: type[Any], since: int = 1, until: int | None = None) -> None: ...
    def __init__(self, /, *kinds: Any, since: int = 1, until: int | None = None) -> None:
        super().__init__(since, until)
        self._kinds = kinds

    @property
    def types(self) -> tuple[None, Any]:
        """That of keys, as there are none, and that of events."""
        return None, self._type

    def bind(self, name: str) -> None:
        where = f"{self.line}: events {name}"
        super().bind(name)
        if not self._kinds:
            raise MachineError(f"{where}: say of which types they are, as in `Events(OrderShipped)`")
        try:
            self._type: Any = Union[self._kinds]  # noqa: UP007 (made of a tuple)
        except TypeError as exc:
            raise MachineError(f"{where}: events are of one or several types, not {self._kinds!r}") from exc
        check_type(self._type, where)
        self.values: Codec[E] = Codec(self._type)

    @overload
    def __get__(self, machine: None, owner: Any) -> Events[E]: ...
    @overload
    def __get__(self, machine: Machine, owner: Any) -> Emitter[E]: ...
    def __get__(self, machine: Machine | None, owner: Any) -> Events[E] | Emitter[E]:
        if machine is None:
            return self
        emitter: Emitter[E] | None = machine._views.get(self.name)
        if emitter is None:
            access = machine._ghosts.get(self.name, machine._overlay)
            encode = self.values.narrowed(machine._narrowers.get(self.name))
            emitter = machine._views[self.name] = Emitter(functools.partial(access.emit, self.name), encode)
        return emitter
