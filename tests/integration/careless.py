"""`raftkv serve` without any fsync: tests of power loss must notice it, or they would notice nothing.

`python -m tests.integration.careless serve …` says "durable" as soon as the kernel has the data. Never use it
for anything else.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from raftkv.cli import main


def lie() -> None:
    """From now on every sync of this process through `os` does nothing, and reports success."""
    write = os.pwritev

    def write_unsynced(descriptor: int, buffers: Sequence[Any], offset: int, _flags: int = 0, /) -> int:
        return write(descriptor, buffers, offset, 0)

    vars(os).update(pwritev=write_unsynced, fsync=lambda _: None, fdatasync=lambda _: None)


if __name__ == "__main__":
    lie()
    main()
