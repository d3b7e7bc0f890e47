"""The search for a script that fails, and then for the smallest one that fails likewise."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable
from typing import TypeAlias

import hypothesis
from hypothesis import HealthCheck, Phase
from hypothesis.strategies import SearchStrategy

from raftkv.errors import InvalidArgument
from raftkv.testing.judging.failure import Cause, CounterExample
from raftkv.testing.trying.budget import Budget, chosen
from raftkv.testing.trying.determinism import TwinDied
from raftkv.testing.trying.script import Script
from raftkv.testing.trying.trimming import trimmed


class _Enough(BaseException):
    """Ends the search, because the budget is used up, or nothing can be tried.

    Hypothesis lets it pass, as it is no `Exception`; from any other it would go on to shrink for minutes.
    """


Attempt: TypeAlias = Callable[[Script, Cause | None], None]
"""Raises `CounterExample` for a script that fails; if a cause is given, only for failures of that one."""

KNOWN_MAX = 1_000
"""Scripts that a hunt remembers for the next one: a soak has more, and they are large."""


class Hunt:
    """Looks for a script that fails, and then for smaller ones, within a budget."""

    def __init__(
        self,
        scripts: SearchStrategy[Script],
        attempt: Attempt,
        budget: Budget,
        before: Hunt | None = None,
        *,
        are_long: bool = False,
    ) -> None:
        """`before` has made another attempt with the same scripts, and none failed. Long scripts are as many as the
        budget has of them, and are only trimmed: hypothesis would use its tries up on their many values."""
        self._scripts = scripts
        self._attempt = attempt
        self._budget = budget
        self._before = before
        self._are_long = are_long
        self._count = budget.long_scripts if are_long else budget.examples
        self._seed: int = before._seed if before is not None else _seed_of(budget)
        self._tried: list[Script] = []
        self._left = 5 * budget.shrinks  # half of it, in tenths; the other half is for what `trimmed` tries
        self._cause: Cause | None = None
        self._found: dict[str, CounterExample | None] = {}
        self._smallest: Script | None = None
        self._trouble: TwinDied | InvalidArgument | None = None

    def run(self) -> tuple[Script, CounterExample] | None:
        """Search, and return the failure of the smallest script that failed; None without one."""
        with contextlib.suppress(CounterExample, _Enough):
            if self._count and not self._known_pass():
                self._hypothesis()()
        if self._trouble is not None:
            raise self._trouble.with_traceback(None) from None
        if self._smallest is None:
            return None
        self._left += 5 * self._budget.shrinks
        with contextlib.suppress(_Enough):
            trimmed(self._smallest, self._fails)
        error = self._found[repr(self._smallest)]
        assert error is not None, "the smallest script that failed has failed"
        return self._smallest, error

    def _hypothesis(self) -> Callable[[], None]:
        """Make hypothesis's search, which tries scripts, and after a failure smaller ones."""
        settings = hypothesis.settings(
            max_examples=self._count,
            database=None,  # a failure is saved to a file of its own
            deadline=None,
            derandomize=False,
            phases=[Phase.generate] if self._are_long else [Phase.generate, Phase.shrink],
            report_multiple_bugs=False,
            suppress_health_check=list(HealthCheck),
            print_blob=False,
        )
        given = hypothesis.given(self._scripts)(self._try)
        return hypothesis.seed(self._seed)(settings(given))

    def _known_pass(self) -> bool:
        """Whether all scripts of the hunt before are known, and pass.

        Hypothesis would draw the same ones again, which takes longer than many attempts; it need not, unless one fails
        and has to be made smaller.
        """
        before = self._before
        return before is not None and len(before._tried) < KNOWN_MAX and not any(map(self._fails, before._tried))

    def _fails(self, script: Script) -> bool:
        try:
            self._try(script)
        except CounterExample:
            return True
        return False

    def _try(self, script: Script) -> None:
        """Raises `CounterExample`; always the same for the same script, and from one line, by which it is known."""
        place = repr(script)
        if place not in self._found:
            if self._cause is not None:
                if self._left <= 0:
                    raise _Enough
                self._left -= self._cause.price
            self._found[place] = self._run(script)
            if len(self._tried) < KNOWN_MAX:
                self._tried.append(script)
        error = self._found[place]
        if error is not None and self._cause in (None, error.cause):  # who looks for one mistake is not to find another
            self._cause, self._smallest = error.cause, script
            raise error.with_traceback(None)

    def _run(self, script: Script) -> CounterExample | None:
        try:
            self._attempt(script, self._cause)
        except CounterExample as error:
            return error
        except (TwinDied, InvalidArgument) as trouble:
            self._trouble = trouble  # smaller scripts would be of no help
            raise _Enough from trouble
        return None


def _seed_of(budget: Budget) -> int:
    """The same scripts every time, except in a soak, which should try new ones."""
    if chosen.seed is not None:
        return chosen.seed
    return 0 if budget.name != "soak" else random.SystemRandom().getrandbits(32)
