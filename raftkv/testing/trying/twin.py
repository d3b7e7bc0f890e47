"""A process in which a state machine runs again, elsewhere: another hash seed, another time, other dice.

`python -m raftkv.testing.trying.twin` reads requests from its standard input and writes what the calls came to. Each
request runs in a fork, so that it begins with nothing but what importing the application's module leaves behind. In it
the calls run twice, each time with empty tables: where the second run differs, something outside of tables remembered
the first. Then they run in several forks, one after the other, each of which gets the tables of the one before and
nothing else, as a node that is restarted: where they differ now, the first run remembered something of its own.
"""

from __future__ import annotations

import gc
import itertools
import os
import sys
import traceback
from collections.abc import Callable
from typing import IO, TypeVar

import msgspec

from raftkv.machine import StateMachine
from raftkv.testing.trying import elsewhere
from raftkv.testing.trying.references import Reference
from raftkv.testing.trying.replica import Effect, Replica, Step, Tables, effects_of


class Setting(msgspec.Struct, frozen=True, array_like=True):
    """Where a twin is."""

    hash_seed: int
    now_s: int
    dice: int


class TwinRequest(msgspec.Struct, frozen=True, array_like=True):
    """Run these calls of this machine."""

    machine: Reference
    steps: list[Step]
    restarts: list[int] = []
    """The steps before which a new process goes on, in order."""


class Reply(msgspec.Struct, frozen=True, array_like=True):
    """What they came to in the first run, in the second, and with restarts; or why there was no run."""

    first: list[Effect] = []
    again: list[Effect] = []
    restarted: list[Effect] = []
    tables: Tables = Tables()
    """Those before the first restart."""
    trouble: str | None = None


class _Part(msgspec.Struct, frozen=True, array_like=True):
    """What some steps came to in one process, and what it leaves to the next; or why they were not run."""

    effects: list[Effect] = []
    tables: Tables = Tables()
    trouble: str | None = None


_HEAD = 4
R = TypeVar("R", Reply, _Part)


def write_frame(file: IO[bytes], message: msgspec.Struct) -> None:
    """Write a message behind its length."""
    body = msgspec.msgpack.encode(message)
    file.write(len(body).to_bytes(_HEAD, "big") + body)
    file.flush()


def read_frame(file: IO[bytes]) -> bytes | None:
    """The next message's bytes; None at the end."""
    head = file.read(_HEAD)
    return file.read(int.from_bytes(head, "big")) if len(head) == _HEAD else None


def answer(request: TwinRequest, setting: Setting) -> Reply:
    """Run a request twice in this process."""
    first = Replica(_placed(request, setting))
    stop = request.restarts[0] if request.restarts else 0
    effects = first.run_all(request.steps[:stop])
    tables = first.tables if stop else Tables()
    if not effects or effects[-1].failed is None:
        effects += first.run_all(request.steps[stop:])
    return Reply(effects, effects_of(_placed(request, setting), request.steps), tables=tables)


def _placed(request: TwinRequest, setting: Setting) -> type[StateMachine]:
    """The machine, in a process that is where the setting says."""
    elsewhere.move(setting.now_s)
    machine: type[StateMachine] = request.machine.resolve()
    elsewhere.exchange_dates(sys.modules[machine.__module__])
    elsewhere.throw_dice(setting.dice)
    return machine


def _restarted(request: TwinRequest, setting: Setting, first: Reply) -> Reply:
    """What was run without restarts, and the same with them, up to where it differs: one process after the other."""
    effects, tables = first.first[: request.restarts[0]], first.tables
    for start, stop in itertools.pairwise([*request.restarts, len(request.steps)]):
        if effects != first.first[:start]:
            break  # it differs already, or would have stopped a node

        def work(start: int = start, stop: int = stop, tables: Tables = tables) -> _Part:
            replica = Replica(_placed(request, setting), tables)
            return _Part(replica.run_all(request.steps[start:stop]), replica.tables)

        part = _in_fork(_Part, work)
        if part.trouble is not None:
            return Reply(trouble=part.trouble)
        effects, tables = [*effects, *part.effects], part.tables
    return msgspec.structs.replace(first, restarted=effects, tables=Tables())


def _in_fork(kind: type[R], work: Callable[[], R]) -> R:
    """What `work` gives, from a process that is gone afterwards; `kind` can say that there was trouble."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.close(reading)
            with open(writing, "wb") as file:
                file.write(_encoded(kind, work))
            status = 0
        finally:
            os._exit(status)
    os.close(writing)
    with open(reading, "rb") as file:
        data = file.read()
    os.waitpid(child, 0)
    return msgspec.msgpack.decode(data, type=kind) if data else kind(trouble="the process that ran the calls died")


def _encoded(kind: type[R], work: Callable[[], R]) -> bytes:
    try:
        return msgspec.msgpack.encode(work())
    except BaseException:  # noqa: BLE001 (whatever it is, the process that asked tells it)
        return msgspec.msgpack.encode(kind(trouble=traceback.format_exc()))


def _reply(request: TwinRequest, setting: Setting) -> Reply:
    try:
        request.machine.resolve()  # once, before the forks, which then need not import it
        gc.freeze()  # nor copy what it left in memory
    except BaseException:  # noqa: BLE001 (whatever an application's module does when it is imported)
        return Reply(trouble=traceback.format_exc())
    reply = _in_fork(Reply, lambda: answer(request, setting))
    if reply.trouble is not None or not request.restarts or len(reply.first) <= request.restarts[0]:
        return reply
    return _restarted(request, setting, reply)


def main(setting: Setting) -> None:
    """Serve until the input ends."""
    requests, replies = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what an application prints is no reply
    elsewhere.move(setting.now_s)
    while (data := read_frame(requests)) is not None:
        write_frame(replies, _reply(msgspec.msgpack.decode(data, type=TwinRequest), setting))


if __name__ == "__main__":
    main(msgspec.json.decode(sys.argv[1], type=Setting))
