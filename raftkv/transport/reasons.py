"""Why a peer is not reached: as one of a few kinds, which a metric can count, and as a text that says more."""

from __future__ import annotations

import ssl
from enum import StrEnum

import msgspec

AGAIN_S = 60.0
"""How often the log repeats the same reason for the same peer."""

PATIENCE_S = 5.0
"""What is usual at starts and restarts is logged only if it lasts this long: a peer that is not up yet is no news."""


class NameUnknown(OSError):
    """A name that stands for no address, as far as can be found out now."""


class Reason(StrEnum):
    """What stands between this node and a peer."""

    NAME = "name"
    """Its name can't be looked up, or is none."""
    LOOKUP = "lookup"
    """Its name is being looked up, and that takes long."""
    REFUSED = "refused"
    """Nobody listens where it should."""
    TIMEOUT = "timeout"
    """Nothing answers."""
    NETWORK = "network"
    """The system can't send anything there."""
    TLS = "tls"
    """One side does not take the other's certificate, or doesn't speak TLS."""
    HANDSHAKE = "handshake"
    """One side doesn't want the other; both say why."""
    CLOSED = "closed"
    """The connection ended, from there or on the way."""

    @property
    def is_usual(self) -> bool:
        """Whether a start, a restart or a cut looks like this too, and passes by itself."""
        return self in (Reason.REFUSED, Reason.TIMEOUT, Reason.NETWORK, Reason.CLOSED)


class Unreached(msgspec.Struct, frozen=True):
    """Why the newest try to reach a peer has failed, or takes long."""

    reason: Reason
    text: str


def reason_of(exc: BaseException | None) -> Reason:
    """What kind of trouble the error of a connection is; None for one that was simply closed."""
    match exc:
        case NameUnknown():
            return Reason.NAME
        case ssl.SSLError():
            return Reason.TLS
        case ConnectionRefusedError():
            return Reason.REFUSED
        case TimeoutError():
            return Reason.TIMEOUT
        case None | ConnectionError():
            return Reason.CLOSED
        case _:
            return Reason.NETWORK


def error_text(exc: BaseException) -> str:
    """An error's text, without the system's number for it."""
    if isinstance(exc, OSError) and exc.strerror and not isinstance(exc, ssl.SSLError):
        return exc.strerror
    return str(exc) or type(exc).__name__


class Trouble:
    """The trouble with one peer since it was last reached, and what was logged of it."""

    def __init__(self) -> None:
        self.now: Unreached | None = None
        """Why it is not reached; None while it is, and before the first try has ended."""
        self._since: float | None = None
        self._said: dict[Reason, float] = {}

    def over(self) -> None:
        """The peer is reached."""
        self.now = self._since = None
        self._said.clear()

    def note(self, why: Unreached, now: float) -> bool:
        """Keep why it is not reached at `now`, in seconds of any clock; returns whether the log should say so.

        A reason is logged when it is new and then once every `AGAIN_S`; a usual one only when it lasts.
        """
        self.now = why
        if self._since is None:
            self._since = now
        if why.reason.is_usual and now - self._since < PATIENCE_S:
            return False
        said = self._said.get(why.reason)
        if said is not None and now - said < AGAIN_S:
            return False
        self._said[why.reason] = now
        return True
