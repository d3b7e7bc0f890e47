"""A connection to whichever of several places answers first (RFC 8305, "happy eyeballs")."""

from __future__ import annotations

import asyncio
import os
import socket
from collections import deque
from collections.abc import Sequence

from raftkv.transport.resolver import sockaddr

STAGGER_S = 0.25
"""How long one place is tried alone before the next one is tried as well, as in the RFC."""


async def connect_first(places: Sequence[str]) -> tuple[str, socket.socket]:
    """The first of `places` that accepts, and its socket; a place is tried when those before it failed or are slow.

    Raises the `OSError` of the last that failed, with all places in its text; may take for ever.
    """
    if len(places) == 1:
        return places[0], await _connect(places[0])
    waiting, failed = deque(places), list[OSError]()
    tries: dict[asyncio.Task[socket.socket], str] = {}
    try:
        while waiting or tries:
            if waiting:
                place = waiting.popleft()
                tries[asyncio.get_running_loop().create_task(_connect(place))] = place
            done, _ = await asyncio.wait(
                tries, timeout=STAGGER_S if waiting else None, return_when=asyncio.FIRST_COMPLETED
            )
            for task in done:
                error = task.exception()
                if error is None:
                    return tries.pop(task), task.result()
                del tries[task]
                if not isinstance(error, OSError):
                    raise error
                failed.append(error)
    finally:
        for task in tries:
            task.add_done_callback(_discard)
            task.cancel()
    raise OSError(failed[-1].errno, "; ".join(str(error.strerror) for error in failed)) from failed[-1]


def _discard(task: asyncio.Task[socket.socket]) -> None:
    """Close the sockets of places that were slower."""
    if not task.cancelled() and task.exception() is None:
        task.result().close()


async def _connect(place: str) -> socket.socket:
    family, address = sockaddr(place)
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        await asyncio.get_running_loop().sock_connect(sock, address)
    except OSError as exc:
        sock.close()
        reason = os.strerror(exc.errno) if exc.errno is not None else str(exc)
        raise OSError(exc.errno, f"{reason} at {place}") from exc
    except BaseException:
        sock.close()
        raise
    return sock
