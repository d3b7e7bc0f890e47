"""A few operations as a space-time diagram in text: a line for each, from its call to its answer, time to the right.

      client 1: write 'x' → None   ├──┤
      client 2: read → None             ├──┤
      client 3: write 'y' → ?        ├───────▶

Times are drawn by their order, not to scale: what matters is what was over before what began.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from raftkv.testing.judging.operation import UNKNOWN, Operation

LABEL_MAX = 48
STEP_MAX = 5


def spans_diagram(operations: Sequence[Operation], width: int = 120) -> str:
    """The operations in the order of their calls. Lines become longer than `width` only with many operations."""
    ordered = sorted(operations, key=lambda each: (each.called, each.returned))
    times = sorted({each.called for each in ordered} | {each.returned for each in ordered if each.returned < math.inf})
    labels = [_cut(_label(each), LABEL_MAX) for each in ordered]
    indent = max(map(len, labels), default=0) + 3
    step = max(1, min(STEP_MAX, (width - indent - 2) // max(1, len(times))))
    places = {time: at * step for at, time in enumerate(times)}
    end = len(times) * step
    lines = []
    for label, operation in zip(labels, ordered, strict=True):
        begin, stop = places[operation.called], places.get(operation.returned, end)
        if begin == stop:
            span = "┼"
        else:
            span = "├" + "─" * (stop - begin - 1) + ("▶" if operation.returned == math.inf else "┤")
        lines.append(label.ljust(indent) + " " * begin + span)
    return "\n".join(lines)


def _label(operation: Operation) -> str:
    argument = "" if operation.argument is None else f" {operation.argument!r}"
    result = "?" if operation.result is UNKNOWN else repr(operation.result)
    return f"client {operation.client}: {operation.name}{argument} → {result}"


def _cut(text: str, room: int) -> str:
    return text if len(text) <= room else text[: room - 1] + "…"
