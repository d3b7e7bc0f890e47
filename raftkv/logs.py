"""Writing log lines that never raise: no line is worth failing the work of the code that writes it.

What a program has set up for its log (structlog's processors, the handlers of `logging`) may fail: its disk is full,
its reader is gone, a value has no text. The code that writes a line here does not hear of that; the line is counted
as lost, and once lines get through again, one says how many were lost. `raftkv serve` also never waits
(`raftkv.cli.sink`); in another program a line takes as long as that program's handlers do.

Act first, then say: what a line tells of is done before it is written (F78).
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Any

import msgspec
import structlog

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


def health() -> LogHealth:
    """What this process has lost so far because handlers raised."""
    return _losses.health


class EventLog:
    """Writes events with fields to structlog, and never raises."""

    def __init__(self, name: str, losses: Losses = _losses) -> None:
        self._logger: Any = structlog.get_logger(name)
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
            getattr(self._logger, level)(event, **fields)
            if lost := self._losses.worked():
                self._logger.warning("log_lines_lost", lines=lost)
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
