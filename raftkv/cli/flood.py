"""Keeps what happens again and again from filling a process's log: so many lines of a kind a minute, others counted.

A kind is an event and the peer that it is about. The first lines of a kind are always written, and so is every error
and whatever is for debugging. What is left out is said in a line of its own, as soon as its minute is over and
something else is said.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TypeAlias

import msgspec

from raftkv.logs import Write

LINES_MAX = 20
"""Of a kind in a window: enough to see how it goes, and 5 MiB a day of the worst kind."""

WINDOW_S = 60.0

KINDS_MAX = 1_024
"""So many are told apart; peers and events are few, but a bug may make many."""

Kind: TypeAlias = tuple[str, str, str]
"""Who says it, its name, and whom it is about."""

OTHERS: Kind = ("raftkv", "others", "")
"""All kinds beyond `KINDS_MAX`."""


class _Window(msgspec.Struct):
    since: float
    written: int = 0
    left_out: int = 0


class Flood:
    """Passes events on to `write` as long as they are few; for any thread. It raises what `write` raises."""

    def __init__(self, write: Write, clock: Callable[[], float] = time.monotonic) -> None:
        """`clock` gives seconds."""
        self._write = write
        self._clock = clock
        self._lock = threading.Lock()
        self._windows: dict[Kind, _Window] = {}
        self._next_end = 0.0
        """No window ends before that."""

    def __call__(self, name: str, level: str, event: str, fields: dict[str, object]) -> None:
        """An event, as `raftkv.logs.Write` says."""
        with self._lock:
            over = self._ended()
            passes = level in ("debug", "error") or self._counted(_kind(name, event, fields))
        for kind, window, seconds in over:
            self._say_left_out(kind, window, seconds)
        if passes:
            self._write(name, level, event, fields)

    def flush(self) -> None:
        """Say what was left out so far, as nothing comes any more."""
        with self._lock:
            self._next_end = 0.0
            over = self._ended(at_once=True)
        for kind, window, seconds in over:
            self._say_left_out(kind, window, seconds)

    def _counted(self, kind: Kind) -> bool:
        """Whether another line of this kind is to be written."""
        if kind not in self._windows and len(self._windows) >= KINDS_MAX:
            kind = OTHERS
        window = self._windows.get(kind)
        if window is None:
            now = self._clock()
            window = self._windows[kind] = _Window(now)
            self._next_end = min(self._next_end, now + WINDOW_S) if len(self._windows) > 1 else now + WINDOW_S
        if window.written < LINES_MAX:
            window.written += 1
            return True
        window.left_out += 1
        return False

    def _ended(self, *, at_once: bool = False) -> list[tuple[Kind, _Window, float]]:
        """Forget the windows that are over; returns those from which something was left out."""
        now = self._clock()
        if not self._windows or now < self._next_end:
            return []
        over = {kind: found for kind, found in self._windows.items() if at_once or now - found.since >= WINDOW_S}
        for kind in over:
            del self._windows[kind]
        self._next_end = min((each.since for each in self._windows.values()), default=now) + WINDOW_S
        return [(kind, found, now - found.since) for kind, found in over.items() if found.left_out]

    def _say_left_out(self, kind: Kind, window: _Window, seconds: float) -> None:
        name, event, peer = kind
        about = {"peer": peer} if peer else {}
        fields = {"of": event, **about, "lines": window.left_out, "seconds": round(seconds)}
        self._write(name, "warning", "log_lines_left_out", fields)


def _kind(name: str, event: str, fields: dict[str, object]) -> Kind:
    if (other := fields.get("logger")) is not None:
        return name, "lines of another library", str(other)  # its text is the event, and may be another one each time
    return name, event, str(fields.get("peer", fields.get("to", "")))
