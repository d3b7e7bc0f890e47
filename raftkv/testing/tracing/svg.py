"""A trace as a space-time diagram in SVG: time goes down, a line for each node, messages are arrows.

Time is elastic: a busy millisecond gets the room that its labels need, a second of silence only a little.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Hashable, Iterable
from html import escape
from typing import TYPE_CHECKING

import msgspec

from raftkv.model import NodeId
from raftkv.testing.tracing.diagram import MARKS as TEXT_MARKS
from raftkv.testing.tracing.lifelines import DOWN, lifelines, without_echoes
from raftkv.testing.tracing.records import Calling, Fate, Happening, SentMessage, What

if TYPE_CHECKING:
    from raftkv.testing.tracing.trace import Trace

LEFT, COLUMN, RIGHT = 150, 200, 210
"""Pixels: of the times at the left, from one node to the next, and for the labels of the last."""
TEXT = 12
"""Pixels from one label to the next below it."""
STEP_MAX = 40.0
"""Pixels that a time without anything may take."""
CUT_X = 64
"""Where a bar shows that something is cut."""
ROOM = 27
"""Characters of a label that fit between two lines; a longer one has several lines."""
CLIENTS = -1

GROUPS = {
    "RequestVote": "vote",
    "RequestVoteReply": "vote",
    "TimeoutNow": "vote",
    "AppendEntries": "append",
    "AppendReply": "answer",
    "ReadIndex": "read",
    "ReadIndexReply": "read",
    "DigestReport": "digest",
    "DigestRequest": "digest",
    "NoAgreementNotice": "digest",
    "DivergedNotice": "digest",
}
"""Kinds of messages by the colour that they share; all others are of snapshots."""

MARKS = TEXT_MARKS | {What.DISK: "⚠"}


class _Label(msgspec.Struct):
    """Text beside a node's line, or beside the times."""

    at: float
    slot: int
    """The room that it lies in: that to the right of the column with this number; `ALL` for across all of them."""
    key: Hashable
    """Labels of equal keys are one: a message to several has one at its sender."""
    text: str = ""

    @property
    def height(self) -> int:
        """In pixels."""
        return TEXT * len(_lines(self.text))


ALL = -2


def _lines(text: str) -> list[str]:
    """A label's text in lines that fit between two columns, as short ones as there may be."""
    return textwrap.wrap(text, ROOM, break_on_hyphens=False) or [""]


class Scale:
    """Maps virtual seconds to pixels: monotonic, and so that no two labels of a slot overlap."""

    def __init__(self, times: Iterable[float], labels: list[_Label]) -> None:
        waiting: dict[float, list[_Label]] = {}
        for label in labels:
            waiting.setdefault(label.at, []).append(label)
        free: dict[int, float] = {}
        wide = 0.0
        self.times = sorted({*times, *waiting})
        self._places: dict[float, float] = {}
        self.labels: dict[Hashable, float] = {}
        """Where each label goes."""
        y, before = 8.0, self.times[0] if self.times else 0.0
        for time in self.times:
            y += min(STEP_MAX, 400 * (time - before) + 6) if time > before else 0
            slots = {label.slot for label in waiting.get(time, [])}
            taken = free.values() if ALL in slots else [free[slot] for slot in slots if slot in free]
            y = max([y, wide, *taken])
            for slot in slots:
                free[slot] = y
            for label in sorted(waiting.get(time, []), key=lambda each: each.slot == ALL):  # stable
                if label.key not in self.labels:
                    place = max(free.values()) if label.slot == ALL else free[label.slot]
                    self.labels[label.key] = place
                    free[label.slot] = place + label.height
                    wide = place + label.height if label.slot == ALL else wide
            self._places[time], before = y, time
        self.height = max([y, *free.values()]) + 3 * TEXT

    def __call__(self, time: float) -> float:
        """The pixel of a time; outside of the scale, that of its nearest end."""
        if time in self._places:
            return self._places[time]
        return self.height if self.times and time > self.times[-1] else 0.0


