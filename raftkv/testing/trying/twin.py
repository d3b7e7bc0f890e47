"""A process in which a state machine runs again, elsewhere: another hash seed, another time, other dice.

`python -m raftkv.testing.trying.twin` reads requests from its standard input and writes what the calls came to. Each
request runs in a fork, so that it begins with nothing but what importing the application's module leaves behind. In it
the calls run twice, each time with empty tables: where the second run differs, something outside of tables remembered
the first.
"""

from __future__ import annotations

import gc
import os
import sys
import traceback
from typing import IO

import msgspec

from raftkv.testing.trying import elsewhere
from raftkv.testing.trying.references import Reference
from raftkv.testing.trying.replica import Effect, Step, effects_of


class Setting(msgspec.Struct, frozen=True, array_like=True):
    """Where a twin is."""

    hash_seed: int
    now_s: int
    dice: int


class TwinRequest(msgspec.Struct, frozen=True, array_like=True):
    """Run these calls of this machine."""

    machine: Reference
    steps: list[Step]


class Reply(msgspec.Struct, frozen=True, array_like=True):
    """What they came to in the first run, and in the second; or why there was no run."""

    first: list[Effect] = []
    again: list[Effect] = []
    trouble: str | None = None


_HEAD = 4


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
    runs = []
    for _ in range(2):
        elsewhere.move(setting.now_s)
        machine = request.machine.resolve()
        elsewhere.exchange_dates(sys.modules[machine.__module__])
        elsewhere.throw_dice(setting.dice)
        runs.append(effects_of(machine, request.steps))
    return Reply(first=runs[0], again=runs[1])


def _answer_in_fork(request: TwinRequest, setting: Setting) -> bytes:
    """The encoded reply, from a process that is gone afterwards."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.close(reading)
            with open(writing, "wb") as file:
                file.write(_encoded(request, setting))
            status = 0
        finally:
            os._exit(status)
    os.close(writing)
    with open(reading, "rb") as file:
        data = file.read()
    os.waitpid(child, 0)
    return data or msgspec.msgpack.encode(Reply(trouble="the process that ran the calls died"))


def _encoded(request: TwinRequest, setting: Setting) -> bytes:
    try:
        return msgspec.msgpack.encode(answer(request, setting))
    except BaseException:  # noqa: BLE001 (whatever it is, the process that asked tells it)
        return msgspec.msgpack.encode(Reply(trouble=traceback.format_exc()))


def main(setting: Setting) -> None:
    """Serve until the input ends."""
    requests, replies = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what an application prints is no reply
    elsewhere.move(setting.now_s)
    while (data := read_frame(requests)) is not None:
        request = msgspec.msgpack.decode(data, type=TwinRequest)
        try:
            request.machine.resolve()  # once, before the forks, which then need not import it
            gc.freeze()  # nor copy what it left in memory
        except BaseException:  # noqa: BLE001 (whatever an application's module does when it is imported)
            reply = msgspec.msgpack.encode(Reply(trouble=traceback.format_exc()))
        else:
            reply = _answer_in_fork(request, setting)
        replies.write(len(reply).to_bytes(_HEAD, "big") + reply)
        replies.flush()


if __name__ == "__main__":
    main(msgspec.json.decode(sys.argv[1], type=Setting))
