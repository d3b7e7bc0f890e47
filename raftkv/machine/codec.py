"""Encodes values of tables and single values, and refuses those of another type."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, Generic, TypeVar

import msgspec

from raftkv.errors import StateCorruption
from raftkv.machine.depth import check_nesting, is_shallow, shown
from raftkv.machine.types import PLAIN, is_mutable

V = TypeVar("V")

# A value may be a set where its type says list or Any: sorted, it is the same bytes on every node.
_encoder = msgspec.msgpack.Encoder(order="deterministic")
_NAME = "a value that is to be stored"


class Codec(Generic[V]):
    """Encodes values of one type, and refuses all others."""

    def __init__(self, kind: Any) -> None:
        self._kind = kind
        self._is_plain = kind in PLAIN
        self._decoder: msgspec.msgpack.Decoder[V] = msgspec.msgpack.Decoder(kind)
        self.is_mutable = is_mutable(kind)
        """Whether a value that was read can be changed in place, which changes nothing in the state."""
        self._is_shallow = is_shallow([kind])

    def encode(self, value: V, narrower: Callable[[bytes], bytes] | None = None) -> bytes:
        """`value`, as another version of the class would have it with `narrower`.

        Raises `TypeError` when it is of another type; its fields are checked too. Raises `RecursionError` when it is
        nested deeper than `NESTED_MAX`.
        """
        if self._is_plain and type(value) is not self._kind:
            raise TypeError(f"a value must be of type {self._kind.__name__}, not {shown(value)}")
        data = b""
        try:
            data = _encoder.encode(value)
            if not self._is_plain:
                self._decoder.decode(data)
            if narrower is not None:
                data = narrower(data)
        except (msgspec.MsgspecError, TypeError, OverflowError) as exc:
            check_nesting(data, _NAME)  # on another interpreter, nobody has come to see the type of what is too deep
            raise TypeError(f"{shown(value)} can't be stored: {exc}") from exc
        if not self._is_shallow:
            check_nesting(data, _NAME)
        return data

    def narrowed(self, narrower: Callable[[bytes], bytes] | None) -> Callable[[V], bytes]:
        """`encode` as another version of the class would have it; None stands for this version."""
        return self.encode if narrower is None else functools.partial(self.encode, narrower=narrower)

    def decode(self, data: bytes, where: str) -> V:
        """Raises `StateCorruption`, which names `where`, for what was written as another type."""
        try:
            return self._decoder.decode(data)
        except msgspec.MsgspecError as exc:
            raise StateCorruption(
                f"{where} holds a value that is not of the type that the class gives it now ({exc}): "
                "run the version of the application that wrote it, and change types in steps that can read the old ones"
            ) from exc
