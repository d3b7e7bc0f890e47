"""A lock service: `python lock_service.py NODES NAME COMMAND…` runs a command while nobody else runs one of that name.

The command has its fencing token in `LOCK_TOKEN`, and is stopped when the lock is lost.
The nodes: `raftkv serve --machine raftkv.recipes:Locks …`
"""

from __future__ import annotations

import os
import subprocess
import sys

from raftkv import BlockingClient
from raftkv.recipes import BlockingLocks, LockLost, Locks, NotAcquired

BUSY, LOST = 75, 76


def main(nodes: str, name: str, *command: str, wait_s: float = 60.0) -> int:
    """Returns the command's exit code, or `BUSY` or `LOST`."""
    with BlockingClient(Locks, nodes.split(",")) as locks:
        try:
            with BlockingLocks(locks).lock(name, ttl_s=10, timeout_s=wait_s) as lock:
                process = subprocess.Popen(command, env={**os.environ, "LOCK_TOKEN": str(lock.token)})
                lock.claim.on_lost(process.terminate)
                return process.wait()
        except NotAcquired:
            return BUSY
        except LockLost:
            return LOST


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