class Drawing:
    """Draws a trace between two times, in virtual seconds."""

    def __init__(self, trace: Trace, since: float = 0.0, until: float = math.inf) -> None:
        records = trace.records(since, until)
        times = [record.at for record in records]
        self._since, self._until = min(times, default=0.0), max([*times, min(until, trace.now)])
        self._messages = [record for record in records if isinstance(record, SentMessage)]
        self._happenings = without_echoes(record for record in records if isinstance(record, Happening))
        self._calls = [call for call in trace.calls if call.at <= self._until and call.returned >= self._since]
        self._lives = lifelines(trace)
        self.nodes = self._used_nodes(trace)
        self._columns = ([CLIENTS] if self._calls else []) + self.nodes
        self.width = LEFT + COLUMN * max(0, len(self._columns) - 1) + RIGHT
        ends = [at for message in self._messages for at in message.arrivals if at <= self._until]
        ends += [call.returned for call in self._calls if call.returned <= self._until]
        ends += [call.at for call in self._calls if call.at >= self._since]
        ends += [span.end for life in self._lives.values() for span in life.spans(self._since, self._until)]
        self._scale = Scale([*times, *ends, self._since, self._until], self._labels())

    def _used_nodes(self, trace: Trace) -> list[NodeId]:
        used = {happening.node for happening in self._happenings}
        used |= {node for message in self._messages for node in (message.sender, message.to)}
        lives = self._lives
        return [node for node in trace.nodes if node in used or lives[node].state(self._since) != DOWN]

    def x(self, column: int) -> int:
        """The horizontal position of a column, in pixels."""
        return LEFT + COLUMN * self._columns.index(column)

    @property
    def headings(self) -> list[tuple[int, str]]:
        """For each line its horizontal position in pixels, and its heading."""
        return [(self.x(each), "clients" if each == CLIENTS else f"node {each}") for each in self._columns]

    def _labels(self) -> list[_Label]:
        labels = [_Label(each.at, self._slot(each.node), each.number, each.label) for each in self._happenings]
        shown = [message for message in self._messages if not message.routine]
        labels += [_Label(each.at, self._arrow_slot(each), self._arrow_key(each), each.label) for each in shown]
        labels += [
            _Label(call.at, self._slot(CLIENTS), call.number, _words(call))
            for call in self._calls
            if call.at >= self._since
        ]
        return labels

    def _slot(self, column: int | None) -> int:
        return self._columns.index(column) if column is not None else ALL

    def _side(self, message: SentMessage) -> int:
        return 1 if self.x(message.to) > self.x(message.sender) else -1

    def _arrow_slot(self, message: SentMessage) -> int:
        """What is written to the left of one line lies to the right of the one before."""
        return self._slot(message.sender) - (self._side(message) < 0)

    def _arrow_key(self, message: SentMessage) -> Hashable:
        return message.at, message.sender, self._side(message), message.label

    def svg(self) -> str:
        """The diagram as an SVG element, which needs only the page's style."""
        body = [*self._draw_cuts(), *self._draw_lives(), *self._draw_messages(), *self._draw_calls()]
        body += [*self._draw_happenings(), *self._draw_times()]
        height = self._scale.height
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{self.width}" height="{height:.0f}" '
            f'viewBox="0 0 {self.width} {height:.0f}">\n' + "\n".join(body) + "\n</svg>"
        )

    def _draw_lives(self) -> Iterable[str]:
        for node in self.nodes:
            x = self.x(node)
            for span in self._lives[node].spans(self._since, self._until):
                top, bottom = self._scale(span.begin), self._scale(span.end)
                if span.state != DOWN:
                    title = f"node {node}: {span.state}, {span.begin:.3f} to {span.end:.3f}"
                    yield (
                        f'<line class="life {span.state.lower()}" x1="{x}" y1="{top:.1f}" x2="{x}" y2="{bottom:.1f}">'
                        f"<title>{escape(title)}</title></line>"
                    )
        if CLIENTS in self._columns:
            x = self.x(CLIENTS)
            yield f'<line class="life" x1="{x}" y1="0" x2="{x}" y2="{self._scale.height:.0f}"/>'

    def _draw_messages(self) -> Iterable[str]:
        written: set[Hashable] = set()
        for message in self._messages:
            group = GROUPS.get(message.kind, "snapshot")
            routine = " routine" if message.routine else ""
            arrivals = [at for at in message.arrivals if at <= self._until]
            shapes = [self._arrow(message, at) for at in arrivals] or [self._stub(message)]
            text = ""
            if not message.routine and (key := self._arrow_key(message)) not in written:
                written.add(key)
                text = self._text(key, message.sender, message.label, "arrow", self._side(message))
            yield f'<g class="message {group}{routine}">{"".join(shapes)}{text}</g>'

    def _arrow(self, message: SentMessage, at: float) -> str:
        x1, x2 = self.x(message.sender), self.x(message.to)
        y1, y2 = self._scale(message.at), self._scale(at)
        again = f", and again at {at:.4f}" if at != message.arrivals[0] else ""
        ms = (message.arrivals[0] - message.at) * 1000
        title = (
            f"{message.sender} → {message.to}  {message.label}\nsent {message.at:.4f}, "
            f"arrived {message.arrivals[0]:.4f} ({ms:.1f} ms){again}\n{message.detail}"
        )
        length = math.hypot(x2 - x1, y2 - y1)
        dx, dy = (x2 - x1) / length, (y2 - y1) / length
        tip = f"{x2:.1f},{y2:.1f}"
        wings = [(x2 - 8 * dx - side * 3.5 * dy, y2 - 8 * dy + side * 3.5 * dx) for side in (1, -1)]
        points = " ".join([tip, *(f"{x:.1f},{y:.1f}" for x, y in wings)])
        path = f'x1="{x1}" y1="{y1:.1f}" x2="{x2 - 6 * dx:.1f}" y2="{y2 - 6 * dy:.1f}"'
        return (
            f'<line {path}/><polygon points="{points}"/><line class="hit" {path}><title>{escape(title)}</title></line>'
        )

    def _stub(self, message: SentMessage) -> str:
        """A message that has not arrived ends half-way."""
        x1, x2, y = self.x(message.sender), self.x(message.to), self._scale(message.at)
        x = x1 + (x2 - x1) * (0.2 if message.fate is Fate.UNSENT else 0.6)
        y2 = y if message.fate is Fate.UNSENT else y + 8
        title = f"{message.sender} → {message.to}  {message.label}\nsent {message.at:.4f}: {message.fate}\n"
        path = f'x1="{x1}" y1="{y:.1f}" x2="{x:.1f}" y2="{y2:.1f}"'
        return (
            f'<line class="lost" {path}/><text class="lost" x="{x:.1f}" y="{y2 + 4:.1f}">✗</text>'
            f'<line class="hit" {path}><title>{escape(title + message.detail)}</title></line>'
        )

    def _draw_happenings(self) -> Iterable[str]:
        for each in self._happenings:
            if each.node is None:
                continue
            text = self._text(each.number, each.node, each.label, f"happening {each.what}")
            x, y = self.x(each.node), self._scale.labels[each.number]
            title = f"{each.at:.4f}  node {each.node}: {each.label}\n{each.detail}"
            yield (
                f'<g class="{each.what}"><title>{escape(title)}</title>'
                f'<text class="mark" x="{x}" y="{y + 4:.1f}">{MARKS.get(each.what, "•")}</text>{text}</g>'
            )

    def _draw_calls(self) -> Iterable[str]:
        numbers = {client: place for place, client in enumerate(sorted({call.client for call in self._calls}))}
        for call in self._calls:
            x = self.x(CLIENTS) - 8 - 7 * numbers[call.client]
            top, is_open = self._scale(max(call.at, self._since)), call.returned > self._until
            bottom = self._scale(self._until if is_open else call.returned)
            end = "no answer" if math.isinf(call.returned) else f"{call.returned:.4f}"
            result = "refused: not done" if call.refused else f"→ {call.result}" if call.result else "outcome unknown"
            title = f"client {call.client}: {call.label} {result}\ncalled {call.at:.4f}, returned {end}"
            kind = "refused" if call.refused else "open" if is_open else "done"
            bar = f'<rect class="call {kind}" x="{x - 2}" y="{top:.1f}" width="5" height="{max(3, bottom - top):.1f}"/>'
            text = ""
            if call.at >= self._since:
                text = self._text(call.number, CLIENTS, _words(call), "happening")
            yield f"<g><title>{escape(title)}</title>{bar}{text}</g>"

    def _draw_cuts(self) -> Iterable[str]:
        """Draw events of the network or the world across all lines, and how long a cut lasted beside the times."""
        cut_from: float | None = None
        for each in self._happenings:
            if each.node is not None:
                continue
            y = self._scale.labels[each.number]
            title = f"{each.at:.4f}  {each.label}\n{each.detail}"
            mark = ' id="broken"' if each.what is What.BROKEN else ""
            yield (
                f'<g class="{each.what}"{mark}><title>{escape(title)}</title><line x1="{CUT_X}" y1="{y:.1f}" '
                f'x2="{self.width}" y2="{y:.1f}"/><text x="{CUT_X + 8}" y="{y + 9:.1f}">'
                f"{escape(each.label)}</text></g>"
            )
            if each.what is What.NETWORK and each.label.startswith("cut"):
                cut_from = cut_from if cut_from is not None else y
            elif each.what is What.NETWORK and each.detail.endswith("nothing") and cut_from is not None:
                yield self._cut_bar(cut_from, y)
                cut_from = None
        if cut_from is not None:
            yield self._cut_bar(cut_from, self._scale.height)

    def _cut_bar(self, top: float, bottom: float) -> str:
        return (
            f'<rect class="cut" x="{CUT_X}" y="{top:.1f}" width="4" height="{bottom - top:.1f}">'
            "<title>some way is cut</title></rect>"
        )

    def _draw_times(self) -> Iterable[str]:
        """Write times at intervals, and where the scale leaves out silence."""
        last_y = -math.inf
        for time in self._scale.times:
            y = self._scale(time)
            if y - last_y >= 2 * TEXT:
                yield f'<text class="time" x="{CUT_X - 8}" y="{y + 4:.1f}">{time:.3f}</text>'
                last_y = y

    def _text(self, key: Hashable, column: int, text: str, kind: str, side: int = 1) -> str:
        x, y = self.x(column) + side * 12, self._scale.labels[key] + 4
        anchor = "" if side > 0 else ' text-anchor="end"'
        return "".join(
            f'<text class="{kind}" x="{x}" y="{y + TEXT * at:.1f}"{anchor}>{escape(line)}</text>'
            for at, line in enumerate(_lines(text))
        )


def _words(call: Calling) -> str:
    """A call with all of its answer."""
    end = " refused: not done" if call.refused else f" → {call.result}" if call.result else ""
    return f"{call.client}: {call.label}{end}"
