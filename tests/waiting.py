"""Waits for what another thread or process does."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

DEADLINE_S = 30.0
"""Nothing that is waited for takes this long, on a busy machine either."""


def until(condition: Callable[[], T], what: str = "", within_s: float = DEADLINE_S) -> T:
    """Look again and again until `condition` gives something true, and give that back."""
    between, end = threading.Event(), time.monotonic() + within_s
    while not (found := condition()):
        assert time.monotonic() < end, f"not within {within_s:g} s: {what or condition}"
        between.wait(0.01)
    return found
