"""Commands and queries: what a state machine offers, with the types of their arguments and results."""

from __future__ import annotations

import copy
import inspect
import types
from collections.abc import Callable
from typing import Any, TypeVar, get_type_hints, overload

import msgspec

from raftkv.errors import UNREADABLE, InvalidArgument, MachineError
from raftkv.machine.depth import NESTED_MAX, check_nesting, is_nested_deeper, is_shallow, shown, too_deep
from raftkv.machine.payloads import encode_command, encode_query
from raftkv.machine.schema import NO_DEFAULT
from raftkv.machine.sparing import sparing
from raftkv.machine.types import PLAIN, check_type

F = TypeVar("F", bound=Callable[..., Any])

NO_TEXT = "a text holds half of a surrogate pair, which is no character: send it as bytes, or leave that out"

_SENT = "what is sent"
_MARK = "_raftkv_kind"
_SPAN = "_raftkv_span"
_EVERY = "_raftkv_every"
_ON_EXPIRE = "_raftkv_on_expire"
_PLACE = "_raftkv_place"
EVERY_S_MIN, EVERY_S_MAX = 0.1, 366 * 86_400.0
"""Each turn is an entry, so ten a second are many for an idle cluster."""
# A value may be a set where its type says list or Any: sorted, it is the same bytes on every node.
_encoder = msgspec.msgpack.Encoder(order="deterministic")


@overload
def command(function: F, /) -> F: ...
@overload
def command(*, since: int = 1, until: int | None = None) -> Callable[[F], F]: ...
def command(function: Any = None, /, *, since: int = 1, until: int | None = None) -> Any:
    """Mark a method as a command: it may change tables, goes through the log, and every node runs it.

    `@command(since=2, until=4)` is one of versions 2 and 3 of the machine only: while another is active, calls of it
    are refused with `NotActive`.
    """
    return _mark("command", function, since, until)


@overload
def query(function: F, /) -> F: ...
@overload
def query(*, since: int = 1, until: int | None = None) -> Callable[[F], F]: ...
def query(function: Any = None, /, *, since: int = 1, until: int | None = None) -> Any:
    """Mark a method as a query: it only reads, on one node, and never gets into the log.

    `since` and `until` as for a `command`.
    """
    return _mark("query", function, since, until)


def every(seconds: float) -> Callable[[F], F]:
    """Have a command without arguments run by itself, again and again: from when the version that has it becomes
    active, until one does that lacks it.

    ```python
    @command
    @every(60)
    def sweep(self) -> None: ...
    ```

    Turns that were missed, as no node led, are one turn. The interval is part of the class's version.
    """

    def marked(function: F) -> F:
        setattr(function, _EVERY, seconds)
        return function

    return marked


def on_expire(table: str) -> Callable[[F], F]:
    """Have a command run for each row of an expiring table whose time has come, with its key and value.

    ```python
    leases = Table(str, Lease, expires=True)

    @command
    @on_expire("leases")
    def gave_up(self, key: str, lease: Lease) -> None: ...
    ```

    It runs soon after that time, once, in the entry that removes the row, which is not there any more. What it raises
    is undone and in the nodes' logs; the row is gone all the same. Clients can call it too, as any command.
    """

    def marked(function: F) -> F:
        setattr(function, _ON_EXPIRE, table)
        return function

    return marked


def hook_of(value: Any) -> str | None:
    """The table whose rows `value` runs for, if it is marked with `on_expire`."""
    return getattr(value, _ON_EXPIRE, None) if inspect.isroutine(value) else None


def repeats(value: Any) -> bool:
    """Whether `value` is marked with `every`."""
    return inspect.isroutine(value) and hasattr(value, _EVERY)


def _mark(kind: str, function: Any, since: int, until: int | None) -> Any:
    def marked(function: Any) -> Any:
        setattr(function, _MARK, kind)
        setattr(function, _SPAN, Span(since, until))
        return function

    return marked if function is None else marked(function)


