"""What the nodes of simulated worlds log to: nothing that anybody reads, and at times something that fails (F78)."""

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
    """Let nothing be logged: a simulated cluster has much to say, and nobody reads it."""
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
