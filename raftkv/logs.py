"""Writing log lines that never raise: no line is worth failing the work of the code that writes it.

An event is a name and fields. In another program it is a record of `logging`, of the logger that is called as the
module that says it (`raftkv.node.recovery`), with the fields as attributes: that program's handlers and levels decide
what becomes of it, and nothing is set up for it. After `log_to_structlog` it is an event of structlog instead.

What a program has set up for its log (structlog's processors, the handlers of `logging`) may fail: its disk is full,
its reader is gone, a value has no text. The code that writes a line here does not hear of that; the line is counted
as lost, and once lines get through again, one says how many were lost. `raftkv serve` also never waits
(`raftkv.cli.sink`); in another program a line takes as long as that program's handlers do.

Act first, then say: what a line tells of is done before it is written (F78).
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeAlias

import msgspec

from raftkv.extras import needs

REASON_MAX = 300
"""Characters of the text of a handler's error that are kept."""


class LogHealth(msgspec.Struct, frozen=True):
    """Whether log lines get through to the program's handlers."""

    lines_lost: int = 0
    """Since the process began."""
    problem: str | None = None
    """Why nothing arrives now; None when all is well, as far as is known."""


class Losses:
    """Counts what handlers failed to take; for any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lines = self._unsaid = 0
        self._problem: str | None = None

    @property
    def health(self) -> LogHealth:
        return LogHealth(self._lines, self._problem)

    def failed(self, error: Exception) -> None:
        """A line was lost."""
        with self._lock:
            self._lines += 1
            self._unsaid += 1
            self._problem = f"the log's handlers fail: {_text(error)}"

    def worked(self) -> int:
        """A line got through; returns how many were lost since the last one that did."""
        if not self._unsaid:  # as nearly always
            return 0
        with self._lock:
            unsaid, self._unsaid, self._problem = self._unsaid, 0, None
            return unsaid


def _text(error: Exception) -> str:
    try:
        return f"{type(error).__name__}: {error}"[:REASON_MAX]
    except Exception:  # noqa: BLE001 (an error without a text is one all the same)
        return type(error).__name__


_losses = Losses()

logging.getLogger("raftkv").addHandler(logging.NullHandler())  # without it, `logging` prints what nobody has asked for

Write: TypeAlias = Callable[[str, str, str, dict[str, object]], None]
"""Takes one event: who says it, its level as `logging` calls its methods, its name and its fields. It may raise."""

_LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}
_TAKEN = frozenset({*vars(logging.makeLogRecord({})), "message", "asctime", "event"})
"""Attributes that a record of `logging` has anyway; a field of such a name gets an underscore behind it."""


def write_to_logging(name: str, level: str, event: str, fields: dict[str, object]) -> None:
    """One record: its text is the event's name and `field=value`, its attributes are `event` and the fields."""
    logger, number = logging.getLogger(name), _LEVELS[level]
    if not logger.isEnabledFor(number):
        return
    exc_info = fields.pop("exc_info", None)
    extra = {f"{key}_" if key in _TAKEN else key: value for key, value in fields.items()}
    said = [f"{key}={_shown(value)}" for key, value in fields.items() if value is not None]
    logger.log(
        number,
        " ".join([event, *said]),
        extra={"event": event, **extra},
        exc_info=exc_info,  # type: ignore[arg-type]  # whatever `logging` takes; anything else loses the line
        stacklevel=4,
    )


def _shown(value: object) -> str:
    text = str(value)
    return repr(text) if isinstance(value, str) and (not text or not text.isprintable() or " " in text) else text


def write_to_structlog(name: str, level: str, event: str, fields: dict[str, object]) -> None:
    """One event of the structlog logger of that name, as the program has configured structlog."""
    with needs("cli", "events of structlog"):
        import structlog

    getattr(structlog.get_logger(name), level)(event, **fields)


_write: Write = write_to_logging


def log_to_structlog() -> None:
    """From now on, write this process's events of raftkv to structlog, as it is configured, instead of to `logging`.

    For a program that logs with structlog. Raises `MissingExtra` when that is not installed.
    """
    global _write
    with needs("cli", "events of structlog"):
        import structlog  # noqa: F401
    _write = write_to_structlog