class Span(msgspec.Struct, frozen=True):
    """The versions of a machine that have something: from `since` on, and before `until`."""

    since: int = 1
    until: int | None = None

    def has(self, version: int) -> bool:
        """Whether `version` is one of them."""
        return self.since <= version and (self.until is None or version < self.until)

    def check(self, where: str) -> None:
        """Raises `MachineError`, beginning with `where`."""
        for name, value in (("since", self.since), ("until", self.until)):
            if value is not None and (type(value) is not int or value < 1):
                raise MachineError(f"{where}: {name} must be the number of a version, 1 or above, not {value!r}")
        if self.until is not None and self.until <= self.since:
            raise MachineError(f"{where}: no version has it, as it is until {self.until} and since {self.since}")


ALWAYS = Span()
NEVER = Span(since=2**31)
"""What a component has in none of the versions at which it is a part: its code may name it, and finds nothing there."""


def kind_of(value: Any) -> str | None:
    """ "command" or "query"; None when `value` was marked as neither."""
    return getattr(value, _MARK, None) if inspect.isroutine(value) else None


class Method:
    """A command or query as its class declares it.

    `encode_args` and `decode_result` are the client's side, `decode_args` and `encode_result` the node's.
    """

    def __init__(self, function: Callable[..., Any], names: dict[str, Any]) -> None:
        """`names` resolve annotations that refer to the function around the class. Raises `MachineError`, which tells
        the line to change."""
        self.function = function
        self.run = function
        """What is called with the machine: the function, or what gives it the part that it is a method of."""
        self.name = function.__name__
        self.kind = kind_of(function) or ""
        self.is_query = self.kind == "query"
        self.line = line_of(function)
        self._where = f"{self.line}: {self.kind} {self.name}"
        self.span: Span = getattr(function, _SPAN, ALWAYS)
        """The versions of the machine that have it."""
        self.span.check(self._where)
        signature = inspect.signature(function)
        parameters = self._check(list(signature.parameters.values()))
        hints = self._hints(names)
        self.signature = signature.replace(parameters=parameters)
        self._described = self._describe(signature.return_annotation)
        self._types = [hints[parameter.name] for parameter in parameters]
        self.arity = len(self._types)
        """How many arguments it takes."""
        self.every_ms = self._interval()
        """In which interval it repeats by itself; 0: it does not."""
        self._result_type = hints["return"]
        for parameter, kind in zip(parameters, self._types, strict=True):
            check_type(kind, f"{self._where}, argument {parameter.name}")
        check_type(self._result_type, f"{self._where}, result")
        self._args: msgspec.msgpack.Decoder[Any] = msgspec.msgpack.Decoder(_arguments(self._types))
        self._defaults = self._encoded_defaults(parameters)
        self.required = len(self._types) - len(self._defaults)
        """How many of them have no default."""
        self._sparing = sparing(self._types)
        self.is_shallow = is_shallow(self._types)
        """Whether arguments can't be nested deeper than their types are written."""
        self.returns_shallow = is_shallow([self._result_type])
        """Likewise its result."""
        self._result: msgspec.msgpack.Decoder[Any] = msgspec.msgpack.Decoder(self._result_type)
        self._is_plain = self._result_type in (*PLAIN, type(None))

    def _check(self, parameters: list[inspect.Parameter]) -> list[inspect.Parameter]:
        if self.name.startswith("_"):
            raise MachineError(f"{self._where}: the name of a {self.kind} must not begin with an underscore")
        if inspect.iscoroutinefunction(self.function) or inspect.isgeneratorfunction(self.function):
            raise MachineError(f"{self._where}: must be a plain function; it runs at once, from beginning to end")
        for parameter in parameters[1:]:
            if parameter.kind not in (parameter.POSITIONAL_OR_KEYWORD, parameter.POSITIONAL_ONLY):
                raise MachineError(f"{self._where}: argument {parameter} must be a plain argument, without a star")
            if parameter.annotation is parameter.empty:
                raise MachineError(
                    f"{self._where}: argument {parameter.name} needs a type, like `{parameter.name}: str`"
                )
        if inspect.signature(self.function).return_annotation is inspect.Signature.empty:
            raise MachineError(f"{self._where}: the result needs a type, like `-> None`")
        return parameters[1:]

    def _interval(self) -> int:
        seconds: int | float | None = getattr(self.function, _EVERY, None)
        if seconds is None:
            return 0
        if self.is_query or self.arity:
            raise MachineError(f"{self._where}: only a command without arguments can be repeated")
        if type(seconds) not in (int, float) or not EVERY_S_MIN <= seconds <= EVERY_S_MAX:
            raise MachineError(f"{self._where}: every({seconds!r}): must be {EVERY_S_MIN:g} to {EVERY_S_MAX:g} seconds")
        return round(seconds * 1000)

    def _hints(self, names: dict[str, Any]) -> dict[str, Any]:
        try:
            return get_type_hints(self.function, localns=names, include_extras=True)
        except Exception as exc:  # a NameError, a SyntaxError in a quoted annotation, or what making a type raises
            raise MachineError(f"{self._where}: {exc}; a type must be known where the class is made") from exc

    def _encoded_defaults(self, parameters: list[inspect.Parameter]) -> list[bytes]:
        """The defaults of the last arguments. Encoded once: one that could be changed in place would not be the same
        on every node."""
        encoded = []
        for parameter, kind in zip(parameters, self._types, strict=True):
            if parameter.default is parameter.empty:
                continue  # Python lets none follow that has a default
            try:
                encoded.append(_encoder.encode(parameter.default))
                msgspec.msgpack.decode(encoded[-1], type=kind)
            except (TypeError, OverflowError, msgspec.MsgspecError) as exc:
                raise MachineError(f"{self._where}, argument {parameter.name}: the default: {exc}") from exc
        return encoded

    @property
    def takes(self) -> list[tuple[str, Any, Any]]:
        """The arguments: name, type, and the default, or `NO_DEFAULT`."""
        given = [each.default for each in self.signature.parameters.values()]
        defaults = [NO_DEFAULT if default is inspect.Parameter.empty else default for default in given]
        return list(zip(self.signature.parameters, self._types, defaults, strict=True))

    @property
    def returns(self) -> Any:
        """The type of the result."""
        return self._result_type

    def within(self, name: str, function: Callable[..., Any], run: Callable[..., Any], span: Span) -> Method:
        """The same as a method of a part, called `name` in the whole."""
        made = copy.copy(self)
        made._described = name + self._described[len(self.name) :]
        made.function, made.run, made.name, made.span = function, run, name, span
        made._where = f"{self.line}: {self.kind} {name}"
        return made

    def describe(self) -> str:
        """`receive(sku: str, quantity: int) -> int`."""
        return self._described

    def _describe(self, returned: Any) -> str:
        arguments = [f"{each.name}: {_written(each.annotation)}" for each in self.signature.parameters.values()]
        return f"{self.name}({', '.join(arguments)}) -> {_written(returned)}"

    @property
    def types(self) -> dict[str, Any]:
        return dict(zip(self.signature.parameters, self._types, strict=True))

    def encode_args(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bytes:
        """The arguments of a call, checked and encoded. Raises `InvalidArgument`, from a `RecursionError` when they are
        nested deeper than `NESTED_MAX`.

        What is at its default is left out: a node of an older version can read that, and one of a newer version knows
        the default.
        """
        data = b""
        try:
            if kwargs or len(args) != len(self._types):
                bound = self.signature.bind(*args, **kwargs)
                bound.apply_defaults()
                args = bound.args  # in most calls all arguments are positional, and this is not needed
            data = _encoder.encode(args)
            self._args.decode(data)
            if not self.is_shallow:
                check_nesting(data, _SENT)
        except (TypeError, OverflowError, RecursionError, msgspec.MsgspecError) as exc:
            # That they are too deep comes first: an interpreter may not get to look at their types.
            cause = too_deep(_SENT) if is_nested_deeper(data, NESTED_MAX) else exc
            raise InvalidArgument(f"{self.describe()}: {cause}") from cause
        except UnicodeEncodeError as exc:
            raise InvalidArgument(f"{self.describe()}: {NO_TEXT} ({exc})") from exc
        if self._defaults:
            data = self._without_defaults(args, data)
        return data if self._sparing is None else self._sparing(data)

    def _without_defaults(self, args: tuple[Any, ...], data: bytes) -> bytes:
        count = len(args)
        while count > self.required and _encoder.encode(args[count - 1]) == self._defaults[count - 1 - self.required]:
            count -= 1
        return data if count == len(args) else _encoder.encode(args[:count])

    def command_payload(self, session_id: int, sequence: int, acked_below: int, args: bytes) -> bytes:
        """The command with these encoded arguments, as an entry's payload."""
        return encode_command(session_id, sequence, acked_below, self.name, args)

    def query_payload(self, args: bytes) -> bytes:
        """The query with these encoded arguments, as a request's payload."""
        return encode_query(self.name, args)

    def decode_result(self, payload: bytes) -> Any:
        """Raises `InvalidArgument` when the result is of another type: the node has another version of the class."""
        try:
            return self._result.decode(payload)
        except UNREADABLE as exc:
            raise InvalidArgument(
                f"{self.describe()}: the result is of another type ({exc}): does the cluster run another version?"
            ) from exc

    def decode_args(self, args: msgspec.Raw) -> tuple[Any, ...]:
        """Raises `InvalidArgument`."""
        try:
            if self._defaults:
                args = self._with_defaults(args)
            return self._args.decode(args)  # type: ignore[no-any-return]
        except UNREADABLE as exc:
            raise InvalidArgument(f"{self.describe()}: {exc}") from exc

    def _with_defaults(self, args: msgspec.Raw) -> msgspec.Raw:
        """The encoded arguments, and behind them the defaults of those that were left out."""
        count, body = read_array_header(args)
        missing = len(self._types) - count
        if not 0 < missing <= len(self._defaults):
            return args
        header = write_array_header(len(self._types))
        return msgspec.Raw(b"".join([header, memoryview(args)[body:], *self._defaults[-missing:]]))

    def encode_result(self, result: Any) -> bytes:
        """Raises `TypeError` when it is not of the annotated type."""
        data = _encoder.encode(result)
        if self._is_plain and type(result) is self._result_type:
            return data
        try:
            self._result.decode(data)
        except msgspec.MsgspecError as exc:
            check_nesting(data, f"the result of {self.name}")  # comes first, as an interpreter may not write it
            text = f"{self.name} returned {shown(result)}, but says that it returns {self._result_type}"
            raise TypeError(text) from exc
        return data


def method_of(machine: Any, function: object) -> Method | None:
    """The command or query of `machine` whose function this is, its own or a base class's; None when there is none."""
    name = name_of(function)
    method: Method | None = machine.methods.get(name)
    if method is not None and method.function is function:
        return method
    declared = any(vars(base).get(name) is function for base in machine.__mro__)
    return method if declared else None


def name_of(function: object) -> str:
    """What a command or query is called, in a part by the name of the part too; "" for what has no name."""
    return str(getattr(function, _PLACE, "") or getattr(function, "__name__", ""))


def placed(function: Any, name: str) -> Any:
    """A copy of a function, which is called `name` in the machine that it is in a part of."""
    made = types.FunctionType(
        function.__code__, function.__globals__, function.__name__, function.__defaults__, function.__closure__
    )
    made.__kwdefaults__, made.__annotations__ = function.__kwdefaults__, function.__annotations__
    made.__doc__, made.__qualname__, made.__module__ = function.__doc__, function.__qualname__, function.__module__
    made.__dict__.update(function.__dict__)
    setattr(made, _PLACE, name)
    return made


def _arguments(types: list[Any]) -> Any:
    return tuple[tuple(types)] if types else tuple[()]  # type: ignore[misc]


def read_array_header(data: msgspec.Raw | bytes) -> tuple[int, int]:
    """How many items a msgpack array has, and where the first begins; (-1, 0) for what is no array."""
    view = memoryview(data)
    if not view:
        return -1, 0
    if view[0] & 0xF0 == 0x90:
        return view[0] & 0x0F, 1
    size = {0xDC: 2, 0xDD: 4}.get(view[0], 0)
    return (int.from_bytes(view[1 : 1 + size], "big"), 1 + size) if size else (-1, 0)


def write_array_header(count: int) -> bytes:
    """How a msgpack array of so many items begins."""
    return bytes([0x90 | count]) if count < 16 else b"\xdc" + count.to_bytes(2, "big")


def _written(annotation: Any) -> str:
    """An annotation as it is written in the source, whether Python has evaluated it or not."""
    return annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)


def line_of(function: Callable[..., Any]) -> str:
    """ "file:line" of a function."""
    code = function.__code__
    return f"{code.co_filename}:{code.co_firstlineno}"
