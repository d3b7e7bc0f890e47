"""How often the calls of a test succeeded and were rejected."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Sequence

from raftkv.testing.judging.failure import NeverAnswered

CALLS_MIN = 20
"""So often a call may be rejected by chance."""


class Tally:
    """Counts calls by their names, where nothing goes wrong beside them."""

    def __init__(self, names: Sequence[str] = ()) -> None:
        """`names` are those of which there should be some."""
        self._names = dict.fromkeys(names)
        self._answered: Counter[str] = Counter()
        self._rejected: Counter[str] = Counter()

    def add(self, name: str, is_answered: bool) -> None:
        """A call was made, and was answered or rejected."""
        self._names.setdefault(name)
        (self._answered if is_answered else self._rejected)[name] += 1

    def described(self) -> str:
        """A line for each name."""
        room = max(map(len, self._names), default=0)
        return "\n".join(
            f"{name:{room}}  {self._answered[name]} answered, {self._rejected[name]} rejected" for name in self._names
        )

    def warn(self) -> None:
        """Warn of calls that were never answered, though there were many."""
        if self._answered.total() + self._rejected.total() < CALLS_MIN:
            return
        never = [name for name in self._names if not self._answered[name]]
        unlucky = [name for name in never if self._rejected[name] >= CALLS_MIN or not self._rejected[name]]
        if unlucky:
            warnings.warn(NeverAnswered(unlucky, self.described()), stacklevel=2)
