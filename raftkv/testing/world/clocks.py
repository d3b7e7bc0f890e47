"""A simulated machine's wall clock: it can be set, can go fast or slow, and remembers what it has shown."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import NamedTuple

SPANS_KEPT = 64
"""How many changes of the clock are remembered; more than there are within the time that `latest_ms` looks back."""


class _Drift(NamedTuple):
    """The clock's error from `since_s` on: it begins at `wrong_ms`, and changes with time unless `rate` is 1."""

    since_s: float
    wrong_ms: float
    rate: float

    def wrong_at(self, now_s: float) -> float:
        return self.wrong_ms + (now_s - self.since_s) * 1000 * (self.rate - 1)


class WallClock:
    """A machine's wall clock; `time_s` is the world's true time."""

    def __init__(self, time_s: Callable[[], float], start_ms: int) -> None:
        self._time_s = time_s
        self._start_ms = start_ms
        self._oscillator = self._rate = 1.0
        self.set_ms = 0
        """By how much it was set wrong, in all."""
        self._spans: deque[_Drift] = deque([_Drift(0.0, 0.0, 1.0)], SPANS_KEPT)

    def now_ms(self) -> int:
        """What the clock shows now."""
        now = self._time_s()
        return self._start_ms + int(now * 1000 + self._spans[-1].wrong_at(now))

    def set_wrong(self, ms: int) -> None:
        """Set the clock, so that it is wrong by `ms`, in addition to what it has gained or lost by its rate."""
        self._go_on(ms - self.set_ms)
        self.set_ms = ms

    def go_at(self, rate: float) -> None:
        """Let this clock go at `rate` from now on; the machine's other clocks are not affected."""
        self._rate = rate
        self._go_on(0)

    def beat_at(self, oscillator: float) -> None:
        """Set the rate of the oscillator that drives all of the machine's clocks."""
        self._oscillator = oscillator
        self._go_on(0)

    def set_right(self) -> None:
        """Set the clock right, and let it go like the machine's other clocks."""
        self._rate, self.set_ms = 1.0, 0
        self._spans.append(_Drift(self._time_s(), 0.0, self._oscillator))

    def latest_ms(self, within_s: float) -> float:
        """The time that the clock would show now, had it gone on from the latest time that it showed in that period."""
        now = self._time_s()
        since, until, latest = now - within_s, now, float("-inf")
        for span in reversed(self._spans):
            begin = max(since, span.since_s)
            latest = max(latest, span.wrong_at(begin), span.wrong_at(until))
            if span.since_s <= since:
                break
            until = span.since_s
        return self._start_ms + now * 1000 + latest

    def _go_on(self, jump_ms: float) -> None:
        now = self._time_s()
        wrong = self._spans[-1].wrong_at(now) + jump_ms
        self._spans.append(_Drift(now, wrong, self._oscillator * self._rate))
