"""A script: the calls and the faults of one world, short enough to be read, and to be pasted into a program."""

from __future__ import annotations

import pprint
from collections.abc import Iterator
from typing import Any

import msgspec


class Earlier(msgspec.Struct, frozen=True):
    """Stands for an argument: what a command or query answered earlier in the same script (see `earlier`)."""

    name: str
    otherwise: Any = None
    """What is passed while no answer fits."""
    back: int = 0
    """Which of the answers that fit: 0 is the newest, 1 the one before, and so on, round and round."""
    part: str | int | None = None
    """A field or an item of the answer; None: all of it."""

    def __repr__(self) -> str:
        parts = [_quoted(self.name), f"otherwise={self.otherwise!r}"]
        parts += [f"back={self.back}"] if self.back else []
        parts += [f"part={self.part!r}"] if self.part is not None else []
        return f"Earlier({', '.join(parts)})"


class Call(msgspec.Struct, frozen=True):
    """One call of a command or query by a client: `Call("receive", ("apple", 3), client=2, at_ms=250)`.

    A client's calls follow each other: one that is due while the client still waits for an answer comes right behind.
    """

    name: str
    args: tuple[Any, ...] = ()
    client: int = 1
    at_ms: int = 0
    """Virtual milliseconds after the world's first leader was elected."""

    def __repr__(self) -> str:
        return _written("Call", self.name, self.args or None, client=(self.client, 1), at_ms=(self.at_ms, 0))

    @property
    def plain(self) -> tuple[Any, ...]:
        """The arguments, with what stands for an earlier answer as it is without one."""
        return tuple(each.otherwise if isinstance(each, Earlier) else each for each in self.args)

    @property
    def described(self) -> str:
        """`receive('apple', 3)`."""
        return f"{self.name}({', '.join(map(repr, self.args))})"


class Fault(msgspec.Struct, frozen=True):
    """One thing that goes wrong: `Fault("crash", at_ms=400, chance=3)`.

    `kind` is one of `raftkv.testing.fault_kinds()`; which node it meets, and how hard, follows from `chance`.
    """

    kind: str
    at_ms: int = 0
    chance: int = 0

    def __repr__(self) -> str:
        return _written("Fault", self.kind, None, at_ms=(self.at_ms, 0), chance=(self.chance, 0))


class Script(msgspec.Struct, frozen=True, kw_only=True):
    """All that a world depends on, except the state machine."""

    seed: int = 0
    """The network's delays, the disks' speed, election time-outs."""
    size: int = 3
    """Nodes in the beginning."""
    faults: tuple[Fault, ...] = ()
    calls: tuple[Call, ...] = ()


def _written(kind: str, name: str, args: tuple[Any, ...] | None, **fields: tuple[int, int]) -> str:
    """The source of a constructor's call, without the fields that have their defaults."""
    parts = [_quoted(name)]
    if args is not None:
        parts.append(pprint.pformat(args, width=1_000_000, compact=True, sort_dicts=False))
    parts += [f"{field}={value}" for field, (value, default) in fields.items() if value != default]
    return f"{kind}({', '.join(parts)})"


def _quoted(name: str) -> str:
    return f'"{name}"'


def program(script: Script, machine: type, model: type) -> str:
    """A program that runs `script` again. Values whose repr is no expression need a line of their own by hand."""
    names: dict[str, set[str]] = {}
    for kind in (machine, model, *kinds_in([call.plain for call in script.calls])):
        names.setdefault(kind.__module__, set()).add(kind.__qualname__.partition(".")[0])
    used = ["Call"] if script.calls else []
    used += ["Earlier"] if any(isinstance(arg, Earlier) for call in script.calls for arg in call.args) else []
    used += ["Fault"] if script.faults else []
    imports = [f"from raftkv.testing import {', '.join([*used, 'rerun'])}"]
    imports += [f"from {module} import {', '.join(sorted(found))}" for module, found in sorted(names.items())]
    lines = [f"    {machine.__qualname__},", f"    {model.__qualname__},", f"    seed={script.seed},"]
    if script.size != Script().size:
        lines.append(f"    size={script.size},")
    lines += listed("faults", script.faults) + listed("commands", script.calls)
    return "\n".join([*imports, "", "rerun(", *lines, ")"]) + "\n"


def kinds_in(value: Any) -> Iterator[type]:
    """The classes that the repr of `value` names, which a program has to import."""
    fields = getattr(value, "__struct_fields__", None) or getattr(value, "__dataclass_fields__", None)
    if fields is not None:
        yield type(value)
        value = [getattr(value, field) for field in fields]
    elif isinstance(value, dict):
        value = [*value, *value.values()]
    if isinstance(value, list | tuple):
        for each in value:
            yield from kinds_in(each)


def listed(name: str, items: tuple[Any, ...]) -> list[str]:
    """The lines of an argument that is a list; none for an empty one."""
    if len(items) <= 1:
        return [f"    {name}=[{', '.join(map(repr, items))}],"] if items else []
    return [f"    {name}=[", *(f"        {item!r}," for item in items), "    ],"]
