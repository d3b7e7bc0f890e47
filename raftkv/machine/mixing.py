"""Machines that are made of several base classes: no two of them may have something of one name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from raftkv.errors import MachineError

_MADE = frozenset({"methods", "parts", "upgrades", "_hooks", "_schemas", "_composed", "_limits", "_history"})
"""What each class has of its own, made from what it and its bases declare."""


def check_bases(made: Any, bases: Sequence[type], where: str) -> None:
    """Raises `MachineError`, beginning with `where`, when two bases of a machine that know nothing of each other have
    something of one name: methods of the one would find what belongs to the other. `bases` are those that declare.

    What the class declares itself stands for both, as it does where a single base has it.
    """
    owners: dict[str, type] = {}
    for base in bases:
        for name, value in vars(base).items():
            if name in _MADE or name in vars(made) or (name.startswith("__") and name.endswith("__")):
                continue
            first = owners.setdefault(name, base)
            if not issubclass(first, base) and vars(first)[name] is not value:
                _refuse(made, first, base, name, where)
    for name in ("_limits", "_history"):
        found = {base: vars(base)[name] for base in bases if name in vars(base) and name not in vars(made)}
        for base in found:
            first = next(iter(found))
            if not issubclass(first, base) and found[first] != found[base]:
                _refuse(made, first, base, name[1:], where)


def _refuse(made: Any, first: type, second: type, name: str, where: str) -> None:
    remedy = f"declare {name} in {made.__name__} itself"
    if name in ("limits", "history"):
        remedy = f"give {made.__name__} {name} of its own"
    one, other = first.__name__, second.__name__
    raise MachineError(
        f"{where}: both {one} and {other} have {name}, so that {other} would find that of {one}: {remedy}, or make "
        f"one of them a part, like `{other.lower()} = Part({other})`"
    )
