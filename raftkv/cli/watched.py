"""The real disk with somebody who is told of all that is read, so that a command can show how far it is."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

from raftkv.disk import File, RealDisk


class WatchedDisk(RealDisk):
    """Tells how many bytes were read, after each read."""

    def __init__(self, on_read: Callable[[int], None], only: str | None = None) -> None:
        """With `only`, nothing but the file at this path counts."""
        self._on_read = on_read
        self._only = only

    def open(self, path: str, *, create: bool = False) -> File:
        return self._watched(path, super().open(path, create=create))

    def open_to_read(self, path: str) -> File:
        return self._watched(path, super().open_to_read(path))

    def _watched(self, path: str, file: File) -> File:
        return _WatchedFile(file, self._on_read) if self._only in (None, path) else file


class _WatchedFile(File):
    def __init__(self, file: File, on_read: Callable[[int], None]) -> None:
        self._file = file
        self._on_read = on_read

    def pread(self, size: int, offset: int) -> bytes:
        data = self._file.pread(size, offset)
        self._on_read(len(data))
        return data

    def pwrite(self, buffers: Sequence[bytes], offset: int, *, sync: bool = False) -> None:
        self._file.pwrite(buffers, offset, sync=sync)

    def sync(self) -> None:
        self._file.sync()

    def truncate(self, size: int) -> None:
        self._file.truncate(size)

    def size(self) -> int:
        return self._file.size()

    def close(self) -> None:
        self._file.close()


def bytes_in(path: str) -> int:
    """How much a file has, or all files in a directory; what can't be looked at counts nothing."""
    if os.path.isfile(path):
        return os.path.getsize(path)
    places = (os.path.join(root, name) for root, _, names in os.walk(path) for name in names)
    return sum(os.path.getsize(place) for place in places if os.path.isfile(place))
