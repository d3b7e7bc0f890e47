"""Checks that calls are deterministic: runs them in two other processes, and names what differs."""

from __future__ import annotations

import atexit
import contextlib
import os
import signal
import subprocess
import sys
from typing import Any

import msgspec

from raftkv.machine import StateMachine, Value
from raftkv.testing.judging.failure import Cause, Failure
from raftkv.testing.trying.references import Reference
from raftkv.testing.trying.replica import Effect, Step
from raftkv.testing.trying.twin import Reply, Setting, TwinRequest, read_frame, write_frame

SETTINGS = (
    (Setting(hash_seed=0, now_s=1_000_000_000, dice=1), {"TZ": "UTC0", "LC_ALL": "C"}),
    (Setting(hash_seed=1, now_s=2_000_000_000, dice=2), {"TZ": "EAR-9:30", "LC_ALL": "C.UTF-8"}),
)
"""Two places that have as little in common as two nodes may have, with a time zone and a locale for each.

They are always these, so that what was found is found again, whatever the hash seed of the process that looks.
"""


class TwinDied(Failure):
    """One of the two processes could not run the calls; the text says why."""


class Finding(msgspec.Struct, frozen=True):
    """The first call that does not do the same everywhere."""

    cause: Cause
    step: int
    difference: str
    """`stock['apple'] is 3 … and 4 …`."""


class _Twin:
    """One of the two processes. It is started when it is needed, and used until this process ends."""

    def __init__(self, setting: Setting, environment: dict[str, str]) -> None:
        environment = {
            **os.environ,
            **environment,
            "PYTHONHASHSEED": str(setting.hash_seed),
            "PYTHONPATH": os.pathsep.join(entry or os.curdir for entry in sys.path),
        }
        self._process = subprocess.Popen(
            [sys.executable, "-m", "raftkv.testing.trying.twin", msgspec.json.encode(setting).decode()],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment,
            start_new_session=True,  # so that it can be ended with the fork that it may wait for
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._requests, self._replies = self._process.stdin, self._process.stdout

    def ask(self, request: TwinRequest) -> None:
        """Send a request, and don't wait; `reply` waits for the answer."""
        try:
            write_frame(self._requests, request)
        except BrokenPipeError as exc:
            raise TwinDied("a process in which calls were to run again could not be started") from exc

    def reply(self) -> Reply:
        data = read_frame(self._replies)
        if data is None:
            raise TwinDied(f"a process in which calls were to run again ended with {self._process.wait()}")
        reply = msgspec.msgpack.decode(data, type=Reply)
        if reply.trouble is not None:
            raise TwinDied(f"the calls could not be run again in another process:\n{reply.trouble}")
        return reply

    def close(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        for file in (self._requests, self._replies):
            with contextlib.suppress(BrokenPipeError):
                file.close()


_twins: list[_Twin] = []


def close_twins() -> None:
    """End the two processes, if they run; the next use starts new ones."""
    while _twins:
        _twins.pop().close()


atexit.register(close_twins)


def find_difference(machine: type[StateMachine], steps: list[Step]) -> Finding | None:
    """The first call whose effects differ between the processes; None if all agree. Raises `NotImportable`,
    `TwinDied`."""
    request = TwinRequest(Reference.of(machine), steps)
    if not _twins:
        _twins.extend(_Twin(setting, environment) for setting, environment in SETTINGS)
    try:
        for twin in _twins:
            twin.ask(request)
        here, there = [twin.reply() for twin in _twins]
    except BaseException:
        close_twins()  # whatever it was, an interrupt too: a reply that nobody took would be taken for the next one's
        raise
    return _first(machine, Cause.NONDETERMINISTIC, here.first, there.first) or _first(
        machine, Cause.REMEMBERS, here.first, here.again
    )


def _first(machine: type[StateMachine], cause: Cause, ones: list[Effect], others: list[Effect]) -> Finding | None:
    words = {
        Cause.NONDETERMINISTIC: ("in one process", "in another"),
        Cause.REMEMBERS: ("in a new process", "after the same calls had run before, with other tables"),
    }[cause]
    for number, (one, other) in enumerate(zip(ones, others, strict=False)):
        if one != other:
            place, first, second = _difference(machine, one, other)
            return Finding(cause, number, f"{place} is {first} {words[0]} and {second} {words[1]}")
    return None


def _difference(machine: type[StateMachine], one: Effect, other: Effect) -> tuple[str, str, str]:
    """The place in which two effects of one call differ, and the two values there."""
    for place in [*one.changes, *other.changes]:
        here, there = one.changes.get(place, b""), other.changes.get(place, b"")
        if here != there:
            return _narrowed(_place(machine, place), _value(machine, place, here), _value(machine, place, there))
    if one.failed != other.failed:
        return "the error that stops a node", str(one.failed), str(other.failed)
    if one.rejected != other.rejected or one.result is None or other.result is None:
        return "the outcome", _outcome(one), _outcome(other)
    return _narrowed("the result", msgspec.msgpack.decode(one.result), msgspec.msgpack.decode(other.result))


def _outcome(effect: Effect) -> str:
    if effect.rejected is not None:
        return ": ".join(effect.rejected)
    return "a result"


class _Nothing:
    """Stands for a value that is missing on one side."""

    def __init__(self, word: str) -> None:
        self._word = word

    def __repr__(self) -> str:
        return self._word


def _place(machine: type[StateMachine], place: bytes) -> str:
    """`stock['apple']`."""
    for name, part in machine.parts.items():
        if isinstance(part, Value):
            if place == part.prefix:
                return name
        elif place.startswith(part.prefix):
            return f"{name}[{part.keys.decode(place[len(part.prefix) :])!r}]"
    return repr(place)


def _value(machine: type[StateMachine], place: bytes, data: bytes | None) -> Any:
    if not data:
        return _Nothing("deleted" if data is None else "unchanged")
    for name, part in machine.parts.items():
        if place.startswith(part.prefix):
            codec = part._codec if isinstance(part, Value) else part.values
            return codec.decode(data, name)
    return data


def _narrowed(place: str, one: Any, other: Any) -> tuple[str, str, str]:
    """The innermost place that differs: `orders['o1'].taken_at`."""
    if type(one) is type(other):
        for step, here, there in _parts(one, other):
            if here != there:
                return _narrowed(place + step, here, there)
    return place, repr(one), repr(other)


def _parts(one: Any, other: Any) -> list[tuple[str, Any, Any]]:
    """The parts of two values, in pairs; empty if the two don't have the same parts."""
    fields = getattr(one, "__struct_fields__", None) or getattr(one, "__dataclass_fields__", None)
    if fields is not None:
        return [(f".{field}", getattr(one, field), getattr(other, field)) for field in fields]
    if isinstance(one, dict):
        if list(one) != list(other):
            return []
        return [(f"[{key!r}]", one[key], other[key]) for key in one]
    if isinstance(one, list | tuple) and len(one) == len(other):
        return [(f"[{number}]", here, there) for number, (here, there) in enumerate(zip(one, other, strict=True))]
    return []
