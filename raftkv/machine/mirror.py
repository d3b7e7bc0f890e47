"""Methods of a class that one does not have, made from its schema: to call them, their types are all that it takes."""

from __future__ import annotations

from collections.abc import Callable
from inspect import Parameter, Signature
from typing import Any

import msgspec

from raftkv.machine.methods import Method, command, query
from raftkv.machine.schema import Argument, MethodSchema, Schema, Shape
from raftkv.machine.shadows import typer


def mirrored(schema: Schema) -> dict[str, Method]:
    """The commands and queries of a schema. Their results are decoded to dicts, lists and plain values.

    Raises `InvalidArgument` when msgspec has no such types.
    """
    type_of = typer(schema.records)
    return {name: _method(name, known, type_of) for name, known in schema.methods.items()}


def _method(name: str, known: MethodSchema, type_of: Callable[[Shape], Any]) -> Method:
    def function(*_: Any) -> Any:
        raise TypeError(f"{name} is only known by its schema: nodes run it")

    kinds = {each.name: type_of(each.shape) for each in known.arguments}
    own = Parameter("self", Parameter.POSITIONAL_ONLY)
    arguments = [_parameter(each, kinds[each.name]) for each in known.arguments]
    function.__name__ = function.__qualname__ = name
    function.__annotations__ = {**kinds, "return": Any}
    function.__signature__ = Signature(  # type: ignore[attr-defined]
        [own, *arguments], return_annotation=str(known.result)
    )
    return Method(command(function) if known.kind == "command" else query(function), {})


def _parameter(argument: Argument, kind: Any) -> Parameter:
    default = Parameter.empty if argument.default is None else msgspec.msgpack.decode(argument.default, type=kind)
    return Parameter(argument.name, Parameter.POSITIONAL_OR_KEYWORD, default=default, annotation=str(argument.shape))
