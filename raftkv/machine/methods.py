"""Commands and queries: what a state machine offers, with the types of their arguments and results."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, TypeVar, get_type_hints

import msgspec

from raftkv.errors import UNREADABLE, InvalidArgument, MachineError
from raftkv.machine.depth import is_shallow
from raftkv.machine.payloads import encode_command, encode_query
from raftkv.machine.types import check_type

F = TypeVar("F", bound=Callable[..., Any])

_MARK = "_raftkv_kind"
# A value may be a set where its type says list or Any: sorted, it is the same bytes on every node.
_encoder = msgspec.msgpack.Encoder(order="deterministic")


def command(function: F) -> F:
    """Mark a method as a command: it may change tables, goes through the log, and every node runs it."""
    setattr(function, _MARK, "command")
    return function


def query(function: F) -> F:
    """Mark a method as a query: it only reads, on one node, and never gets into the log."""
    setattr(function, _MARK, "query")
    return function


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
        self.name = function.__name__
        self.kind = kind_of(function) or ""
        self.is_query = self.kind == "query"
        self.line = line_of(function)
        self._where = f"{self.line}: {self.kind} {self.name}"
        signature = inspect.signature(function)
        parameters = self._check(list(signature.parameters.values()))
        hints = self._hints(names)
        self.signature = signature.replace(parameters=parameters)
        self._described = self._describe(signature.return_annotation)
        self._types = [hints[parameter.name] for parameter in parameters]
        self._result_type = hints["return"]
        for parameter, kind in zip(parameters, self._types, strict=True):
            check_type(kind, f"{self._where}, argument {parameter.name}")
        check_type(self._result_type, f"{self._where}, result")
        self._args: msgspec.msgpack.Decoder[Any] = msgspec.msgpack.Decoder(
            tuple[tuple(self._types)] if self._types else tuple[()]  # type: ignore[misc]
        )
        self.is_shallow = is_shallow(self._types)
        """Whether arguments can't be nested deeper than their types are written."""
        self._result: msgspec.msgpack.Decoder[Any] = msgspec.msgpack.Decoder(self._result_type)

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

    def _hints(self, names: dict[str, Any]) -> dict[str, Any]:
        try:
            return get_type_hints(self.function, localns=names, include_extras=True)
        except Exception as exc:  # a NameError, a SyntaxError in a quoted annotation, or what making a type raises
            raise MachineError(f"{self._where}: {exc}; a type must be known where the class is made") from exc

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
        """The arguments of a call, checked and encoded. Raises `InvalidArgument`."""
        try:
            if kwargs or len(args) != len(self._types):
                bound = self.signature.bind(*args, **kwargs)
                bound.apply_defaults()
                args = bound.args  # in most calls all arguments are positional, and this is not needed
            data = _encoder.encode(args)
            self._args.decode(data)
        except (TypeError, OverflowError, msgspec.MsgspecError) as exc:
            raise InvalidArgument(f"{self.describe()}: {exc}") from exc
        return data

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
            return self._args.decode(args)  # type: ignore[no-any-return]
        except UNREADABLE as exc:
            raise InvalidArgument(f"{self.describe()}: {exc}") from exc

    def encode_result(self, result: Any) -> bytes:
        """Raises `TypeError` when it is not of the annotated type."""
        data = _encoder.encode(result)
        try:
            self._result.decode(data)
        except msgspec.MsgspecError as exc:
            raise TypeError(f"{self.name} returned {result!r}, but says that it returns {self._result_type}") from exc
        return data


def _written(annotation: Any) -> str:
    """An annotation as it is written in the source, whether Python has evaluated it or not."""
    return annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)


def line_of(function: Callable[..., Any]) -> str:
    """ "file:line" of a function."""
    code = function.__code__
    return f"{code.co_filename}:{code.co_firstlineno}"
