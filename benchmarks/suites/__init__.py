"""The suites, in the order in which they are listed."""

from __future__ import annotations

from benchmarks.suite import Suite
from benchmarks.suites import writes

SUITES: dict[str, Suite] = {each.name: each for each in (writes.SUITE,)}
