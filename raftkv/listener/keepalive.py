"""Keeps the place of a client whose host has vanished for two minutes, and not for two hours."""

from __future__ import annotations

import socket

KEEPALIVE_S = {"TCP_KEEPIDLE": 60, "TCP_KEEPINTVL": 15, "TCP_KEEPCNT": 4}
"""A client whose host has vanished keeps its place for two minutes; by the system's own choice it is two hours."""


def keep_alive(sock: socket.socket) -> None:
    """Ask now and then whether anybody is there, so that one who vanished does not keep its place for ever."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in KEEPALIVE_S.items():
        if hasattr(socket, name):  # not every system lets one choose
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
