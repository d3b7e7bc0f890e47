"""The state machine behind every `SyncObj`: calls in the order of the log, and images of the objects now and then.

The objects themselves are in memory, as their applications expect. The state on disk has what they can be rebuilt
from: an *image* (all attributes, pickled) of some log index, and all calls after it. A call costs a write of its own
size, however large the state is. An image is made when a snapshot is due, and streamed into the state piece by piece.

Images of the same state may differ between nodes (sets have no order), so the digest that replicas compare leaves out
the images; the calls are in it.

A code version (`@replicated(ver=…)`) is a version of the machine, less one, as a machine's begin with 1. So every node
says which it can run, the leader switches to one that all can run, and which is active is part of the state. A switch
is kept among the calls too, so that those before it meet the old version when they are run again.
"""

from __future__ import annotations

import io
import types
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, Protocol, cast

import msgspec

from raftkv.config import KIB, MIB
from raftkv.errors import ConfigError, StateCorruption
from raftkv.machine import Limits, StateMachine, Table, Value, command, query, upgrade
from raftkv.machine.statemachine import VERSION_MAX
from raftkv.machine.upgrades import Upgrade
from raftkv.model import Index
from raftkv.state import Store

CHUNK_BYTES = 256 * KIB
"""Of an image: a value of the state, and what is held in memory of it while it is written."""


class ImageHead(msgspec.Struct, array_like=True, frozen=True):
    """Names the image that counts. Other images, and calls up to `index`, are left-overs."""

    generation: int = 0
    index: Index = 0
    size: int = 0
    """In bytes."""


class Hosted(Protocol):
    """The interface of the objects to the machine."""

    def apply(self, origin: int, first: int, calls: list[bytes]) -> None:
        """Run the calls, and remember the results if this process (`origin`) waits for them."""

    def switch_to(self, code_version: int) -> bytes:
        """A call that makes it the enabled one."""


class SyncObjMachine(StateMachine, limits=Limits(value_bytes=64 * MIB, change_bytes=256 * MIB)):
    """Runs calls on hosted objects. Each `SyncObj` has a subclass of its own, which knows them."""

    _host_decides = True
    _host_writes = True
    hosted: ClassVar[Hosted]
    calls = Table(int, list[bytes])
    chunks = Table(tuple[int, int], bytes)  # (generation, number)
    image = Value(ImageHead, ImageHead())

    @command
    def call(self, origin: int, first: int, calls: list[bytes]) -> int:
        """Run calls, which the process `origin` has numbered from `first` on; the result is the entry's index."""
        self.calls[self.index] = calls
        self.hosted.apply(origin, first, calls)
        return self.index

    @query
    def barrier(self) -> int:
        """The index of this read. A node that has applied it has all that was acknowledged before the read."""
        return self.index

    @classmethod
    def upgrades_between(cls, old: int, new: int) -> list[Upgrade]:
        """The one upgrade that there is, whichever versions they are."""
        return list(cls.upgrades.values())

    def _version_raised(self) -> None:
        self.hosted.apply(-1, 0, self.calls[self.index])

    def calls_behind_image(self) -> Iterator[tuple[Index, list[bytes]]]:
        """The calls after the image, to be run again on the objects that were loaded from it."""
        return self.calls.range(self.image.index + 1)

    def open_image(self) -> io.BufferedIOBase | None:
        """The image to read from, or None when there is none yet."""
        head = self.image
        if head.generation == 0:
            return None
        return io.BufferedReader(_Chunks(self.chunks.prefix((head.generation,)), head), CHUNK_BYTES)


class _Chunks(io.RawIOBase):
    """An image as a file that a codec reads."""

    def __init__(self, chunks: Iterator[tuple[Any, bytes]], head: ImageHead) -> None:
        self._chunks = chunks
        self._left = memoryview(b"")
        self._due = head.size

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if not self._left:
            self._left = memoryview(next(self._chunks, (None, b""))[1])
            self._due -= len(self._left)
            if not self._left and self._due > 0:
                raise StateCorruption(f"the image of the objects lacks {self._due} bytes")
        size = min(len(buffer), len(self._left))
        buffer[:size] = self._left[:size]
        self._left = self._left[size:]
        return size


