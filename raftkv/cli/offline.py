"""A disk that is only read: writes are noted, but not done."""

from __future__ import annotations

from collections.abc import Sequence

from raftkv.disk import Disk, DiskSpace, File, Lock, RealDisk


class ReadOnlyDisk(Disk):
    """The real disk as an inspector may use it.

    Opening a log mends what a crash left: a torn tail is cut off, leftovers are removed. Here these
    repairs are listed in `repairs` for whoever wants to know what the next start would do.
    """

    def __init__(self, disk: Disk | None = None) -> None:
        """`disk` is another one to read from than the real one."""
        self._disk = disk if disk is not None else RealDisk()
        self.repairs: list[str] = []

    def open(self, path: str, *, create: bool = False) -> File:
        """Raises `FileNotFoundError` also where another disk would create the file."""
        return _ReadOnlyFile(self._disk.open_to_read(path), path, self.repairs)

    def exists(self, path: str) -> bool:
        return self._disk.exists(path)

    def is_dir(self, path: str) -> bool:
        return self._disk.is_dir(path)

    def listdir(self, path: str) -> list[str]:
        return self._disk.listdir(path)

    def size(self, path: str) -> int:
        return self._disk.size(path)

    def free(self, path: str) -> DiskSpace:
        return self._disk.free(path)

    def same_file(self, path: str, other: str) -> bool:
        return self._disk.same_file(path, other)

    def mkdir(self, path: str) -> None:
        self._note(f"make {path}", unless=self.is_dir(path))

    def remove(self, path: str) -> None:
        self._note(f"remove {path}")

    def remove_tree(self, path: str) -> None:
        self._note(f"remove {path}", unless=not self.exists(path))

    def rename(self, source: str, target: str) -> None:
        self._note(f"rename {source} to {target}")

    def link(self, source: str, target: str) -> None:
        self._note(f"link {source} as {target}")

    def sync_dir(self, path: str) -> None:
        """Nothing was changed that could be made durable."""

    def lock(self, path: str) -> Lock:
        return self._disk.lock_to_read(path)

    def _note(self, repair: str, *, unless: bool = False) -> None:
        if not unless:
            self.repairs.append(repair)


class _ReadOnlyFile(File):
    def __init__(self, file: File, path: str, repairs: list[str]) -> None:
        self._file = file
        self._path = path
        self._repairs = repairs

    def pread(self, size: int, offset: int) -> bytes:
        return self._file.pread(size, offset)

    def pwrite(self, buffers: Sequence[bytes], offset: int, *, sync: bool = False) -> None:
        """Opening writes again what it has read, to be sure that it is durable: no news, and not done."""

    def sync(self) -> None:
        """Nothing was changed that could be made durable."""

    def truncate(self, size: int) -> None:
        self._repairs.append(f"cut off a torn write at byte {size} of {self._path}")

    def size(self) -> int:
        return self._file.size()

    def close(self) -> None:
        self._file.close()
