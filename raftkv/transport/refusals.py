"""Logs who was refused: each of the first few, then only how many more, so that the log is never flooded."""

from __future__ import annotations

from raftkv.logs import EventLog

logger = EventLog(__name__)

LINES_MAX = 5
"""Lines of one kind in one window: enough to see a pattern."""

NO_TLS = "its TLS handshake failed: it shows no certificate of the authority, or speaks no TLS"
"""Why an accepted connection failed in its TLS handshake, when nothing is known of the other side."""

WINDOW_S = 10.0
"""A stranger that tries a thousand times a second must not fill the disk, and an operator must see it at once."""

TEXT_MAX = 300
"""Characters of a reason that are logged: a stranger may have chosen some of them."""


class Refusals:
    """Writes `event` to the log for each refusal, at most `lines_max` of a kind every `WINDOW_S` seconds.

    The others are logged as a number at the end of the window, if `tick` is called now and then.
    `now` is any clock in seconds, the same for all calls. Kinds must be few: they are kept.
    """

    def __init__(self, event: str, *, lines_max: int = LINES_MAX) -> None:
        self._event = event
        self._lines_max = lines_max
        self._since: dict[str, float] = {}
        self._said: dict[str, int] = {}
        self._unsaid: dict[str, int] = {}

    def note(self, kind: str, reason: str, address: str, now: float, **more: object) -> None:
        """A connection from `address` was refused; the fields of `more` go into the line."""
        self._turn(kind, now)
        if self._said.get(kind, 0) >= self._lines_max:
            self._unsaid[kind] = self._unsaid.get(kind, 0) + 1
            return
        self._since.setdefault(kind, now)
        self._said[kind] = self._said.get(kind, 0) + 1
        logger.warning(self._event, kind=kind, reason=reason[:TEXT_MAX], address=address, **more)

    def tick(self, now: float) -> None:
        """Log the numbers of windows that have ended."""
        for kind in list(self._since):
            self._turn(kind, now)

    def _turn(self, kind: str, now: float) -> None:
        since = self._since.get(kind)
        if since is None or now - since < WINDOW_S:
            return
        del self._since[kind], self._said[kind]
        if more := self._unsaid.pop(kind, 0):
            logger.warning(self._event, kind=kind, more=more, seconds=round(now - since))


def address_text(peername: object) -> str:
    """The address of a connection's other end, as text."""
    if isinstance(peername, tuple) and len(peername) >= 2:
        return f"{peername[0]}:{peername[1]}"
    return str(peername or "unknown")
