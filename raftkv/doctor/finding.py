"""What is found: how bad it is, why it is thought so, what to do about it and what not."""

from __future__ import annotations

from enum import StrEnum

import msgspec


class Severity(StrEnum):
    """How soon somebody has to act; the worst comes first."""

    CRITICAL = "critical"
    """Clients are not served, or data is in doubt: act now."""
    WARNING = "warning"
    """All is served, but something is wrong, or one more fault would stop it: act today."""
    NOTE = "note"
    """Nothing is wrong; it is worth knowing when something else is."""


class Sign(msgspec.Struct, frozen=True, kw_only=True):
    """That a condition is met, once: of one node, one peer, one directory, or the cluster."""

    what: str
    """A sentence; it names the node or the directory."""
    why: tuple[str, ...]
    """The values that show it, and where each is from."""
    do: str
    """What to do, in words."""
    commands: tuple[str, ...] = ()
    """What to type for that, in this order."""
    dont: str = ""
    """What would make it worse; empty when nothing comes to mind at such a moment."""
    lasting_s: float | None = None
    """For how many seconds it has been so; None when nobody knows."""
    at: str | None = None
    """The time at which it began, where a log has it."""


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """A sign, with the condition that it belongs to."""

    condition: str
    severity: Severity
    what: str
    since: str | None
    """A time in UTC; None when nobody knows."""
    why: tuple[str, ...]
    do: str
    commands: tuple[str, ...]
    dont: str
