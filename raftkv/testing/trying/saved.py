"""Failures in files: the script of a counterexample, to be run again by anyone who has the application's code.

```python
saved = load(".raftkv/test_inventory.json")
print(saved.described, saved.program)
rerun(saved)                                        # raises the `CounterExample` again
```
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from raftkv.errors import InvalidArgument
from raftkv.testing.judging.failure import Cause
from raftkv.testing.trying.references import Reference
from raftkv.testing.trying.script import Call, Earlier, Fault, Script

if TYPE_CHECKING:
    from collections.abc import Callable

    from raftkv.machine import StateMachine
    from raftkv.testing.judging.failure import CounterExample
    from raftkv.testing.world.cluster import SimCluster

FORMAT_VERSION = 1


class BadFile(InvalidArgument):
    """A file is no saved failure, or one of another version; the text says which."""


class SavedEarlier(msgspec.Struct, frozen=True, kw_only=True):
    """An `Earlier`; what is passed without it is among the arguments."""

    name: str
    back: int
    part: str | int | None = None


class SavedCall(msgspec.Struct, frozen=True, kw_only=True):
    """A `Call` with its arguments encoded as for a node."""

    described: str
    """For the reader: `receive('apple', 3)`."""
    name: str
    args: bytes
    """The encoded arguments (`Method.encode_args`)."""
    client: int
    at_ms: int
    earlier: dict[int, SavedEarlier] = {}
    """By the number of an argument: the earlier answer that it stands for, if there is one."""


class SavedFailure(msgspec.Struct, frozen=True, kw_only=True):
    """The contents of a failure's file."""

    format: int = FORMAT_VERSION
    machine: Reference
    model: Reference
    key: str | None = None
    """The argument by which the history is partitioned, if there is one."""
    cause: Cause
    described: str
    """What went wrong."""
    program: str
    seed: int
    size: int
    faults: list[Fault]
    calls: list[SavedCall]


def save(
    path: str | Path,
    error: CounterExample,
    script: Script,
    machine: type[StateMachine],
    model: type,
    key: str | None = None,
) -> None:
    """Write a failure to `path`, whole or not at all. Raises `NotImportable` or `OSError`."""
    saved = SavedFailure(
        machine=Reference.of(machine),
        model=Reference.of(model),
        key=key,
        cause=error.cause,
        described=error.described,
        program=error.program,
        seed=script.seed,
        size=script.size,
        faults=list(script.faults),
        calls=[
            SavedCall(
                described=call.described,
                name=call.name,
                args=machine.methods[call.name].encode_args(call.plain, {}),
                client=call.client,
                at_ms=call.at_ms,
                earlier={
                    at: SavedEarlier(name=each.name, back=each.back, part=each.part)
                    for at, each in enumerate(call.args)
                    if isinstance(each, Earlier)
                },
            )
            for call in script.calls
        ],
    )
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    made = path.with_suffix(f".{os.getpid()}")
    made.write_bytes(msgspec.json.format(msgspec.json.encode(saved), indent=2) + b"\n")
    made.replace(path)


def load(path: str | Path) -> SavedFailure:
    """Read a saved failure; imports nothing. Raises `BadFile` or `OSError`."""
    data = Path(path).read_bytes()
    try:
        saved = msgspec.json.decode(data, type=SavedFailure)
    except msgspec.MsgspecError as exc:
        raise BadFile(f"{path} is no saved failure: {exc}") from exc
    if saved.format != FORMAT_VERSION:
        raise BadFile(f"{path} has format version {saved.format}, this raftkv reads version {FORMAT_VERSION}")
    return saved


def script_of(saved: SavedFailure) -> Script:
    """The script to run again; imports the state machine. Raises `NotImportable`, or `BadFile` for an old command."""
    machine: type[StateMachine] = saved.machine.resolve()
    calls = []
    for call in saved.calls:
        method = machine.methods.get(call.name)
        if method is None:
            raise BadFile(f"{saved.machine} has no command or query {call.name!r} any more")
        args = tuple(
            Earlier(found.name, each, found.back, found.part) if (found := call.earlier.get(at)) is not None else each
            for at, each in enumerate(method.decode_args(msgspec.Raw(call.args)))
        )
        calls.append(Call(call.name, args, client=call.client, at_ms=call.at_ms))
    return Script(seed=saved.seed, size=saved.size, faults=tuple(saved.faults), calls=tuple(calls))


def rerun(saved: SavedFailure, observe: Callable[[SimCluster], None] | None = None) -> None:
    """Run a saved failure again; `observe` is called with the world's cluster before its nodes start.

    Raises `CounterExample` when it still fails, `NotImportable` or `BadFile`.
    """
    from raftkv.testing.trying.example import run_example  # the whole simulation: not needed to read a file

    script = script_of(saved)
    run_example(saved.machine.resolve(), saved.model.resolve(), script, key=saved.key, observe=observe)
