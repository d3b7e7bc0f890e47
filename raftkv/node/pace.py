"""How quick the disk has been of late, which decides where little writes are done."""

from __future__ import annotations

QUICK_S = 0.002
"""A write that takes longer is slow: as long as that, the event loop could have done a dozen commands."""

QUICK_IN_A_ROW = 16
"""So many writes in a row must have been quick, and the next one counts as quick as well."""


class DiskPace:
    """Watches how long writes take. A disk whose last writes were all quick may be waited for."""

    def __init__(self) -> None:
        self._quick_ones = 0

    def took(self, seconds: float) -> None:
        """A write has taken so long."""
        self._quick_ones = self._quick_ones + 1 if seconds <= QUICK_S else 0

    @property
    def is_quick(self) -> bool:
        """Whether the next write may be expected to be quick."""
        return self._quick_ones >= QUICK_IN_A_ROW
