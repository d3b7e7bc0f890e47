"""What is logged while something is done, whatever the process does with its log."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from raftkv import logs


@contextmanager
def capture_logs() -> Iterator[list[dict[str, Any]]]:
    """The events until the end of the block, as their fields with `event` and `log_level`; they go nowhere else."""
    events: list[dict[str, Any]] = []

    def take(name: str, level: str, event: str, fields: dict[str, object]) -> None:
        events.append({**fields, "event": event, "log_level": level})

    with logs.written_to(take):
        yield events
