"""A limit of bytes a second, told the time from outside."""

from __future__ import annotations

BURST_S = 0.1
"""Idle time earns credit for up to this long, so that a late timer costs no throughput."""


class Throttle:
    """A bucket of credit that fills at `bytes_s`. Unless it is in debt, a chunk may be sent, which may overdraw it."""

    def __init__(self, bytes_s: int, now: float) -> None:
        self._bytes_s = bytes_s
        self._credit = 0.0
        self._at = now

    def delay(self, now: float) -> float:
        """Seconds until something may be sent; 0 when it may now, and always when there is no limit."""
        if not self._bytes_s:
            return 0.0
        self._credit = min(self._credit + (now - self._at) * self._bytes_s, self._bytes_s * BURST_S)
        self._at = now
        wait = -self._credit / self._bytes_s
        # A delay below the clock's resolution: added to the time it would give the same time, again and again.
        return wait if wait > 1e-6 else 0.0

    def take(self, size: int) -> None:
        """Note that `size` bytes are sent."""
        self._credit -= size