@contextmanager
def written_to(write: Write) -> Iterator[None]:
    """Have `write` take the events until the end of the block."""
    global _write
    before, _write = _write, write
    try:
        yield
    finally:
        _write = before


def health() -> LogHealth:
    """What this process has lost so far because handlers raised."""
    return _losses.health


RECENT_MAX = 100
VALUE_CHARS_MAX = 300
FIELDS_MAX = 32
"""Of an event that is kept; a hundred of the largest are a megabyte."""


class RecentEvent(msgspec.Struct, frozen=True):
    """An event that was kept to be shown."""

    number: int
    """Counted from 1 in this process."""
    at: float
    """Seconds since the epoch."""
    level: str
    event: str
    fields: dict[str, str]


class Recent:
    """The last events of this process but those for debugging, kept while somebody has asked for it; for any thread."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._events: deque[RecentEvent] = deque(maxlen=RECENT_MAX)
        self._number = 0
        self._wanted = 0

    def keep(self) -> None:
        """Keep events from now on, until `drop` was called as often."""
        with self._lock:
            self._wanted += 1

    def drop(self) -> None:
        """Nobody shows them any more."""
        with self._lock:
            self._wanted -= 1
            if self._wanted == 0:
                self._events.clear()

    def note(self, level: str, event: str, fields: dict[str, object]) -> None:
        """An event was said. May raise, as a value may have no text."""
        if self._wanted == 0 or level == "debug":
            return
        texts = {name: _cut(value) for name, value in list(fields.items())[:FIELDS_MAX] if value is not None}
        with self._lock:
            self._number += 1
            self._events.append(RecentEvent(self._number, self._clock(), level, event, texts))

    def after(self, number: int) -> list[RecentEvent]:
        """Those behind event `number` that are still kept, the oldest first."""
        with self._lock:
            return [each for each in self._events if each.number > number]


def _cut(value: object) -> str:
    text = str(value)
    return text if len(text) <= VALUE_CHARS_MAX else text[:VALUE_CHARS_MAX] + " …"


recent = Recent()


class EventLog:
    """Writes events with fields to wherever this process's events go, and never raises."""

    def __init__(self, name: str, losses: Losses = _losses) -> None:
        """`name` is that of the module that speaks."""
        self._name = name
        self._losses = losses

    def debug(self, event: str, **fields: object) -> None:
        self._say("debug", event, fields)

    def info(self, event: str, **fields: object) -> None:
        self._say("info", event, fields)

    def warning(self, event: str, **fields: object) -> None:
        self._say("warning", event, fields)

    def error(self, event: str, **fields: object) -> None:
        self._say("error", event, fields)

    def _say(self, level: str, event: str, fields: dict[str, object]) -> None:
        try:
            recent.note(level, event, fields)
            _write(self._name, level, event, fields)
            if lost := self._losses.worked():
                _write(self._name, "warning", "log_lines_lost", {"lines": lost})
        except Exception as exc:  # noqa: BLE001 (whatever handlers raise, it is no business of who logs)
            self._losses.failed(exc)


class TextLog:
    """Writes texts to a logger of `logging`, and never raises."""

    def __init__(self, name: str, losses: Losses = _losses) -> None:
        self._logger = logging.getLogger(name)
        self._losses = losses

    def info(self, text: str, *values: object) -> None:
        self._say(self._logger.info, text, values)

    def warning(self, text: str, *values: object) -> None:
        self._say(self._logger.warning, text, values)

    def error(self, text: str, *values: object) -> None:
        self._say(self._logger.error, text, values)

    def exception(self, text: str, *values: object) -> None:
        """As an error, with the traceback of the exception that is being handled."""
        self._say(self._logger.exception, text, values)

    def _say(self, say: Callable[..., None], text: str, values: tuple[object, ...]) -> None:
        try:
            say(text, *values, stacklevel=3)
            if lost := self._losses.worked():
                self._logger.warning("%d lines of the log were lost", lost)
        except Exception as exc:  # noqa: BLE001 (as above)
            self._losses.failed(exc)
