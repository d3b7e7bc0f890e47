"""Reads the pieces of a snapshot that chunks carry: sequentially, each file opened once."""

from __future__ import annotations

import posixpath

from raftkv.disk import Disk, File
from raftkv.errors import SnapshotCorruption
from raftkv.snapshot.manifest import SnapshotFile


class ChunkReader:
    """The files of a published snapshot, for reading in pieces. Keeps the last file open. *Worker.*"""

    def __init__(self, disk: Disk, directory: str, files: tuple[SnapshotFile, ...]) -> None:
        self._disk = disk
        self._directory = directory
        self._files = files
        self._current: tuple[int, File] | None = None

    def read(self, pieces: list[tuple[int, int, int]]) -> bytes:
        """The bytes of (file, offset, size) each, joined.

        Raises `SnapshotCorruption` when a file is missing or too short, `DiskError`.
        """
        parts = [self._read(*piece) for piece in pieces]
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _read(self, number: int, offset: int, size: int) -> bytes:
        data = self._open(number).pread(size, offset)
        if len(data) != size:
            path = posixpath.join(self._directory, self._files[number].name)
            raise SnapshotCorruption(f"{path} is shorter than the {self._files[number].size} bytes of its manifest")
        return data

    def _open(self, number: int) -> File:
        if self._current is not None and self._current[0] == number:
            return self._current[1]
        self.close()
        path = posixpath.join(self._directory, self._files[number].name)
        try:
            file = self._disk.open(path)
        except FileNotFoundError as exc:
            raise SnapshotCorruption(f"{path} is missing") from exc
        self._current = (number, file)
        return file

    def close(self) -> None:
        """Close the file that is open."""
        if self._current is not None:
            self._current[1].close()
            self._current = None
