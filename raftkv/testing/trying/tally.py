"""How often the calls of a test succeeded and were rejected, and what ran by itself."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Sequence

from raftkv.machine import StateMachine
from raftkv.machine.methods import hook_of
from raftkv.testing.judging.failure import NeverAnswered, NeverRan
from raftkv.testing.judging.models import said

CALLS_MIN = 20
"""So often a call may be rejected by chance."""


class Tally:
    """Counts calls by their names, where nothing goes wrong beside them."""

    def __init__(self, names: Sequence[str] = (), due: Sequence[str] = (), told: Sequence[str] = ()) -> None:
        """`names` are those of which there should be some; those that are `due` should run without being called, and
        those that are `told` might."""
        self._names = dict.fromkeys(names)
        self._due = due
        self._by_themselves = dict.fromkeys((*due, *told))
        self._answered: Counter[str] = Counter()
        self._rejected: Counter[str] = Counter()
        self._fired: Counter[str] = Counter()

    def add(self, name: str, is_answered: bool) -> None:
        """A call was made, and was answered or rejected."""
        self._names.setdefault(name)
        (self._answered if is_answered else self._rejected)[name] += 1

    def add_fired(self, name: str) -> None:
        """A command has run by itself, as its time had come, or that of a row or turn."""
        self._by_themselves.setdefault(name)
        self._fired[name] += 1

    def described(self) -> str:
        """A line for each name."""
        names = [*self._names, *(name for name in self._by_themselves if name not in self._names)]
        room = max(map(len, names), default=0)
        return "\n".join(f"{name:{room}}  {self._counts(name)}" for name in names)

    def _counts(self, name: str) -> str:
        called = [f"{self._answered[name]} answered", f"{self._rejected[name]} rejected"] if name in self._names else []
        return ", ".join([*called, f"{self._fired[name]} by itself"] if name in self._by_themselves else called)

    def warn(self) -> None:
        """Warn of calls that were never answered, though there were many, and of what never ran by itself."""
        if self._answered.total() + self._rejected.total() < CALLS_MIN:
            return
        never = [name for name in self._names if not self._answered[name]]
        unlucky = [name for name in never if self._rejected[name] >= CALLS_MIN or not self._rejected[name]]
        if unlucky:
            warnings.warn(NeverAnswered(unlucky, self.described()), stacklevel=2)
        idle = [name for name in self._due if name not in self._names and not self._fired[name]]
        if idle:
            warnings.warn(NeverRan(idle, self.described()), stacklevel=2)


def due_by_themselves(machine: type[StateMachine]) -> list[str]:
    """The commands that are to run every so often without being called, which is no matter of chance."""
    return [name for name, method in machine.methods.items() if method.every_ms]


def left_to_others(machine: type[StateMachine], model: type, called: Sequence[str]) -> list[str]:
    """The commands for rows that are over; and those that a test does not make, though `model` says what they do:
    mostly those that others schedule. Whether one of these ever runs may be a matter of which calls are drawn."""
    return [
        name
        for name, method in machine.methods.items()
        if hook_of(method.function) is not None
        or (not method.is_query and name not in called and hasattr(model, said(name)))
    ]
