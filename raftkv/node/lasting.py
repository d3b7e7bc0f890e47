"""For how long what an operator is told has been so."""

from __future__ import annotations

from collections.abc import Mapping


class Lasting:
    """Remembers when each of some things began. `now` is in seconds, of any clock that all calls share."""

    def __init__(self) -> None:
        self._began: dict[str, float] = {}
        self._looked_at: float | None = None

    def look(self, holds: Mapping[str, bool], now: float) -> None:
        """Take note of what holds now, by name; what is not named any more has ended."""
        began = self._began
        self._began = {name: began.get(name, now) for name, whether in holds.items() if whether}
        self._looked_at = now

    def since_last_look(self, name: str, now: float) -> None:
        """`name` holds, and has begun after the last look: nobody looks when a node has stopped."""
        self._began.setdefault(name, now if self._looked_at is None else self._looked_at)

    def seconds(self, now: float) -> dict[str, float]:
        """For how long each of them has held, in seconds."""
        return {name: round(now - began, 3) for name, began in self._began.items()}
