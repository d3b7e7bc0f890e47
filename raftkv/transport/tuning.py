"""Options of the sockets between nodes."""

from __future__ import annotations

import asyncio
import socket


def set_no_delay(transport: asyncio.Transport) -> None:
    """Send small frames at once: what belongs together is written together already."""
    sock = transport.get_extra_info("socket")
    if sock is not None and sock.family in (socket.AF_INET, socket.AF_INET6):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
