"""Notices that a file was replaced while it is in use."""

from __future__ import annotations

import os


def mark_of(path: str) -> object:
    """A value that changes when the file is replaced, written to, removed or made, or when others may read it."""
    try:
        stat = os.stat(path)
    except OSError as exc:
        return exc.errno
    return stat.st_mtime_ns, stat.st_size, stat.st_ino, stat.st_mode
