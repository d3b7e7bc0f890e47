"""The log of simulated nodes: nobody reads it, and at times it fails (F78)."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextvars import ContextVar

import structlog
from structlog.typing import EventDict, WrappedLogger

SINK: ContextVar[Callable[[], None]] = ContextVar("raftkv_sink", default=lambda: None)
"""What a process hands its lines to; it may raise, as a log does whose reader is gone."""


def _take(_: WrappedLogger, __: str, fields: EventDict) -> EventDict:
    SINK.get()()
    return fields


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Switch logging off: a simulated cluster logs a lot, and nobody reads it."""
    before = structlog.get_config() if structlog.is_configured() else None
    structlog.configure(
        processors=[_take], logger_factory=structlog.ReturnLoggerFactory(), cache_logger_on_first_use=False
    )
    try:
        yield
    finally:
        if before is not None:
            structlog.configure(**before)
        else:
            structlog.reset_defaults()
