"""Leaves out of a failing script what its failure does not need."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeVar

import msgspec

from raftkv.testing.trying.script import Script

T = TypeVar("T")


def trimmed(script: Script, fails: Callable[[Script], bool]) -> Script:
    """A part of `script` that still `fails`: first much of it is left out, in the end single calls and faults.

    It does in tens of tries what hypothesis, which knows nothing of scripts, does in hundreds; but it
    makes nothing simpler than it is.
    """
    faults = _trimmed(script.faults, lambda rest: fails(msgspec.structs.replace(script, faults=rest)))
    script = msgspec.structs.replace(script, faults=faults)
    calls = _trimmed(script.calls, lambda rest: fails(msgspec.structs.replace(script, calls=rest)))
    return msgspec.structs.replace(script, calls=calls)


def _trimmed(items: tuple[T, ...], fails: Callable[[tuple[T, ...]], bool]) -> tuple[T, ...]:
    for size in _sizes(len(items)):
        start = 0
        while start < len(items):
            rest = items[:start] + items[start + size :]
            if fails(rest):
                items = rest
            else:
                start += size
    return items


def _sizes(count: int) -> Iterator[int]:
    """All, half of them, … 1."""
    while count:
        yield count
        count //= 2
