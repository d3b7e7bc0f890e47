"""A store in memory that crashes like the one on RocksDB: what was not flushed is gone."""

from __future__ import annotations

import posixpath
from bisect import bisect_left, insort
from collections.abc import Iterator

import msgspec
import xxhash

from raftkv.disk import Disk
from raftkv.errors import StateCorruption
from raftkv.state.interface import META_KEY, Applied, Changes, States, StateView, Store, decode_meta, encode_meta

_IMAGE = "image"
_SUM_BYTES = 8


class MemoryView(StateView):
    """A copy of the dictionary."""

    def __init__(self, values: dict[bytes, bytes], buried: set[bytes], applied: Applied) -> None:
        self._values = values
        self._buried = buried
        self._applied = applied

    @property
    def applied(self) -> Applied:
        return self._applied

    def get(self, key: bytes) -> bytes | None:
        return self._values.get(key)

    def steps(self, start: bytes, end: bytes, *, reverse: bool = False) -> Iterator[tuple[bytes, bytes | None]]:
        """Until the next flush each deleted key is a step of its own: a few of them stand for many on RocksDB."""
        there = (*self._values, *self._buried)
        for key in sorted([key for key in there if start <= key < end], reverse=reverse):
            yield key, self._values.get(key)

    @property
    def changes(self) -> int:
        return 0

    def close(self) -> None:
        """Nothing is open."""


class MemoryStore(Store):
    """Keys and values in a dictionary; `flush` writes an image of all of them.

    For simulated nodes and tests: each flush writes all of the state.
    """

    def __init__(self, disk: Disk, directory: str, values: dict[bytes, bytes]) -> None:
        self._disk = disk
        self._directory = directory
        self._applied = decode_meta(values.pop(META_KEY), directory) if values else Applied()
        self._values = values
        self._keys = sorted(values)
        self._buried: set[bytes] = set()
        self._deletions = 0

    @classmethod
    def open(cls, disk: Disk, directory: str) -> MemoryStore:
        """Open the image in `directory`, or begin empty. Raises `StateCorruption`, `FormatError`, `DiskError`."""
        disk.mkdir(directory)
        path = posixpath.join(directory, _IMAGE)
        if not disk.exists(path):
            return cls(disk, directory, {})
        data = disk.read_bytes(path)
        body = data[_SUM_BYTES:]
        if xxhash.xxh3_64_digest(body) != data[:_SUM_BYTES]:
            raise StateCorruption(f"{path} does not match its checksum")
        values = dict(msgspec.msgpack.decode(body, type=list[tuple[bytes, bytes]]))
        if META_KEY not in values:
            raise StateCorruption(f"{path} does not say which entries are applied")
        return cls(disk, directory, values)

    @property
    def applied(self) -> Applied:
        return self._applied

    def get(self, key: bytes) -> bytes | None:
        return self._values.get(key)

    def scan(self, start: bytes, end: bytes | None, *, reverse: bool = False) -> Iterator[tuple[bytes, bytes]]:
        first = bisect_left(self._keys, start)
        last = bisect_left(self._keys, end) if end is not None else len(self._keys)
        keys = self._keys[first:last]
        for key in reversed(keys) if reverse else keys:
            yield key, self._values[key]

    def steps(self, start: bytes, end: bytes, *, reverse: bool = False) -> Iterator[tuple[bytes, bytes | None]]:
        if not self._buried:
            return self.scan(start, end, reverse=reverse)
        return self.view().steps(start, end, reverse=reverse)

    def view(self) -> MemoryView:
        return MemoryView(dict(self._values), set(self._buried), self._applied)

    def write(self, changes: Changes, applied: Applied) -> None:
        for key, value in changes.items():
            if value is not None:
                if key not in self._values:
                    insort(self._keys, key)
                    self._buried.discard(key)
                self._values[key] = value
            elif key in self._values:
                self._buried.add(key)
                self._deletions += 1
                del self._values[key]
                del self._keys[bisect_left(self._keys, key)]
        self._applied = applied

    def flush(self) -> None:
        self._buried = set()
        self._write_image(self._directory)

    def freeze(self) -> None:
        """There are no files but the image."""

    def thaw(self) -> None:
        """Nothing was held."""

    def checkpoint(self, directory: str) -> None:
        self.flush()
        self._disk.mkdir(directory)
        self._write_image(directory)

    def _write_image(self, directory: str) -> None:
        pairs = [(META_KEY, encode_meta(self._applied)), *((key, self._values[key]) for key in self._keys)]
        body = msgspec.msgpack.encode(pairs)
        self._disk.write_atomic(posixpath.join(directory, _IMAGE), xxhash.xxh3_64_digest(body) + body)

    def verify(self) -> int:
        return len(self._keys)

    def approximate_bytes(self) -> int:
        return sum(len(key) + len(value) for key, value in self._values.items())

    @property
    def deletions(self) -> int:
        return self._deletions

    def keys_about(self) -> int:
        return len(self._keys)

    def is_rewriting(self) -> bool:
        return False

    def close(self) -> None:
        """Nothing is open."""


class MemoryStates(States):
    """Stores in memory whose images are on `disk`."""

    def __init__(self, disk: Disk) -> None:
        self._disk = disk

    def open(self, directory: str) -> MemoryStore:
        return MemoryStore.open(self._disk, directory)

    def destroy(self, directory: str) -> None:
        self._disk.remove_tree(directory)
