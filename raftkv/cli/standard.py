"""What a process is started with, or without: the descriptors 0 to 2, and a directory to work in."""

from __future__ import annotations

import os
import sys

from raftkv.errors import InvalidArgument

_closed: set[int] = set()


def open_standard() -> None:
    """Open on null whichever of the descriptors 0 to 2 this process was started without.

    Else the next file that is opened would be one of them, and what is printed would go into it (F78).
    """
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            _closed.add(descriptor)
            # Those below are open, so this is the lowest that is free.
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
    # Python has made no stream for one that was closed.
    sys.stdin = sys.stdin or os.fdopen(0, closefd=False)
    sys.stdout = sys.stdout or os.fdopen(1, "w", closefd=False)
    sys.stderr = sys.stderr or os.fdopen(2, "w", closefd=False)


def check_open(descriptor: int, what: str) -> None:
    """Raises `InvalidArgument` where this process was started without the descriptor that it is about to read or write:
    what is on null in its place is no value, and keeps none."""
    if descriptor in _closed:
        raise InvalidArgument(f"{what}, and this was started with std{('in', 'out')[descriptor]} closed")


ADRIFT = "the directory in which this was started was removed: change to one that is there (cd), or give whole paths"
"""What to tell whoever has given the name of a file or directory that begins there."""


def is_adrift() -> bool:
    """Whether the directory that this process works in was removed: names that begin there lead nowhere."""
    try:
        os.getcwd()
    except FileNotFoundError:
        return True
    return False
