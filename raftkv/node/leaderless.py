"""When to log that there is no leader: soon after it is gone, then less and less often."""

from __future__ import annotations

FIRST_S = 5.0
"""An election takes a second; who looks at a log has to see within seconds that there is none."""

LAST_S = 300.0
"""At least so often it is said again, as logs are rotated."""


class Leaderless:
    """Counts for how long no leader is known. `now` is in seconds, of any clock that all calls share."""

    def __init__(self) -> None:
        self._since: float | None = None
        self._next_s = FIRST_S

    def look(self, has_leader: bool, now: float) -> float | None:
        """For how many seconds there has been no leader, if that is to be logged now; else None."""
        if has_leader:
            self._since, self._next_s = None, FIRST_S
            return None
        if self._since is None:
            self._since = now
        passed = now - self._since
        if passed < self._next_s:
            return None
        self._next_s = passed + min(self._next_s, LAST_S)
        return passed
