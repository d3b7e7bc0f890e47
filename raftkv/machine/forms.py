"""Encodes what a command keeps inside of other values, where no type is declared, as the active version would.

Tables and values know the types that they are of, so what goes into them is narrowed anyhow (see `Active`). A recipe
that keeps an application's own objects as bytes does not; it would keep other bytes where a later class has added a
field, and the nodes would not agree any more.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import msgspec

from raftkv.errors import InvalidArgument
from raftkv.machine.active import Active
from raftkv.machine.depth import check_nesting, shown
from raftkv.machine.grown import same_shape
from raftkv.machine.schema import describe
from raftkv.machine.shapes import narrower

_encoder = msgspec.msgpack.Encoder(order="deterministic")

Form = Callable[[bytes], bytes]


class Forms:
    """How the active version encodes records; made once for each type."""

    def __init__(self, active: Active) -> None:
        self._active = active
        self._forms: dict[type, Form | None] = {}

    def encode(self, value: object) -> bytes:
        """Raises `TypeError` for what can't be encoded, and for a record of a type that the machine does not declare:
        then nothing tells what the active version has of it. Raises `RecursionError` for what is nested deeper than
        `NESTED_MAX`."""
        try:
            data = _encoder.encode(self._plain(value))
        except (msgspec.MsgspecError, InvalidArgument, OverflowError) as exc:
            raise TypeError(f"{shown(value)} can't be kept: {exc}") from exc
        check_nesting(data, "a value that is to be kept")
        return data

    def _plain(self, value: Any) -> Any:
        """The same with its records encoded.

        One call for each value within another, on every interpreter: comprehensions are calls before Python 3.12 only.
        """
        if isinstance(value, dict):
            plain = {}
            for key, each in value.items():
                plain[key] = self._plain(each)
            return plain
        if isinstance(value, msgspec.Struct) or dataclasses.is_dataclass(value) or hasattr(value, "_fields"):
            form, data = self._form(type(value)), _encoder.encode(value)
            return msgspec.Raw(data if form is None else form(data))
        if isinstance(value, list | tuple):
            items = list(value)
            for place, each in enumerate(items):
                items[place] = self._plain(each)
            return items
        return value

    def _form(self, kind: type) -> Form | None:
        if kind not in self._forms:
            self._forms[kind] = self._make(kind)
        return self._forms[kind]

    def _make(self, kind: type) -> Form | None:
        schema = self._active.schema
        (shape,), own = describe([kind])
        if shape.name not in schema.records:
            raise TypeError(
                f"{kind.__name__} is nothing that version {schema.version} of {schema.machine} declares: have the "
                "command take or return it, or keep what it is made of"
            )
        return None if same_shape(shape, schema.records, shape, own) else narrower(shape, schema.records, kind)
