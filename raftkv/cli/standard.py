"""The descriptors 0 to 2, which not every process is started with."""

from __future__ import annotations

import os
import sys


def open_standard() -> None:
    """Open on null whichever of the descriptors 0 to 2 this process was started without.

    Else the next file that is opened would be one of them, and what is printed would go into it (F78).
    """
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            # Those below are open, so this is the lowest that is free.
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
    # Python has made no stream for one that was closed.
    sys.stdin = sys.stdin or os.fdopen(0, closefd=False)
    sys.stdout = sys.stdout or os.fdopen(1, "w", closefd=False)
    sys.stderr = sys.stderr or os.fdopen(2, "w", closefd=False)
