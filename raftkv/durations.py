"""How long things take: counts within fixed bounds, as monitors want them, at the cost of a bisection each."""

from __future__ import annotations

from bisect import bisect_left

import msgspec

DURATION_BOUNDS_S = (
    *(0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5),
    *(1.0, 2.0, 5.0, 10.0, 60.0, 600.0),
)
"""From an fsync of a good disk to the transfer of a large snapshot."""


class Durations(msgspec.Struct):
    """What all runs of one thing took since the start; for one thread."""

    seconds: float = 0.0
    """All runs together."""
    counts: list[int] = msgspec.field(default_factory=lambda: [0] * (len(DURATION_BOUNDS_S) + 1))
    """How many took up to each of the bounds, and more than the one before; the last: more than all."""

    def note(self, seconds: float) -> None:
        """One more run."""
        self.seconds += seconds
        self.counts[bisect_left(DURATION_BOUNDS_S, seconds)] += 1

    def so_far(self) -> Durations:
        """A copy that stays as it is."""
        return Durations(self.seconds, list(self.counts))
