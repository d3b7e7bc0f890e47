"""A simulated machine's wall clock: it can be set, and go fast or slow, and what it showed is remembered."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import NamedTuple

SPANS_KEPT = 64
"""How often it may be meddled with within what `latest_ms` looks back to."""


class _Drift(NamedTuple):
    """From `since_s` on it is wrong by `wrong_ms`, and by more with each second, as it goes at `rate`."""

    since_s: float
    wrong_ms: float
    rate: float

    def wrong_at(self, now_s: float) -> float:
        return self.wrong_ms + (now_s - self.since_s) * 1000 * (self.rate - 1)


class WallClock:
    """What a machine takes for the time of day; `time_s` is the world's time."""

    def __init__(self, time_s: Callable[[], float], start_ms: int) -> None:
        self._time_s = time_s
        self._start_ms = start_ms
        self._oscillator = self._rate = 1.0
        self.set_ms = 0
        """By how much it was set wrong, in all."""
        self._spans: deque[_Drift] = deque([_Drift(0.0, 0.0, 1.0)], SPANS_KEPT)

    def now_ms(self) -> int:
        """What it shows; also while nobody looks."""
        now = self._time_s()
        return self._start_ms + int(now * 1000 + self._spans[-1].wrong_at(now))

    def set_wrong(self, ms: int) -> None:
        """Set it, so that it is wrong by `ms` and by what it has gained or lost by itself."""
        self._go_on(ms - self.set_ms)
        self.set_ms = ms

    def go_at(self, rate: float) -> None:
        """Let it go at `rate` from now on, whatever the machine's other clocks do."""
        self._rate = rate
        self._go_on(0)

    def beat_at(self, oscillator: float) -> None:
        """Let what drives all of the machine's clocks go at that rate from now on."""
        self._oscillator = oscillator
        self._go_on(0)

    def set_right(self) -> None:
        """Let it be right, and go as the machine's other clocks do."""
        self._rate, self.set_ms = 1.0, 0
        self._spans.append(_Drift(self._time_s(), 0.0, self._oscillator))

    def latest_ms(self, within_s: float) -> float:
        """What it would show now if it had always gone on from the latest time that it showed within that time."""
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
