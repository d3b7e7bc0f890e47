"""What the log files say beyond how a process has ended."""

from __future__ import annotations

from collections.abc import Iterator

from raftkv.doctor.evidence import Evidence, typed
from raftkv.doctor.finding import Sign


def log_unreadable(evidence: Evidence) -> Iterator[Sign]:
    """Not there, or no lines of JSON (F78)."""
    for log in evidence.logs:
        if log.problem is not None or (log.unread and not log.events):
            yield Sign(
                what=f"nothing could be read of the log {log.path}",
                why=(log.problem or f"{log.unread} lines that are no JSON of raftkv's log",),
                do="give a file that `raftkv serve --log-json` has written",
                commands=(typed("serve", "--log-json", "--help"),),
            )


def peer_doubted(evidence: Evidence) -> Iterator[Sign]:
    """A node was found to be a copy, or to differ (F20 F22 F76)."""
    for log in evidence.logs:
        doubts = [event for event in log.events if event.name in ("peer_doubted", "replica_diverged", "no_agreement")]
        if doubts:
            last = doubts[-1]
            yield Sign(
                what=f"a node was found to be not what it says, by the log {log.path}",
                why=(f"{log.path}: {last.describe()[:500]}",),
                do="do what the line says; the status of the others has more",
                commands=(evidence.asking("status"),),
            )
