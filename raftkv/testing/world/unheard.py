"""The log of simulated nodes: nobody reads it, and at times it fails (F78)."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextvars import ContextVar

from raftkv import logs

SINK: ContextVar[Callable[[], None]] = ContextVar("raftkv_sink", default=lambda: None)
"""What a process hands its lines to; it may raise, as a log does whose reader is gone."""


def _take(name: str, level: str, event: str, fields: dict[str, object]) -> None:
    SINK.get()()


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Switch logging off: a simulated cluster logs a lot, and nobody reads it."""
    with logs.written_to(_take):
        yield
