"""What the nodes of a world apply and are asked, collected before it is cut off their logs."""

from __future__ import annotations

from typing import Any

from raftkv.entry import Entry
from raftkv.model import Index
from raftkv.node import Node
from raftkv.testing.judging.check import Check


class AppliedEntries(Check):
    """Collects entries from the nodes that apply them, and at which times each query was answered."""

    def __init__(self) -> None:
        self.entries: dict[Index, Entry] = {}
        self.asked: dict[tuple[Index, bytes], set[int]] = {}
        """By the index at which a query was answered, and its payload: the times that it was shown."""

    def follow(self, node: Node) -> None:
        """Collect what this node applies and answers from now on."""
        runner = node.applier.runner
        if vars(runner).get("apply") is not None:
            return
        apply, query = runner.apply, runner.query

        def collecting(entries: Any) -> Any:
            outcomes = apply(entries)
            self.entries.update((entry.index, entry) for entry in entries)
            return outcomes

        def asking(payload: bytes, now_ms: int = 0) -> bytes:
            shown_ms = runner.present_ms(now_ms)
            self.asked.setdefault((runner.applied.index, payload), set()).add(shown_ms)
            return query(payload, now_ms)

        runner.apply, runner.query = collecting, asking  # type: ignore[method-assign]

    def look_at(self, node: Node) -> None:
        self.follow(node)  # a snapshot that was installed brings another runner

    def whole(self, last: Index) -> list[Entry] | None:
        """All entries up to `last`; None when one is missing: a node got it with a snapshot in the very moment in which
        the others were gone."""
        found = [self.entries.get(index) for index in range(1, last + 1)]
        return [entry for entry in found if entry is not None] if None not in found else None
