"""Named places in the product where a test may have a process killed, paused or failed.

    RAFTKV_FAILPOINT=log.batch.after_sync:kill@3,install.state_linked:pause=0.5

kills the process when it comes to the first place for the third time, and holds a thread that comes to the second
place for half a second. `kill` is SIGKILL, `pause` alone is SIGSTOP, `raise` fails the work that is under way (a
`DiskError` where files are written, else a `NodeStopped`), `drop` leaves out what is about to be sent, at the places
that allow it. Without `@n` it is the first time. `RAFTKV_FAILPOINT_LOG` names a file that gets a line for each
failpoint that fires, before anything else happens.

Each module declares its failpoints when it is imported, and `reach`es them by name.
Nothing is armed unless the environment says so when a real node is made, and then `reach` is a test of one name.
"""

from __future__ import annotations

import os
import re
import signal
import threading
import time
from collections.abc import Collection, Mapping
from importlib import import_module

import msgspec

from raftkv.errors import ConfigError, NodeStopped

VARIABLE = "RAFTKV_FAILPOINT"
LOG_VARIABLE = "RAFTKV_FAILPOINT_LOG"

USERS = ("raftkv.server.server", "raftkv.state.rocks", "raftkv.node.recovering", "raftkv.node.restoring")
"""They import all modules that declare any."""


class Failpoint(msgspec.Struct, frozen=True):
    """A place in the product, declared by its module."""

    name: str
    module: str
    meaning: str
    """What has happened when it is reached."""
    raises: type[Exception]
    """The exception with which `raise` fails the work that is under way there."""
    is_droppable: bool
    """Whether `drop` is allowed there."""


_declared: dict[str, Failpoint] = {}
_TEXT = re.compile(r"([a-z_.]+):(kill|pause|raise|drop)(?:=([0-9.]+))?(?:@([1-9][0-9]*))?")


class Armed(msgspec.Struct):
    """One failpoint that is to do something."""

    name: str
    action: str
    seconds: float | None
    """How long one thread is paused; None to stop the whole process."""
    at: int
    """It acts when it is reached for this time, counted from 1."""
    reached: int = 0


_armed: dict[str, list[Armed]] = {}
_log: str | None = None
_lock = threading.Lock()


def reach(name: str) -> bool:
    """The process has come to the failpoint `name`; True when what comes next is to be dropped.

    Any thread. Raises what `raise` says.
    """
    return name in _armed and _reached(name)


def declare(
    module: str,
    meanings: Mapping[str, str],
    *,
    raises: type[Exception] = NodeStopped,
    droppable: Collection[str] = (),
) -> None:
    """Called by a module when it is imported: its failpoints by name, and what has happened when each is reached."""
    for name, meaning in meanings.items():
        assert name not in _declared or _declared[name].module == module, f"{name} is declared twice"
        _declared[name] = Failpoint(name, module, meaning, raises, name in droppable)


def declared() -> list[Failpoint]:
    """All of them, by name."""
    return [_declared[name] for name in names()]


def names() -> list[str]:
    """The names of all failpoints, sorted."""
    for module in USERS:
        import_module(module)
    return sorted(_declared)


def parse(text: str) -> list[Armed]:
    """What a value of the environment variable arms. Raises `ConfigError`."""
    found = []
    for item in filter(None, text.split(",")):
        match = _TEXT.fullmatch(item)
        if match is None:
            raise ConfigError(
                f"{VARIABLE} = {text!r}: {item!r} must be NAME:ACTION@N, with kill, pause, pause=SECONDS, raise or drop"
            )
        name, action, seconds, at = match.groups()
        if name not in _declared and name not in names():
            raise ConfigError(
                f"{VARIABLE} = {text!r}: there is no failpoint {name!r}; see what raftkv.failpoints.names() has"
            )
        if action == "drop" and not _declared[name].is_droppable:
            droppable = [point.name for point in declared() if point.is_droppable]
            raise ConfigError(f"{VARIABLE} = {text!r}: nothing can be dropped at {name}, only at {droppable}")
        if seconds is not None and (action != "pause" or seconds.count(".") > 1 or not seconds.strip(".")):
            raise ConfigError(
                f"{VARIABLE} = {text!r}: {item!r} must have a number of seconds for a pause, and only there"
            )
        found.append(Armed(name, action, float(seconds) if seconds is not None else None, int(at or 1)))
    return found


def arm(environment: Mapping[str, str] = os.environ) -> None:
    """Arm what the environment says, and nothing else. Raises `ConfigError`."""
    global _log
    points = parse(environment.get(VARIABLE, ""))
    with _lock:
        _armed.clear()
        _log = environment.get(LOG_VARIABLE)
        for point in points:
            _armed.setdefault(point.name, []).append(point)


def _reached(name: str) -> bool:
    due = []
    with _lock:
        for point in _armed.get(name, []):
            point.reached += 1
            if point.reached == point.at:
                due.append(point)
                _write_down(point)
    for point in due:
        _do(point)
    return any(point.action == "drop" for point in due)


def _write_down(point: Armed) -> None:
    if _log is not None:
        with open(_log, "a", encoding="utf-8") as log:
            log.write(f"{point.name}:{point.action}@{point.at} pid={os.getpid()}\n")


def _do(point: Armed) -> None:
    match point.action:
        case "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        case "pause" if point.seconds is None:
            os.kill(os.getpid(), signal.SIGSTOP)
        case "pause":
            time.sleep(point.seconds or 0.0)
        case "raise":
            text = f"failpoint {point.name} of {VARIABLE}: unset it and start the node again"
            raise _declared[point.name].raises(text)
