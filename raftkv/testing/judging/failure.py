"""The errors with which a world or a test of an application ends when a promise is broken."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import Protocol


class Failure(AssertionError):
    """A promise was broken; the text tells the seed, what it was, and what happened before."""


class Cause(StrEnum):
    """Why an application's test failed, which says what has to be mended."""

    NONDETERMINISTIC = "nondeterministic"
    """A command or query gave something else in another process, at another time, or with other dice."""
    REMEMBERS = "remembers"
    """A command or query depends on something outside of tables, which a restart forgets."""
    DISAGREES = "disagrees"
    """The state machine and the model differ, with nothing going wrong."""
    FAILED = "failed"
    """A command failed in a way that stops every node (`MachineFailed`)."""
    GREW_APART = "grew apart"
    """A class of a later version could not take the place of the earlier one: what they declare does not fit."""
    VERSIONS_DIFFER = "versions differ"
    """Classes of two versions did not do the same while one version was active."""
    UPGRADE_FAILED = "upgrade failed"
    """An upgrade raised, or it was never done."""
    UPGRADE_LOSES = "upgrade loses"
    """After an upgrade, something that was there before is gone, or can't be read or called."""
    NOT_LINEARIZABLE = "not linearizable"
    """No order of the calls explains what the clients heard, though the machine agrees with the model by itself."""
    BROKEN = "broken"
    """An invariant of the cluster did not hold, or it did not recover."""

    @property
    def needs_a_world(self) -> bool:
        """Whether it shows only in a cluster; otherwise the calls alone are enough."""
        return self in (Cause.NOT_LINEARIZABLE, Cause.BROKEN)

    @property
    def price(self) -> int:
        """What it costs to look whether a script shows it, in tenths of a world."""
        return 10 if self.needs_a_world else 3 if self is Cause.REMEMBERS else 1


ALONE = frozenset(cause for cause in Cause if not cause.needs_a_world)
IN_A_WORLD = frozenset(Cause) - ALONE


class UndecidedHistory(UserWarning):
    """It was not found out whether an order of the calls explains what the clients heard: that example shows less."""

    def __init__(self, keys: int, seed: int) -> None:
        super().__init__(
            f"it is undecided whether calls of seed {seed} are linearizable: for {keys} key{'s' if keys > 1 else ''} "
            "the search was given up. Let scripts be shorter, have more keys, or fewer clients"
        )


class NeverAnswered(UserWarning):
    """A command or query of a test was always rejected, or never called: nothing of what it does was tested."""

    def __init__(self, names: Sequence[str], counts: str) -> None:
        super().__init__(
            f"{', '.join(names)} never succeeded, so what {'they do' if len(names) > 1 else 'it does'} is not tested: "
            "draw arguments with which it can, as `earlier(…)` does for tokens and ids. Calls in the search:\n" + counts
        )


class NeverRan(UserWarning):
    """A command that is to run every so often never did in a test, and nobody called it: nothing of what it does was
    tested."""

    def __init__(self, names: Sequence[str], counts: str) -> None:
        them, they = ("them", "they do") if len(names) > 1 else ("it", "it does")
        super().__init__(
            f"nobody called {', '.join(names)}, and nothing ran {them} by itself, so what {they} is not tested: see "
            "that turns come within the five minutes for which scripts last at most, or have the test call it too. "
            "Calls in the search:\n" + counts
        )


class Picture(Protocol):
    """Shows how a script has failed."""

    def text(self) -> str:
        """In lines."""

    def page(self, title: str, verdict: str) -> str:
        """For a browser."""


class CounterExample(Failure):
    """A script under which an application is not what its model says.

    `described` says what went wrong; `program` is Python source that shows it again; `path` is the file in which the
    script was saved, if it was. It is drawn in a `diagram`, in text, and in a `page` with all of it.
    """

    def __init__(self, cause: Cause, described: str, program: str = "", path: str | None = None) -> None:
        super().__init__(described)
        self.cause = cause
        self.described = described
        self.program = program
        self.path = path
        self.diagram = ""
        self.page: str | None = None
        self.picture: Picture | None = None
        """Of what shows without a cluster."""

    @property
    def instructions(self) -> str:
        """What to type to see the failure again."""
        lines = ["This program shows it again:", "", *(f"    {line}".rstrip() for line in self.program.splitlines())]
        if self.path is not None:
            lines += ["", f"So does: raftkv replay {self.path}"]
        if self.page is not None:
            lines += ["", f"What happened is drawn in: {self.page}"]
        return "\n".join(lines)
