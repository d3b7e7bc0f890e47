"""Checks that calls are deterministic: runs them in two other processes, and names what differs."""

from __future__ import annotations

import atexit
import contextlib
import os
import random
import signal
import subprocess
import sys

import msgspec
import xxhash

from raftkv.machine import StateMachine
from raftkv.testing.judging.failure import Cause, Failure
from raftkv.testing.trying.differences import difference
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
    words: tuple[str, str]
    """Where the two runs took place."""
    runs: tuple[list[Effect], list[Effect]]
    """What calls came to in each of them."""


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


RESTARTS_MAX = 6
"""Of the process in which calls are run once more; each takes some milliseconds."""


def find_difference(machine: type[StateMachine], steps: list[Step], restarts_max: int = RESTARTS_MAX) -> Finding | None:
    """The first call whose effects differ between the processes, or when these are restarted between calls; None if all
    agree. Raises `NotImportable`, `TwinDied`."""
    restarted = TwinRequest(Reference.of(machine), steps, _restarts(steps, restarts_max))
    if not _twins:
        _twins.extend(_Twin(setting, environment) for setting, environment in SETTINGS)
    try:
        for twin, request in zip(_twins, (restarted, msgspec.structs.replace(restarted, restarts=[])), strict=True):
            twin.ask(request)
        here, there = [twin.reply() for twin in _twins]
    except BaseException:
        close_twins()  # whatever it was, an interrupt too: a reply that nobody took would be taken for the next one's
        raise
    return (
        _first(machine, Cause.NONDETERMINISTIC, _ELSEWHERE, here.first, there.first)
        or _first(machine, Cause.REMEMBERS, _AGAIN, here.first, here.again)
        or _first(machine, Cause.REMEMBERS, _RESTARTED, here.first, here.restarted)
    )


def _restarts(steps: list[Step], restarts_max: int) -> list[int]:
    """Before which steps the process is restarted: before all of a few, else before some, drawn by what they are."""
    places = range(1, len(steps))
    dice = random.Random(xxhash.xxh3_64_intdigest(msgspec.msgpack.encode(steps)))
    return [*places] if len(places) <= restarts_max else sorted(dice.sample(places, restarts_max))


_ELSEWHERE = "in one process", "in another"
_AGAIN = "in a new process", "after the same calls had run before, with other tables"
_RESTARTED = "in one process", "when another one, which has the tables and nothing else, goes on with the calls"


def _first(
    machine: type[StateMachine], cause: Cause, words: tuple[str, str], ones: list[Effect], others: list[Effect]
) -> Finding | None:
    if not others:
        return None  # there was nothing to restart
    for number, (one, other) in enumerate(zip(ones, others, strict=False)):
        if one != other:
            place, first, second = difference(machine, one, other)
            said = f"{place} is {first} {words[0]} and {second} {words[1]}"
            return Finding(cause, number, said, words, (ones[: number + 1], others[: number + 1]))
    return None
