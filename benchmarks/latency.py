"""Latencies as histograms: what was recorded, its percentiles, and a text form that a file can hold."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from hdrh.histogram import HdrHistogram

LOWEST_NS = 1_000
HIGHEST_NS = 120 * 1_000_000_000
DIGITS = 3
"""Of precision: percentiles are right to a tenth of a percent or half a microsecond, up to two minutes."""

PERCENTILES = (50.0, 90.0, 99.0, 99.9)


class Latencies:
    """How long operations took, in nanoseconds; adding two of them up loses nothing."""

    def __init__(self) -> None:
        self._histogram = HdrHistogram(LOWEST_NS, HIGHEST_NS, DIGITS)

    @classmethod
    def of(cls, nanoseconds: Iterable[int]) -> Latencies:
        """All of these."""
        found = cls()
        for value in nanoseconds:
            found.add(value)
        return found

    @classmethod
    def from_text(cls, text: str) -> Latencies:
        """Read what `to_text` wrote."""
        found = cls()
        if text:
            found._histogram.decode_and_add(text)
        return found

    def to_text(self) -> str:
        """The whole histogram, compressed, in HdrHistogram's own exchange format (V2, base64)."""
        return str(self._histogram.encode().decode("ascii"))

    def add(self, nanoseconds: int) -> None:
        """One operation; what lies outside of the range counts as its end."""
        self._histogram.record_value(min(max(nanoseconds, LOWEST_NS), HIGHEST_NS))

    def merge(self, other: Latencies) -> None:
        """All operations of another."""
        self._histogram.add(other._histogram)

    @property
    def count(self) -> int:
        return int(self._histogram.get_total_count())

    def percentile_ms(self, percentile: float) -> float:
        """The latency that so many percent of the operations did not exceed, in milliseconds; 0 when there are none."""
        return float(self._histogram.get_value_at_percentile(percentile)) / 1e6 if self.count else 0.0

    def figures(self, percentiles: Iterable[float] = PERCENTILES) -> Mapping[str, float]:
        """`p50_ms` and so on, and `max_ms`."""
        found = {f"p{percentile:g}_ms": self.percentile_ms(percentile) for percentile in percentiles}
        return {**found, "max_ms": self.percentile_ms(100.0)}
