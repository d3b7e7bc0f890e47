"""A checker of lists to which every client appends items of its own: what is wrong is said in words for people."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import msgspec

from raftkv.testing.judging.operation import UNKNOWN, Operation


class _List(msgspec.Struct):
    final: Sequence[Hashable]
    appends: list[Operation] = []
    reads: list[Operation] = []


def append_problems(operations: Sequence[Operation], final: dict[Hashable, Sequence[Hashable]]) -> list[str]:
    """`append` of an item that nobody else appends gives the new length, `read` the items so far; `final` is what
    each list was at the end, when all was over."""
    lists = {key: _List(items) for key, items in final.items()}
    for operation in operations:
        found = lists.setdefault(operation.key, _List(()))
        (found.appends if operation.name == "append" else found.reads).append(operation)
    return [f"list {key!r}: {problem}" for key, each in lists.items() for problem in _problems(each)]


def _problems(of: _List) -> list[str]:
    places = {item: at for at, item in enumerate(of.final)}
    problems = []
    if len(places) < len(of.final):
        twice = sorted({repr(item) for item in of.final if list(of.final).count(item) > 1})
        problems.append(f"duplicated: {', '.join(twice)}")
    known = {operation.argument for operation in of.appends}
    problems += [f"phantom: nobody appended {item!r}" for item in of.final if item not in known]
    for operation in of.appends:
        if operation.result is UNKNOWN:
            continue
        if operation.argument not in places:
            problems.append(f"lost: {operation.describe()}")
        elif operation.result != places[operation.argument] + 1:
            problems.append(f"reordered: it is at place {places[operation.argument] + 1}: {operation.describe()}")
    return problems + _problems_of_reads(of)


def _problems_of_reads(of: _List) -> list[str]:
    problems = []
    for read in of.reads:
        if read.result is UNKNOWN:
            continue
        if list(read.result) != list(of.final[: len(read.result)]):
            problems.append(f"a read of what never was: {read.describe()}")
            continue
        problems += [
            f"a stale read: {read.describe()} came behind {append.describe()}"
            for append in of.appends
            if append.returned < read.called and append.result is not UNKNOWN and append.result > len(read.result)
        ]
    return problems
