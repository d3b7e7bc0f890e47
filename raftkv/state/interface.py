"""The interface of stores: what a node needs of the place where its applied state is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from typing import TypeAlias

import msgspec

from raftkv.errors import FormatError, StateCorruption
from raftkv.model import Index, Term

FORMAT_VERSION = 2

OWNER_FILE = "OWNER"
"""A file beside a store's own that says whose state it is; stores neither read nor copy it."""

META_KEY = b"\x00applied"
"""The key at which a store keeps its `Applied`."""

VERSION_KEY = b"\x00version"
"""The key of the active version of the application."""

COUNTS_KEY = b"\x00counts"
"""The key of how many rows the application's tables have."""

LINEAGE_KEY = b"\x00lineage"
"""The key of what the cluster goes on from that did not begin empty."""

SESSION_PREFIX = b"\x01"
TABLE_PREFIX = b"\x02"
TIMER_PREFIX = b"\x03"
HISTORY_PREFIX = b"\x04"
ACCESS_PREFIX = b"\x05"

Changes: TypeAlias = Mapping[bytes, bytes | None]
"""New values by key; None deletes."""


class Applied(msgspec.Struct, frozen=True, array_like=True):
    """The last entry whose effects are in the state, and the rolling digest of all effects up to it."""

    index: Index = 0
    term: Term = 0
    time_ms: int = 0
    digest: int = 0


class _Meta(msgspec.Struct, frozen=True, array_like=True):
    format: int
    applied: Applied


def encode_meta(applied: Applied) -> bytes:
    """The value for `META_KEY`."""
    return msgspec.msgpack.encode(_Meta(FORMAT_VERSION, applied))


def decode_meta(data: bytes | None, where: str) -> Applied:
    """The `Applied` in the value at `META_KEY`; raises `StateCorruption` or `FormatError`."""
    if data is None:
        raise StateCorruption(f"{where} does not say which entries are applied")
    try:
        meta = msgspec.msgpack.decode(data, type=_Meta)
    except msgspec.MsgspecError as exc:
        raise StateCorruption(f"{where} has an unreadable record of what is applied: {exc}") from exc
    if meta.format != FORMAT_VERSION:
        raise FormatError(
            f"{where} has format version {meta.format}, this raftkv reads version {FORMAT_VERSION}: "
            "use the raftkv that wrote it, or let this node get a snapshot from a peer (--rebuild)"
        )
    return meta.applied


STEP_KEYS = 500
"""Deleted keys that one step of `Reader.steps` skips: it takes 0.1 to 2 ms, in which nothing else can run."""


class Reader(ABC):
    """Reads ordered keys and values, and tells up to which entry they are the state.

    Every method raises `StateCorruption` when data is damaged, `DiskError` when the disk fails.
    """

    @property
    @abstractmethod
    def applied(self) -> Applied:
        """The last entry that is applied in what this reads."""

    @abstractmethod
    def get(self, key: bytes) -> bytes | None:
        """The value at `key`."""

    @abstractmethod
    def steps(self, start: bytes, end: bytes, *, reverse: bool = False) -> Iterator[tuple[bytes, bytes | None]]:
        """Keys and values with `start` ≤ key < `end`, in order, each after a bounded amount of work.

        Deleted keys cost as much as others while they are still stored. After `STEP_KEYS` of them comes
        (position, None): before `position` (in reverse, from it on) are no other keys than those that came already.
        """


class StateView(Reader):
    """The state as it was when the view was taken, whatever was written since. For any thread, but one at a time."""

    @property
    @abstractmethod
    def changes(self) -> int:
        """How many keys written since then it keeps in memory; any thread."""

    @abstractmethod
    def close(self) -> None:
        """Let go of the view, once its iterators are gone and before its store is closed. May be called twice."""


class Store(Reader):
    """Ordered keys and values, with the index up to which the log is applied in them.

    There is no write-ahead log: the Raft log serves as one. After a crash the state is that of *some* earlier
    write, whole, and `applied` tells which. `flush`, `verify`, `key_count` may be called on a worker's thread
    while another reads and writes; everything else belongs to one thread.

    Every method raises `StateCorruption` when data is damaged, `DiskError` when the disk fails.
    """

    @property
    @abstractmethod
    def applied(self) -> Applied:
        """The last applied entry, in this process; on disk it may be an earlier one."""

    @abstractmethod
    def scan(self, start: bytes, end: bytes | None, *, reverse: bool = False) -> Iterator[tuple[bytes, bytes]]:
        """Keys and values with `start` ≤ key < `end` (None: to the last), in order; raises before it leaves one out."""

    @abstractmethod
    def view(self) -> StateView:
        """The state as it is now, to be read while others write. Close it before the store, and soon: until then
        everything that it shows is kept on disk."""

    @abstractmethod
    def write(self, changes: Changes, applied: Applied) -> None:
        """Change values and `applied` in one atomic write; not durable."""

    @abstractmethod
    def flush(self) -> None:
        """Make what was written before durable."""

    @abstractmethod
    def freeze(self) -> None:
        """Let no file be removed or rewritten until `thaw`; reads and writes go on. May take long; worker's thread."""

    @abstractmethod
    def checkpoint(self, directory: str) -> None:
        """Make `directory` a copy of the state as it is now, to be opened as a store of its own.

        Between `freeze` and `thaw`, on the worker's thread, while nobody writes. The state itself is flushed, so that
        it is never behind its copy. Quick after a `flush`, as large files are linked. The copy is not synced.
        """

    @abstractmethod
    def thaw(self) -> None:
        """End what `freeze` began; worker's thread."""

    @abstractmethod
    def verify(self) -> int:
        """Read everything; returns the number of keys."""

    @abstractmethod
    def approximate_bytes(self) -> int:
        """About how much space it takes. Any thread."""

    @property
    @abstractmethod
    def deletions(self) -> int:
        """How many keys were deleted since it was opened."""

    @abstractmethod
    def keys_about(self) -> int:
        """About how many keys there are. Any thread."""

    @abstractmethod
    def is_rewriting(self) -> bool:
        """Whether it works on its files, or is about to, to leave out what was deleted. Any thread."""

    @abstractmethod
    def close(self) -> None:
        """Changes that were not flushed may be lost. May be called twice."""


class States(ABC):
    """Opens and removes stores of one kind."""

    @abstractmethod
    def open(self, directory: str) -> Store:
        """Open the store in `directory`, or make an empty one. Raises `StateCorruption`, `FormatError`, `DiskError`."""

    @abstractmethod
    def destroy(self, directory: str) -> None:
        """Remove a store that is not open; nothing happens when there is none."""
