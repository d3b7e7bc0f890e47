"""`raftkv serve` where some names are slow: `*.slow` are this host's after 3 s, `*.never` unknown after a minute.

`python -m tests.integration.slow_names serve …` patches the system's lookup, in this process alone.
"""

from __future__ import annotations

import socket
import time
from typing import Any

from raftkv.cli import main

SLOW_S = 3.0
"""Longer than a dial may take (2 s)."""

NEVER_S = 60.0


def delay() -> None:
    """From now on, lookups of these names in this process are slow."""
    lookup = socket.getaddrinfo

    def look_up_late(host: Any, *args: Any, **more: Any) -> Any:
        name = host.decode() if isinstance(host, bytes) else str(host)
        if more.get("flags", 0) & socket.AI_NUMERICHOST or not name.endswith((".slow", ".never")):
            return lookup(host, *args, **more)
        if name.endswith(".never"):
            time.sleep(NEVER_S)
            raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
        time.sleep(SLOW_S)
        return lookup("127.0.0.1", *args, **more)

    socket.getaddrinfo = look_up_late


if __name__ == "__main__":
    delay()
    main()