def _switch(machine: SyncObjMachine) -> None:
    """Runs on every node at the same entry, when another code version is enabled; also in vain, when it is tried."""
    machine.calls[machine.index] = [machine.hosted.switch_to(code_version_of(machine.version))]


def machine_version_of(code_version: int) -> int:
    """The machine's version while `code_version` is enabled."""
    return code_version + 1


def code_version_of(machine_version: int) -> int:
    """The reverse."""
    return machine_version - 1


def machine_of(hosted: Hosted, codec: str, methods: Mapping[int, Sequence[str]]) -> type[SyncObjMachine]:
    """The machine class for these objects, whose replicated methods are `methods`, by code version, in the order of
    their numbers.

    A call names its method by that number, so nodes must agree on all of an enabled version: its methods are declared
    as the default of a value, which nodes compare. The class's name has the codec in it, so that nodes with different
    codecs refuse each other too. Raises `ConfigError`.
    """
    newest = machine_version_of(max(methods, default=0))
    if newest > VERSION_MAX:
        raise ConfigError(f"@replicated(ver={max(methods)}): code versions are at most {code_version_of(VERSION_MAX)}")
    declared: dict[str, Any] = {"__module__": __name__, "hosted": hosted, "version": newest}
    for code_version, names in methods.items():
        value = Value(tuple[str, ...], tuple(names), since=machine_version_of(code_version))
        declared[f"replicated_ver_{code_version}"] = value
    if newest > 1:
        declared["_switch"] = upgrade(to=2)(_switch)
    made = types.new_class(f"SyncObj-{codec}", (SyncObjMachine,), exec_body=lambda names: names.update(declared))
    return cast(type[SyncObjMachine], made)


class ImageWriter:
    """Writes an image into a store, beside the digest; on a worker's thread, while nothing is applied.

    A crash at any point leaves the old image or the new one: chunks count only once the head names them.
    """

    def __init__(self, store: Store, generation: int) -> None:
        self._store = store
        self._generation = generation
        self._number = 0
        self._parts: list[bytes] = []
        self._held = 0
        self.size = 0

    def write(self, data: bytes) -> None:
        """Append to the image."""
        self._parts.append(bytes(data))
        self._held += len(data)
        if self._held >= CHUNK_BYTES:
            self._flush()

    def _flush(self) -> None:
        data = b"".join(self._parts)
        for start in range(0, len(data), CHUNK_BYTES):
            table = SyncObjMachine.chunks
            place = table.prefix + table.keys.encode((self._generation, self._number))
            chunk = data[start : start + CHUNK_BYTES]
            self._store.write({place: table.values.encode(chunk)}, self._store.applied)
            self._number += 1
            self.size += len(chunk)
        self._parts.clear()
        self._held = 0

    def finish(self) -> None:
        """Make this image the one that counts, then remove the old one and its calls."""
        self._flush()
        store, index = self._store, self._store.applied.index
        place, data = SyncObjMachine.image.encoded(ImageHead(self._generation, index, self.size))
        store.write({place: data}, store.applied)
        calls, chunks = SyncObjMachine.calls, SyncObjMachine.chunks
        self._remove(calls.prefix, calls.prefix + calls.keys.encode(index + 1))
        self._remove(chunks.prefix, chunks.prefix + chunks.keys.encode_prefix((self._generation,)))

    def _remove(self, start: bytes, end: bytes) -> None:
        """Delete a range, a bounded number of keys at a time."""
        while keys := [key for key, _ in zip_limited(self._store.scan(start, end))]:
            self._store.write(dict.fromkeys(keys), self._store.applied)


def zip_limited(pairs: Iterator[tuple[bytes, bytes]], limit: int = 1_000) -> Iterator[tuple[bytes, bytes]]:
    """At most `limit` items, so that one pass of a deletion is bounded."""
    for _, pair in zip(range(limit), pairs, strict=False):
        yield pair
