"""The output of a process: a bounded queue of lines, and a thread that writes them.

Code that logs or prints never waits for the descriptor, and never gets its errors (F78). A pipe that is not read holds
up only this thread; lines that don't fit into the queue meanwhile are lost, the oldest first, and counted.
"""

from __future__ import annotations

import os
import select
import threading
import time
from collections import deque
from collections.abc import Callable

from raftkv.logs import LogHealth

LINES_MAX = 4096
"""Kept for a reader that is away: many minutes of an ordinary log, or a second of the worst."""

BYTES_MAX = 1 << 20

LINE_BYTES_MAX = 1 << 16
"""A longer line is cut off."""

BATCH_BYTES = 1 << 14
"""Written at once: what is in hand when the descriptor hangs is all that can't be replaced by newer lines."""

RETRY_S = (0.1, 5.0)
"""After an error: the first pause, and the longest. Space comes back; another reader may open a named pipe."""

STUCK_S = 1.0
"""A write that takes longer counts as a problem."""

Write = Callable[[bytes], int]
"""Writes some of it, and returns how many bytes; may block, or raise `OSError` or `ValueError`."""


def to_descriptor(descriptor: int) -> Write:
    """Writes to an open file of the system, whether or not others have set it to return at once."""

    def write(data: bytes) -> int:
        while True:
            try:
                return os.write(descriptor, data)
            except BlockingIOError:
                select.select([], [descriptor], [], 1.0)

    return write


class Sink:
    """A queue of lines for `write`. All methods may be called on any thread, and only `close` waits.

    `notice` makes the line that says how many lines were lost, once lines get through again.
    """

    def __init__(self, name: str, write: Write, notice: Callable[[int], bytes]) -> None:
        self._write = write
        self._notice = notice
        # Reentrant: a signal handler may log something while its thread is in here.
        self._changed = threading.Condition(threading.RLock())
        self._lines: deque[bytes] = deque()
        self._bytes = 0
        self._lost = self._unsaid = 0
        self._error: str | None = None
        self._writing_since: float | None = None
        self._closing = self._is_done = False
        self._thread = threading.Thread(target=self._run, name=f"raftkv-{name}", daemon=True)
        self._thread.start()

    def put(self, line: bytes) -> None:
        """Queue a line, with its end; the oldest ones go when there is no room."""
        if len(line) > LINE_BYTES_MAX:
            line = line[: LINE_BYTES_MAX - 1] + b"\n"
        with self._changed:
            self._lines.append(line)
            self._bytes += len(line)
            while len(self._lines) > LINES_MAX or self._bytes > BYTES_MAX:
                self._bytes -= len(self._lines.popleft())
                self._lost += 1
                self._unsaid += 1
            self._changed.notify()

    @property
    def health(self) -> LogHealth:
        """How many lines were lost, and whether lines get through now."""
        with self._changed:
            problem, since = self._error, self._writing_since
            stuck_s = time.monotonic() - since if since is not None else 0.0
            if problem is None and stuck_s > STUCK_S:
                problem = "nobody takes them, as of a pipe that is full"
            if problem is not None:
                problem = f"lines of the log can't be written for {stuck_s:.0f} s: {problem}"
            return LogHealth(self._lost, problem)

    def close(self, within_s: float) -> bool:
        """Write what is queued, and take no more; returns whether all was written in time."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join(within_s)
        return self._is_done

    def _run(self) -> None:
        while batch := self._next():
            if not self._write_out(batch):
                return
        self._is_done = True

    def _next(self) -> bytes:
        """Wait for lines to write, and return them; returns nothing at the end."""
        with self._changed:
            self._writing_since = None
            while not self._lines and not self._closing:
                self._changed.wait()
            taken: list[bytes] = []
            size = 0
            if self._lines and self._unsaid:
                taken.append(self._notice(self._unsaid))
                self._unsaid = 0
            while self._lines and (not size or size + len(self._lines[0]) <= BATCH_BYTES):
                taken.append(self._lines.popleft())
                size += len(taken[-1])
            self._bytes -= size
            self._writing_since = time.monotonic()
            return b"".join(taken)

    def _write_out(self, batch: bytes) -> bool:
        """Write all lines, however long that takes; returns False when the end came first."""
        pause_s, longest_s = RETRY_S
        while batch:
            try:
                written = self._write(batch)
            except (OSError, ValueError) as exc:  # a stream that was closed raises ValueError
                if not self._wait(f"{type(exc).__name__}: {exc}", pause_s):
                    return False
                pause_s = min(2 * pause_s, longest_s)
            else:
                batch = batch[written:]
                self._error = None
        return True

    def _wait(self, error: str, seconds: float) -> bool:
        """Wait until it is time for another try; False when there will be none. The end of the process ends the
        wait, and is worth one more."""
        with self._changed:
            self._error = error
            if self._closing:
                return False
            end = time.monotonic() + seconds
            while (left := end - time.monotonic()) > 0 and not self._closing:
                self._changed.wait(left)
            return True
