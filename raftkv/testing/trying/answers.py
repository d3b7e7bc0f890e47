"""Answers: those of which arguments are made (a token, an id, a handle), and how two of them differ."""

from __future__ import annotations

import difflib
import pprint
from collections.abc import Sequence
from typing import Any

import msgspec

from raftkv.errors import InvalidArgument
from raftkv.machine import StateMachine
from raftkv.testing.judging.models import Answer, Returned
from raftkv.testing.trying.replica import Replica, Step, arguments
from raftkv.testing.trying.script import Call, Earlier


class Answers:
    """What was answered so far."""

    def __init__(self) -> None:
        self._found: dict[str, list[Any]] = {}

    def add(self, name: str, answer: Any) -> None:
        """A command or query was answered."""
        self._found.setdefault(name, []).append(answer)

    def resolved(self, machine: type[StateMachine], call: Call) -> Call:
        """The call, with earlier answers in their places."""
        args = list(call.plain)
        for at, each in enumerate(call.args):
            if isinstance(each, Earlier):
                fitting = self._fitting(machine, call.name, args, at, each)
                if fitting:
                    args[at] = fitting[-1 - each.back % len(fitting)]
        return msgspec.structs.replace(call, args=tuple(args))

    def _fitting(
        self, machine: type[StateMachine], name: str, args: Sequence[Any], at: int, earlier: Earlier
    ) -> list[Any]:
        """The answers that the argument at a place may be."""
        found = []
        for answer in self._found.get(earlier.name, ()):
            try:
                value = _part_of(answer, earlier.part)
                found.append(arguments(machine, name, (*args[:at], value, *args[at + 1 :]))[at])
            except (InvalidArgument, AttributeError, LookupError, TypeError):
                continue  # None, for example, where there was no token
        return found


def beside(found: Answer, expected: Answer) -> tuple[list[str], list[str]]:
    """What the machine and the model say, in lines; alike if they agree, also where the model leaves something open."""
    return [str(found)], [str(found if expected == found else expected)]


def difference_of(found: Answer, expected: Answer) -> str:
    """How two answers differ, in lines for those that are too long to be compared at a glance; else nothing."""
    if not (isinstance(found, Returned) and isinstance(expected, Returned)):
        return ""
    one, other = _lines_of(expected.value), _lines_of(found.value)
    if max(len(one), len(other)) < 4:
        return ""
    lines = difflib.unified_diff(one, other, "the model", "the machine", lineterm="", n=2)
    return "\n" + "\n".join(lines)


def _lines_of(value: Any) -> list[str]:
    """A value with each of its parts in a line."""
    return pprint.pformat(_builtin(value), width=1, sort_dicts=False).splitlines()


def _builtin(value: Any) -> Any:
    """Structs as dicts, in which each field has its line."""
    fields = getattr(value, "__struct_fields__", None) or getattr(value, "__dataclass_fields__", None)
    if fields is not None:
        return {field: _builtin(getattr(value, field)) for field in fields}
    if isinstance(value, dict):
        return {key: _builtin(each) for key, each in value.items()}
    if type(value) in (list, tuple):
        return type(value)(_builtin(each) for each in value)
    return value


def _part_of(answer: Any, part: str | int | None) -> Any:
    if part is None:
        return answer
    return getattr(answer, part) if isinstance(part, str) else answer[part]


def resolved(machine: type[StateMachine], calls: Sequence[Call], start_ms: int) -> tuple[list[Call], list[Step]]:
    """The calls with what they get when they run alone, one after the other, and as a node gets them."""
    replica = Replica(machine) if any(isinstance(arg, Earlier) for call in calls for arg in call.args) else None
    answers, found, steps = Answers(), [], []
    for call in calls:
        call = answers.resolved(machine, call)
        method = machine.methods[call.name]
        step = Step(start_ms + call.at_ms, call.name, method.encode_args(call.args, {}))
        found.append(call)
        steps.append(step)
        if replica is None:
            continue
        effect = replica.run(step)
        if effect.failed is not None:
            replica = None  # what comes after it is not run anyway
        elif effect.result is not None:
            answers.add(call.name, method.decode_result(effect.result))
    return found, steps
