"""File systems in files: made, mounted, cut from their power and repaired, for disks that really lose and fill up.

An image is mounted through a loop device, which only root can do. `Image.cut` is a loss of power as the file
system sees it (`FS_IOC_SHUTDOWN` without flushing the journal): from then on nothing reaches the image, neither
data that was not synced nor names whose directory was not. What was synced is in the image, and mounting it again
replays its journal, as after a real cut.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import struct
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

from raftkv.config import MIB
from raftkv.model import NodeId

KINDS: Mapping[str, int] = {"ext4": 128 * MIB, "xfs": 320 * MIB}
"""What an image can be, and its default size in bytes: mkfs.xfs makes none below 300 MiB. Files are sparse."""

_SHUTDOWN = 0x8004587D  # FS_IOC_SHUTDOWN, _IOR('X', 125, __u32)
_WITHOUT_LOG_FLUSH = struct.pack("I", 2)

_MKFS = {
    # A small journal commits often, and nothing is left for the kernel to initialise behind our backs.
    "ext4": ["-q", "-F", "-m", "0", "-E", "lazy_itable_init=0,lazy_journal_init=0"],
    "xfs": ["-q", "-f"],
}


def missing(kind: str) -> str | None:
    """Why there can be no such images here; None when there can."""
    if os.geteuid() != 0:
        return "needs root, to mount images"
    for program in (f"mkfs.{kind}", "mount", "umount"):
        if shutil.which(program) is None:
            return f"{program} is not installed"
    if not os.path.exists("/dev/loop-control"):
        return "this system has no loop devices"
    known = Path("/proc/filesystems").read_text().split()
    if kind not in known and shutil.which("modprobe") is None:
        return f"this kernel has no {kind}"
    return None


class Image:
    """One file system in a file, mounted at a directory of its own. Touches nothing but these two.

    Use it as a context manager: it is made and mounted, and at the end both file and mount are gone.
    Errors of the system's programs are `CalledProcessError`, with what they said.
    """

    def __init__(self, kind: str, file: Path, mount_point: Path, size_bytes: int | None = None) -> None:
        assert kind in KINDS, f"{kind}: one of {list(KINDS)}"
        self.kind = kind
        self.file = file
        self.mount_point = mount_point
        self.size_bytes = size_bytes if size_bytes is not None else KINDS[kind]
        self.cuts = 0

    @property
    def is_mounted(self) -> bool:
        return os.path.ismount(self.mount_point)

    def make(self) -> None:
        """Make an empty file system; it is not mounted yet."""
        self.mount_point.mkdir(parents=True, exist_ok=True)
        with self.file.open("wb") as file:
            file.truncate(self.size_bytes)
        _run(f"mkfs.{self.kind}", *_MKFS[self.kind], str(self.file))

    def mount(self) -> None:
        """Mount it; after a cut this replays the journal."""
        assert not self.is_mounted, f"{self.mount_point} is mounted already"
        _run("mount", "-t", self.kind, "-o", "loop,noatime", str(self.file), str(self.mount_point))

    def cut(self) -> None:
        """The power goes: every later call on the file system fails, what was not durable is gone."""
        descriptor = os.open(self.mount_point, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.ioctl(descriptor, _SHUTDOWN, _WITHOUT_LOG_FLUSH)
        finally:
            os.close(descriptor)
        self.cuts += 1

    def sync(self) -> None:
        """Make everything durable that was written to it so far."""
        _run("sync", "--file-system", str(self.mount_point))

    def unmount(self) -> None:
        """Unmount it. Whoever uses it must be gone."""
        _run("umount", str(self.mount_point))

    def remove(self) -> None:
        """Unmount it, also from under processes that are left, and remove the file."""
        if self.is_mounted:
            try:
                self.unmount()
            except subprocess.CalledProcessError:
                _run("umount", "--lazy", str(self.mount_point))
        self.file.unlink(missing_ok=True)

    def free_bytes(self) -> int:
        """Space that a process without privileges could still use."""
        found = os.statvfs(self.mount_point)
        return found.f_bavail * found.f_frsize

    def __enter__(self) -> Image:
        try:
            self.make()
            self.mount()
        except BaseException:
            self.remove()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.remove()


@contextmanager
def images(kind: str, data_dirs: Mapping[NodeId, str], size_bytes: int | None = None) -> Iterator[dict[NodeId, Image]]:
    """An image under each node's data directory, which must not be there or be empty; all gone at the end."""
    with ExitStack() as stack:
        yield {
            node_id: stack.enter_context(Image(kind, Path(data_dir + f".{kind}"), Path(data_dir), size_bytes))
            for node_id, data_dir in data_dirs.items()
        }


def _run(*command: str) -> None:
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode:
        raise subprocess.CalledProcessError(done.returncode, command, done.stdout, done.stderr)
