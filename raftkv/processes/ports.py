"""Ports of loopback for processes under test."""

from __future__ import annotations

import atexit
import socket

FIRST, BEHIND, SHARE = 10_000, 32_000, 500
"""Below what systems give to outgoing connections by themselves, in shares for each process that tests."""


class _Share:
    """Ports that no other process takes that asks here: its first one is kept bound for as long as this one lives.

    A port that is merely free now may be somebody else's a moment later, also while a node that has it is down.
    """

    def __init__(self) -> None:
        for first in range(FIRST, BEHIND, SHARE):
            if (kept := _bound(first)) is not None:
                atexit.register(kept.close)
                self._first, self._next = first, 0
                return
        raise OSError(f"no share of {SHARE} ports between {FIRST} and {BEHIND} is free")

    def take(self) -> int:
        """The next one that nobody listens on."""
        for _ in range(SHARE):
            self._next = self._next % (SHARE - 1) + 1
            port = self._first + self._next
            if (found := _bound(port)) is not None:
                found.close()
                return port
        raise OSError(f"none of the ports from {self._first} on is free")


def _bound(port: int) -> socket.socket | None:
    found = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        found.bind(("127.0.0.1", port))
    except OSError:
        found.close()
        return None
    return found


_shares: list[_Share] = []


def free_ports(count: int) -> list[int]:
    """TCP ports of loopback on which nothing listens, and which no other process gets from here. Raises `OSError`."""
    if not _shares:
        _shares.append(_Share())
    return [_shares[0].take() for _ in range(count)]
