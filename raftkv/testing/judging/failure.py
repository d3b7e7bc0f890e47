"""The errors with which a world or a test of an application ends when a promise is broken."""

from __future__ import annotations

from enum import StrEnum


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


class UndecidedHistory(UserWarning):
    """It was not found out whether an order of the calls explains what the clients heard: that example shows less."""

    def __init__(self, keys: int, seed: int) -> None:
        super().__init__(
            f"it is undecided whether calls of seed {seed} are linearizable: for {keys} key{'s' if keys > 1 else ''} "
            "the search was given up. Let scripts be shorter, have more keys, or fewer clients"
        )


class CounterExample(Failure):
    """A script under which an application is not what its model says.

    `described` says what went wrong; `program` is Python source that shows it again; `path` is the file in which the
    script was saved, if it was. What shows only in a cluster has a `diagram`, in text, and a `page` with all of it.
    """

    def __init__(self, cause: Cause, described: str, program: str = "", path: str | None = None) -> None:
        super().__init__(described)
        self.cause = cause
        self.described = described
        self.program = program
        self.path = path
        self.diagram = ""
        self.page: str | None = None

    @property
    def instructions(self) -> str:
        """What to type to see the failure again."""
        lines = ["This program shows it again:", "", *(f"    {line}".rstrip() for line in self.program.splitlines())]
        if self.path is not None:
            lines += ["", f"So does: raftkv replay {self.path}"]
        if self.page is not None:
            lines += ["", f"What happened is drawn in: {self.page}"]
        return "\n".join(lines)
