"""How long to wait before the next try to reach a peer."""

from __future__ import annotations

from collections.abc import Callable

FIRST_MS = 50
"""A restarted process is back within some tens of ms, and peers should not wait longer for it."""
LAST_MS = 1_000
"""A host that is gone for hours costs a dial a second, and is found within a second when it is back."""


class Backoff:
    """Doubles from `FIRST_MS` to `LAST_MS`, plus up to half of it so that nodes don't dial in step."""

    def __init__(self, draw: Callable[[int], int]) -> None:
        self._draw = draw
        self._next_ms = FIRST_MS

    def next_s(self) -> float:
        """Seconds to wait now; the next wait will be longer."""
        wait_ms, self._next_ms = self._next_ms, min(2 * self._next_ms, LAST_MS)
        return (wait_ms + self._draw(wait_ms // 2 + 1)) / 1000

    def reset(self) -> None:
        """The peer answers: begin with short waits again."""
        self._next_ms = FIRST_MS
