"""What the log says of those who were refused: each of the first few, then how many more, never a flood."""

from __future__ import annotations

from raftkv.logs import EventLog

logger = EventLog("raftkv")

LINES_MAX = 5
"""Lines of one kind in one window: enough to see a pattern."""

NO_TLS = "its TLS handshake failed: it shows no certificate of the authority, or speaks no TLS"
"""Of a connection that was accepted and never came to be; who it was is not known."""

WINDOW_S = 10.0
"""A stranger who tries a thousand times a second must not fill the disk; an operator who looks sees it at once."""

TEXT_MAX = 300
"""Of a reason: some of it may be what a stranger said."""


class Refusals:
    """Writes `event` to the log for each refusal, at most `lines_max` of a kind every `WINDOW_S` seconds.

    What was not said is said as a number at the end of the window, if `tick` is called now and then.
    `now` is any clock in seconds, the same for all calls. Kinds must be few: they are kept.
    """

    def __init__(self, event: str, *, lines_max: int = LINES_MAX) -> None:
        self._event = event
        self._lines_max = lines_max
        self._since: dict[str, float] = {}
        self._said: dict[str, int] = {}
        self._unsaid: dict[str, int] = {}

    def note(self, kind: str, reason: str, address: str, now: float, **more: object) -> None:
        """Somebody at `address` was refused; what `more` is known goes into the line."""
        self._turn(kind, now)
        if self._said.get(kind, 0) >= self._lines_max:
            self._unsaid[kind] = self._unsaid.get(kind, 0) + 1
            return
        self._since.setdefault(kind, now)
        self._said[kind] = self._said.get(kind, 0) + 1
        logger.warning(self._event, kind=kind, reason=reason[:TEXT_MAX], address=address, **more)

    def tick(self, now: float) -> None:
        """Say what is left of windows that have ended."""
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
    """Where somebody connects from, as a socket says it."""
    if isinstance(peername, tuple) and len(peername) >= 2:
        return f"{peername[0]}:{peername[1]}"
    return str(peername or "unknown")
