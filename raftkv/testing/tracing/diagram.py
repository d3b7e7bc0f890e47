"""A trace as a space-time diagram in text: time goes down, a column for each node, messages are arrows.

      12.503  │ c1 put r0 1.7     ┠─────append 41────▶│                   │
      12.504  │                   ┃◀──────ok 41───────┤                   │

Heartbeats, and answers to them that say nothing new, are left out.
"""

from __future__ import annotations

import math
import textwrap
from typing import TYPE_CHECKING, TypeAlias

import msgspec

from raftkv.model import NodeId
from raftkv.testing.tracing.lifelines import DOWN, STARTING, Lifeline, lifelines, without_echoes
from raftkv.testing.tracing.records import Calling, Fate, Happening, SentMessage, What

if TYPE_CHECKING:
    from raftkv.testing.tracing.trace import Trace

WIDTH = 120
ROWS = 60

TIME_WIDTH = 11
SLOW_S = 0.02
"""A message that travels longer has a row where it arrives, too."""
GAP_S = 0.15
"""A longer time in which nothing is shown is told."""

LINES = {DOWN: " ", STARTING: "·", "Leader": "┃", "Candidate": "╎", "PreCandidate": "╎", "Learner": "┊", "Joined": "┊"}
MARKS = {
    What.START: "○",
    What.UP: "●",
    What.CRASH: "✖",
    What.FAILED: "✖",
    What.STOP: "■",
    What.ELECTED: "★",
    What.COMMIT: "✓",
    What.SNAPSHOT: "▣",
    What.INSTALL: "▣",
    What.MEMBERS: "◇",
    What.PAUSE: "‖",
    What.DISK: "!",
    What.CLOCK: "◷",
}
LEGEND = (
    "┃ leads  ╎ campaigns  │ follows  ┊ learns  · starts  (blank) down   "
    "─▶ arrived  ─▷ arrived later  ─✗ did not arrive"
)

CLIENTS = -1
"""The column of the clients."""


class _Arrows(msgspec.Struct):
    """One message, or the same message to several nodes."""

    first: SentMessage
    all: list[SentMessage]


class _Arrival(msgspec.Struct):
    """The arrival of a message, in a row of its own, because time has passed since it was sent."""

    message: SentMessage
    at: float
    number: int = 0


class _Answer(msgspec.Struct):
    """The answer to a client's call."""

    call: Calling
    at: float
    number: int


_Item: TypeAlias = SentMessage | Happening | Calling | _Arrival | _Answer


class _Row(msgspec.Struct):
    at: float
    number: int
    """Of the last record in it."""
    arrows: _Arrows | None = None
    texts: dict[int, tuple[str, str]] = {}
    """column → (mark, text)"""
    banner: str = ""


def text_diagram(
    trace: Trace, *, since: float = 0.0, until: float = math.inf, rows: int = ROWS, width: int = WIDTH
) -> str:
    """The last `rows` rows between two times (in virtual seconds), in lines of at most `width` characters."""
    shown = _rows(_items(trace, since, until))
    left_out, shown = max(0, len(shown) - rows), shown[-rows:]
    if not shown:
        return "nothing happened"
    columns = _columns(trace, shown)
    canvas = _Canvas(columns, lifelines(trace), width)
    lines = [canvas.header()]
    if left_out:
        lines.append(f"{'⋮':>{TIME_WIDTH - 2}}  {left_out} earlier rows")
    before: float | None = None
    for row in shown:
        if before is not None and row.at - before > GAP_S:
            lines.append(canvas.gap(row, row.at - before))
        lines += canvas.lines(row)
        before = row.at
    return "\n".join([*(line.rstrip() for line in lines), LEGEND])


def _items(trace: Trace, since: float, until: float) -> list[_Item]:
    items: list[_Item] = []
    for message in trace.messages:
        if not message.routine:
            if since <= message.at <= until:
                items.append(message)
            late = [at for place, at in enumerate(message.arrivals) if place or at - message.at > SLOW_S]
            items += [_Arrival(message, at) for at in late if since <= at <= until]
    items += [each for each in without_echoes(trace.happenings) if since <= each.at <= until]
    for call in trace.calls:
        if since <= call.at <= until:
            items.append(call)
        if since <= call.returned <= until and call.returned_number:
            items.append(_Answer(call, call.returned, call.returned_number))
    return sorted(items, key=lambda item: (item.at, item.number))


def _rows(items: list[_Item]) -> list[_Row]:
    """Put items into rows. Items of the same time and of different nodes share a row."""
    rows: list[_Row] = []
    for item in items:
        last = rows[-1] if rows else None
        if isinstance(item, SentMessage):
            if last is not None and (arrows := last.arrows) is not None and _is_one(arrows, item):
                arrows.all.append(item)
                last.number = item.number
            else:
                rows.append(_Row(item.at, item.number, arrows=_Arrows(item, [item])))
            continue
        column, mark, text = _words(item)
        if column is None:
            rows.append(_Row(item.at, item.number, banner=text))
        elif last is not None and last.at == item.at and last.texts and column not in last.texts:
            last.texts[column] = (mark, text)
            last.number = max(last.number, item.number)
        else:
            rows.append(_Row(item.at, item.number, texts={column: (mark, text)}))
    return rows


def _is_one(arrows: _Arrows, message: SentMessage) -> bool:
    first = arrows.first
    return (first.sender, first.at, first.label) == (message.sender, message.at, message.label)


