"""`python -m tests.chaos.host serve …`: a node on a host whose names and clock are as two files say.

Only this process is told otherwise, and the product knows nothing of it: `socket.getaddrinfo` and `time.time_ns` are
replaced before it runs. A name that the file has not, and all without one, are looked up as ever.
"""

from __future__ import annotations

import contextlib
import os
import runpy
import socket
import threading
import time
from pathlib import Path
from typing import Any, Generic, TypeVar

import msgspec

NAMES, CLOCK = "CHAOS_HOST_NAMES", "CHAOS_HOST_CLOCK"
"""Variables of such a process: the files. Not called RAFTKV_…, as a node warns of variables that it does not know."""

MODULE = "tests.chaos.host"

LOOK_NS = 20_000_000
"""A file is looked at again after this."""


class LookupAnswer(msgspec.Struct, frozen=True):
    """What a lookup of one name comes to."""

    address: str | None = "127.0.0.1"
    """None when it fails."""
    after_s: float = 0.0


class HostClock(msgspec.Struct, frozen=True):
    """What the wall clock shows beside the right time."""

    ahead_ms: int = 0
    rate: float = 1.0
    since_ns: int = 0
    """On the monotonic clock, which all processes of a host share: it goes at its rate from then on."""

    def wrong_ns(self, monotonic_ns: int) -> int:
        """How far it is ahead."""
        return self.ahead_ms * 1_000_000 + int((self.rate - 1.0) * (monotonic_ns - self.since_ns))


T = TypeVar("T")


class FileSays(Generic[T]):
    """What a file says now; what it said before while it can't be read."""

    def __init__(self, path: str, kind: Any, value: T) -> None:
        self._path, self._kind, self._value = path, kind, value
        self._looked_ns: int | None = None
        self._lock = threading.Lock()

    def value(self) -> T:
        """Any thread."""
        now = time.monotonic_ns()
        with self._lock:
            if self._looked_ns is None or now - self._looked_ns > LOOK_NS:
                self._looked_ns = now
                with contextlib.suppress(FileNotFoundError):  # nothing is said yet
                    self._value = msgspec.json.decode(Path(self._path).read_bytes(), type=self._kind)
            return self._value


def say(path: Path, value: object) -> None:
    """Put what a file says in its place, whole."""
    draft = path.with_suffix(".draft")
    draft.write_bytes(msgspec.json.encode(value))
    draft.replace(path)


def answer_names(path: str) -> None:
    """Lookups in this process come to what the file says; each gets a line in the file's log, with the answer."""
    told: FileSays[dict[str, LookupAnswer]] = FileSays(path, dict[str, LookupAnswer], {})
    look_up = socket.getaddrinfo

    def look_up_as_told(host: Any, *args: Any, **more: Any) -> Any:
        name = host.decode() if isinstance(host, bytes) else str(host)
        answer = None if more.get("flags", 0) & socket.AI_NUMERICHOST else told.value().get(name)
        if answer is None:
            return look_up(host, *args, **more)
        with log_of(path).open("a") as log:
            log.write(line_of(os.getpid(), name, answer))
        time.sleep(answer.after_s)
        if answer.address is None:
            raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
        return look_up(answer.address, *args, **more)

    socket.getaddrinfo = look_up_as_told


def log_of(path: str | Path) -> Path:
    """What was looked up of the names in a file."""
    return Path(path).with_suffix(".log")


def line_of(pid: int, name: str, answer: LookupAnswer) -> str:
    """That a process has looked up a name, and what it was told."""
    return f"pid={pid} {name} {answer.address} after {answer.after_s:g} s\n"


def keep_time(path: str) -> None:
    """The wall clock of this process is as the file says."""
    told: FileSays[HostClock] = FileSays(path, HostClock, HostClock())
    right_ns = time.time_ns
    time.time_ns = lambda: right_ns() + told.value().wrong_ns(time.monotonic_ns())


def main() -> None:
    """`raftkv`, on such a host."""
    if path := os.environ.get(NAMES):
        answer_names(path)
    if path := os.environ.get(CLOCK):
        keep_time(path)
    runpy.run_module("raftkv", run_name="__main__")


if __name__ == "__main__":
    main()
