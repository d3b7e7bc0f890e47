"""What is met often and said now and then, each by its name."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable

REST_S = 60.0
"""How long what has been said is only counted: every retry may meet it again, and so does every entry at a start."""


class NowAndThen:
    """Counts by name, and tells when a name is to be said again. For any thread, as queries run on several."""

    def __init__(self, clock: Callable[[], float]) -> None:
        """`clock` gives seconds."""
        self._clock = clock
        self._lock = threading.Lock()
        self._said: dict[str, tuple[float, int]] = {}
        self.counts: Counter[str] = Counter()

    def met(self, name: str) -> int:
        """It was met once more: how often since it was said last, if it is to be said now; else 0."""
        now = self._clock()
        with self._lock:
            self.counts[name] += 1
            count = self.counts[name]
            said_at, said_count = self._said.get(name, (now - REST_S, 0))
            if now - said_at < REST_S:
                return 0
            self._said[name] = now, count
        return count - said_count
