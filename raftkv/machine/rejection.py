"""`Rejection`: the errors that a state machine declares, which arrive at its clients as what they are."""

from __future__ import annotations

import builtins
import dataclasses
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any, ClassVar, TypeVar, dataclass_transform, get_type_hints
from weakref import WeakSet

import msgspec

from raftkv.errors import UNREADABLE, MachineError, NotActive, Rejected
from raftkv.machine.depth import check_nesting, shown
from raftkv.machine.methods import Method
from raftkv.machine.types import check_type

R = TypeVar("R", bound="Rejection")

_RESERVED = frozenset(vars(Rejected("", ""))) | frozenset(dir(Exception)) | {"fields_type", "encode_fields"}
_encoder = msgspec.msgpack.Encoder(order="deterministic")
_declared: WeakSet[type[Rejection]] = WeakSet()


@dataclass_transform(eq_default=False, field_specifiers=(dataclasses.field,))
class Rejection(Rejected):
    """The base of the errors that a state machine's commands and queries raise on purpose.

    ```python
    class LeaseLost(Rejection):
        job: int
        owner: str = ""

    raise LeaseLost(job=7)      # in a command or query; every client gets a LeaseLost with job == 7
    ```

    Fields are annotated as those of a dataclass are, and have types as results have. Fields with a default may be
    added later. A client whose class has no rejection of this name gets a `Rejected` with its name and text. The name
    is all that a client goes by, so give each its own. The text lists the fields, unless there is a `__str__`.
    Mistakes in a declaration raise `MachineError` with its line.
    """

    _decoder: ClassVar[msgspec.msgpack.Decoder[Any]] = msgspec.msgpack.Decoder(dict[str, msgspec.Raw])

    def __init__(self) -> None:
        """Subclasses get one that takes their fields."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        _declare(cls, sys._getframe(1))

    @property
    def error_type(self) -> str:  # type: ignore[override]  # it is always the class's
        """The class's name."""
        return type(self).__name__

    @property
    def message(self) -> str:  # type: ignore[override]  # it follows from the fields
        """What the text says behind the name."""
        if type(self).__str__ is not Rejection.__str__:
            return str(self)
        return ", ".join(f"{name}={value!r}" for name, value in self._fields().items())

    @property
    def fields(self) -> bytes:  # type: ignore[override]
        """The fields as they are sent. Raises `TypeError` when one is not of its type, `RecursionError` when they are
        nested deeper than `NESTED_MAX`."""
        try:
            data = _encoder.encode(self._fields())
            check_nesting(data, self.error_type)
            # Without those that are at their defaults: a node of an older version has no field that was added later.
            data = _encoder.encode(self._decoder.decode(data))
        except (msgspec.MsgspecError, TypeError, OverflowError, AttributeError) as exc:
            raise TypeError(f"{shown(self)} can't be sent: {exc}") from exc
        return data

    def __str__(self) -> str:
        message = self.message
        return f"{self.error_type}: {message}" if message else self.error_type

    def __repr__(self) -> str:
        return f"{self.error_type}({', '.join(f'{name}={value!r}' for name, value in self._fields().items())})"

    def __reduce__(self) -> tuple[Callable[..., Rejection], tuple[Any, ...]]:
        return _make, (type(self), self._fields())

    def _fields(self) -> dict[str, Any]:
        names = getattr(self, "__dataclass_fields__", {})
        return {name: getattr(self, name) for name in names}


def _make(kind: type[R], fields: dict[str, Any]) -> R:
    return kind(**fields)


def _declare(made: type[Rejection], frame: FrameType) -> None:
    """Make a dataclass of it, with a decoder of its fields. Raises `MachineError`."""
    where = f"{frame.f_code.co_filename}:{frame.f_lineno}: rejection {made.__name__}"
    if "__init__" in vars(made):
        raise MachineError(f"{where}: must have no __init__: what it tells is in its fields, like `job: int`")
    for name in vars(made).get("__annotations__", {}):
        if name.startswith("_") or name in _RESERVED:
            raise MachineError(f"{where}: the field can't be called {name}: choose another name")
    try:
        dataclasses.dataclass(eq=False, repr=False)(made)
    except (TypeError, ValueError) as exc:
        raise MachineError(f"{where}: {exc}") from exc
    try:
        hints = get_type_hints(made, localns=dict(frame.f_locals), include_extras=True)
    except Exception as exc:  # a NameError, a SyntaxError in quotes, whatever a type does when it is made
        raise MachineError(f"{where}: {exc}; a type must be known where the class is made") from exc
    kept: list[Any] = []
    for field in dataclasses.fields(made):  # type: ignore[arg-type]  # it is one now
        check_type(hints[field.name], f"{where}, field {field.name}")
        if field.default is not dataclasses.MISSING:
            kept.append((field.name, hints[field.name], field.default))
        elif field.default_factory is not dataclasses.MISSING:
            kept.append((field.name, hints[field.name], msgspec.field(default_factory=field.default_factory)))
        else:
            kept.append((field.name, hints[field.name]))
    made._decoder = msgspec.msgpack.Decoder(msgspec.defstruct(made.__name__, kept, kw_only=True, omit_defaults=True))
    _declared.add(made)


def is_mistake(error: BaseException) -> bool:
    """Whether a command or query that raises this has a mistake in it, as far as anybody can tell.

    Python's own exceptions are: TypeError, AttributeError, AssertionError, RecursionError, … But ValueError and
    LookupError (KeyError, IndexError) are what methods raise to refuse a call, as are all classes of an application or
    of a library, and every `Rejection`.
    """
    return type(error).__module__ == "builtins" and _is_mistake(type(error))


def is_mistake_named(error_type: str) -> bool:
    """The same of an exception of which only the class's name is known."""
    return _is_mistake(getattr(builtins, error_type, None))


def _is_mistake(kind: object) -> bool:
    return (
        isinstance(kind, type) and issubclass(kind, BaseException) and not issubclass(kind, (ValueError, LookupError))
    )


def as_declared(rejected: Rejected, method: Method) -> Rejected:
    """What `method` has raised: the rejection that it declares by this name, or `rejected` when nobody knows that."""
    if not rejected.fields:
        if rejected.error_type == NotActive.__name__:
            return NotActive(rejected.message)
        if is_mistake_named(rejected.error_type):
            rejected.add_note(
                f"This looks like a mistake in {method.name} ({method.line}): the log of the nodes has the traceback, "
                "in lines method_raised."
            )
        return rejected
    kind = _find(rejected.error_type, method.function)
    if kind is None:
        return rejected
    try:
        fields = kind._decoder.decode(rejected.fields)
    except UNREADABLE:
        return rejected  # of another version, or of another's of the same name
    return kind(**{name: getattr(fields, name) for name in fields.__struct_fields__})


def _find(name: str, function: Callable[..., Any]) -> type[Rejection] | None:
    """The rejection that `function` knows by this name: as the code that raises it does, or else of its module."""
    cells = dict(zip(function.__code__.co_freevars, function.__closure__ or (), strict=True))
    near = cells[name].cell_contents if name in cells else function.__globals__.get(name)
    if isinstance(near, type) and issubclass(near, Rejection) and near is not Rejection:
        return near
    called_so = [kind for kind in list(_declared) if kind.__name__ == name]
    of_module = [kind for kind in called_so if kind.__module__ == function.__module__]
    found = of_module or called_so
    return found[0] if len(found) == 1 else None
