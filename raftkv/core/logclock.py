"""A leader's view of the voters' clocks: the time that it stamps by, and its doubt in its own (see `core.clocks`)."""

from __future__ import annotations

import msgspec


class ClockDoubt(msgspec.Struct, frozen=True):
    """Why a leader does not stamp by its own clock."""

    ahead_ms: int
    """How far its clock is ahead of the time that it stamps by; negative when it is behind."""
    has_majority: bool
    """Whether that time is what a majority of the voters' clocks say, and not its own monotonic clock's progress."""


class LogClock(msgspec.Struct):
    """A leader's view of the clocks. `base_ms`, `low_ms` and `high_ms` are ahead of its monotonic clock by so much."""

    base_ms: float
    """The time to stamp by when its own clock is not to be trusted."""
    low_ms: float
    high_ms: float
    """Its own clock is trusted from `low_ms` to `high_ms`."""
    judged_ms: int
    """The monotonic time of this view."""
    has_majority: bool
    since_ms: int
    """Since when `has_majority` is as it is, by the monotonic clock."""
    doubt: ClockDoubt | None = None