def _words(item: Happening | Calling | _Arrival | _Answer) -> tuple[int | None, str, str]:
    """An item's column, mark and text; no column if it concerns the whole world."""
    match item:
        case Happening():
            return item.node, MARKS.get(item.what, ""), item.label
        case Calling():
            return CLIENTS, "", f"{item.client}: {item.label}"
        case _Answer():
            return CLIENTS, "", f"{item.call.client}: → {item.call.result if not item.call.refused else 'refused'}"
        case _Arrival():
            message = item.message
            again = " again" if item.at != message.arrivals[0] else ""
            return message.to, "", f"◁ {message.label}{again} from {message.sender}, sent {message.at:.3f}"


def _columns(trace: Trace, rows: list[_Row]) -> list[int]:
    """The columns in which something happens, and those of all nodes that were up in that time."""
    used: set[int] = set()
    for row in rows:
        used |= set(row.texts)
        if row.arrows is not None:
            used |= {row.arrows.first.sender, *(message.to for message in row.arrows.all)}
    lines = lifelines(trace)
    used |= {node for node in trace.nodes if lines[node].state(rows[0].at) != DOWN}
    return sorted(used)


class _Canvas:
    """Lines of text with a column for each node."""

    def __init__(self, columns: list[NodeId], lives: dict[NodeId, Lifeline], width: int) -> None:
        self._columns = columns
        self._lives = lives
        self._width = width
        self._step = max(8, min(30, (width - TIME_WIDTH) // len(columns)))

    def _x(self, column: int) -> int:
        return TIME_WIDTH + self._columns.index(column) * self._step

    def _lanes(self, row: _Row, *, before: bool = False) -> list[str]:
        """A line with the nodes' columns, and nothing else."""
        line = [" "] * self._width
        for column in self._columns:
            line[self._x(column)] = self._lane(column, row.at, row.number - before)
        return line

    def _lane(self, column: int, at: float, number: float) -> str:
        return "│" if column == CLIENTS else LINES.get(self._lives[column].state(at, number), "│")

    def header(self) -> str:
        """The line that says which column is which node's."""
        line = [" "] * self._width
        _write(line, 0, "   seconds")
        for column in self._columns:
            _write(line, self._x(column), "clients" if column == CLIENTS else f"node {column}")
        return "".join(line)

    def gap(self, row: _Row, seconds: float) -> str:
        """A line for a time in which nothing is shown."""
        line = self._lanes(row, before=True)
        _write(line, 0, f"{f'+{seconds:.2f}':>{TIME_WIDTH - 2}}")
        return "".join(line)

    def lines(self, row: _Row) -> list[str]:
        """Draw a row of the diagram: as one line, and below it what is left of a client's call or answer."""
        mark, text = row.texts.get(CLIENTS, ("", ""))
        room = self._step - 3
        wrapped = textwrap.wrap(text, room, break_on_hyphens=False) or [""]
        if len(wrapped) == 1:
            return [self._line(row)]
        first = msgspec.structs.replace(row, texts={**row.texts, CLIENTS: (mark, wrapped[0])})
        return [self._line(first), *(self._continued(row, each) for each in wrapped[1:])]

    def _continued(self, row: _Row, text: str) -> str:
        line = self._lanes(row)
        _write(line, self._x(CLIENTS) + 2, text)
        return "".join(line)

    def _line(self, row: _Row) -> str:
        line = self._lanes(row)
        _write(line, 0, f"{row.at:{TIME_WIDTH - 2}.3f}")
        if row.banner:
            text = f"╌╌ {row.banner} "
            _write(line, TIME_WIDTH, text.ljust(self._step * len(self._columns), "╌"))
        for column, (mark, text) in row.texts.items():
            x = self._x(column)
            if mark:
                line[x] = mark
            _write(line, x + 2, _cut(text, self._step - 3))
        if row.arrows is not None:
            self._draw(line, row.arrows)
        return "".join(line)

    def _draw(self, line: list[str], arrows: _Arrows) -> None:
        start = self._x(arrows.first.sender)
        ends = {self._x(message.to): message for message in arrows.all}
        leads = line[start] == "┃"
        right, left = [x for x in ends if x > start], [x for x in ends if x < start]
        line[start] = {(True, True): "╂", (True, False): "┼"}.get((bool(right and left), leads), line[start])
        if not (right and left):
            line[start] = ("┠" if leads else "├") if right else ("┨" if leads else "┤")
        for side, step in ((right, 1), (left, -1)):
            if side:
                self._draw_side(line, start, side, step, ends)

    def _draw_side(self, line: list[str], start: int, side: list[int], step: int, ends: dict[int, SentMessage]) -> None:
        far = max(side, key=lambda x: x * step)
        for x in range(start + step, far, step):
            if line[x] == " ":
                line[x] = "─"
            elif x not in ends:
                line[x] = "┼"
        for x in side:
            line[x - step] = _head(ends[x], step)
        near = min(side, key=lambda x: x * step)
        room = range(min(start, near) + 2, max(start, near) - 1)
        text = _cut(next(iter(ends.values())).label, len(room))
        _write(line, room.start + (len(room) - len(text)) // 2, text)


def _head(message: SentMessage, step: int) -> str:
    if message.fate is not Fate.ARRIVED:
        return "✗"
    is_slow = message.arrivals[0] - message.at > SLOW_S
    return ("▷" if is_slow else "▶") if step > 0 else ("◁" if is_slow else "◀")


def _write(line: list[str], x: int, text: str) -> None:
    for place, character in enumerate(text[: max(0, len(line) - x)]):
        line[x + place] = character


def _cut(text: str, room: int) -> str:
    return text if len(text) <= room else text[: max(0, room - 1)] + "…"
