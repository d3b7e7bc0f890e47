"""How calls and states become bytes: as pickles, or as MessagePack, which executes nothing.

**Unpickling bytes from the network is code execution.** This is the only module of raftkv that unpickles. `settings`
allows it only when all senders are on this machine, or have shown a certificate.
"""

from __future__ import annotations

import io
import pickle
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable
from typing import Any, ClassVar

import msgspec


class Codec(ABC):
    """Turns values into bytes and back. All nodes of a cluster must use the same codec."""

    name: ClassVar[str]

    @abstractmethod
    def dump(self, value: Any, write: Callable[[bytes], Any]) -> None:
        """Encode `value`, and pass it to `write`, in pieces if that saves memory. Raises what its classes raise."""

    @abstractmethod
    def load(self, data: io.BufferedIOBase) -> Any:
        """Decode the value at the beginning of `data`, and leave the rest unread."""

    def dumps(self, value: Any) -> bytes:
        """`value` as bytes."""
        pieces: list[bytes] = []
        self.dump(value, lambda piece: pieces.append(bytes(piece)))
        return b"".join(pieces)

    def loads(self, data: bytes) -> Any:
        """The value in `data`."""
        return self.load(io.BytesIO(data))

    def call(self, pickled: bytes) -> bytes:
        """Encode a call for the log, from the pickle that the decorator in *this* process has just made.

        The call is decoded here once, so that nothing gets into the log that nodes can't decode.
        """
        value = pickle.loads(pickled)  # noqa: S301 (made in this process, from this process's objects)
        return self._call(value, pickled)

    @abstractmethod
    def _call(self, value: Any, pickled: bytes) -> bytes:
        """As `call`, with the pickle's decoded value at hand."""


class PickleCodec(Codec):
    """Takes all objects that pickle can handle."""

    name = "pickle"

    def dump(self, value: Any, write: Callable[[bytes], Any]) -> None:
        pickle.Pickler(_Writer(write), protocol=5).dump(value)

    def load(self, data: io.BufferedIOBase) -> Any:
        return pickle.load(data)  # noqa: S301 (`settings` has made sure of who may have sent it)

    def loads(self, data: bytes) -> Any:
        return pickle.loads(data)  # noqa: S301 (likewise)

    def _call(self, value: Any, pickled: bytes) -> bytes:
        return pickled


class _Writer:
    """A file for a pickler, which passes the bytes on to `write`."""

    def __init__(self, write: Callable[[bytes], Any]) -> None:
        self.write = write


class MsgpackCodec(Codec):
    """Plain data only: None, bool, int, float, str, bytes, and list, tuple, dict, set, frozenset, deque of these."""

    name = "msgpack"

    def dump(self, value: Any, write: Callable[[bytes], Any]) -> None:
        data = msgspec.msgpack.encode(_plain(value))
        write(len(data).to_bytes(8, "big") + data)

    def load(self, data: io.BufferedIOBase) -> Any:
        size = int.from_bytes(data.read(8), "big")
        return _restored(data.read(size))

    def _call(self, value: Any, pickled: bytes) -> bytes:
        return self.dumps(value)


_TUPLE, _SET, _FROZENSET, _DEQUE, _DICT, _INT = range(1, 7)


def _plain(value: Any) -> Any:
    """Replace every value that MessagePack has no type for by an extension. Raises `TypeError`."""
    kind = type(value)
    if value is None or kind in (bool, float, str, bytes):
        return value
    if kind is int:
        if -(2**63) <= value < 2**64:
            return value
        return msgspec.msgpack.Ext(_INT, str(value).encode())
    if kind is list:
        return [_plain(each) for each in value]
    if kind is tuple:
        return _extension(_TUPLE, [_plain(each) for each in value])
    if kind is set:
        return _extension(_SET, [_plain(each) for each in value])
    if kind is frozenset:
        return _extension(_FROZENSET, [_plain(each) for each in value])
    if kind is deque:
        return _extension(_DEQUE, [value.maxlen, *(_plain(each) for each in value)])
    if kind is dict:
        return _extension(_DICT, [[_plain(key), _plain(each)] for key, each in value.items()])
    raise TypeError(f"{kind.__name__} is no plain data, and codec = 'msgpack' takes nothing else: {value!r}")


def _extension(code: int, value: Any) -> msgspec.msgpack.Ext:
    return msgspec.msgpack.Ext(code, msgspec.msgpack.encode(value))


def _restored(data: bytes | memoryview) -> Any:
    return msgspec.msgpack.decode(data, ext_hook=_extended)


def _extended(code: int, data: memoryview) -> Any:
    if code == _INT:
        return int(bytes(data))
    value = _restored(data)
    match code:
        case 1:
            return tuple(value)
        case 2:
            return set(value)
        case 3:
            return frozenset(value)
        case 4:
            return deque(value[1:], maxlen=value[0])
        case 5:
            return {key: each for key, each in value}  # noqa: C416 (pairs are lists, which `dict` would take too)
    raise ValueError(f"an extension {code} of another version")


CODECS: dict[str, type[Codec]] = {codec.name: codec for codec in (PickleCodec, MsgpackCodec)}
