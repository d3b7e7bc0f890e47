"""Two runs of the same calls side by side, for failures that need no cluster: where they first differ is marked."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from html import escape
from itertools import zip_longest

import msgspec

from raftkv.testing.tracing.page import STYLE

WIDTH = 120
CALL_WIDTH = 32
ROWS_MAX = 200
"""The last of them: the difference is at the end."""


class Side(msgspec.Struct, frozen=True):
    """What one call came to, on either side, as lines; empty where it was not made."""

    call: str
    left: Sequence[str]
    right: Sequence[str]
    is_fine: bool = False
    """Whether it is as it should be, though the sides may differ."""

    @property
    def differs(self) -> bool:
        """Whether it is what the failure is about."""
        return not self.is_fine and list(self.left) != list(self.right)


class Sides(msgspec.Struct, frozen=True):
    """Two runs: what they are called, and their calls up to the one that differs."""

    left: str
    right: str
    rows: Sequence[Side]

    def text(self, rows: int = ROWS_MAX, width: int = WIDTH) -> str:
        """As a table of at most `width` characters a line."""
        room = (width - CALL_WIDTH - 8) // 2
        shown, lines = self.rows[-rows:], []
        lines += self._lines("", "calls", [self.left], [self.right], room)
        if len(shown) < len(self.rows):
            lines.append(f"  ⋮ {len(self.rows) - len(shown)} earlier calls, alike on both sides")
        for row in shown:
            lines += self._lines("✖" if row.differs else "", row.call, row.left, row.right, room)
        return "\n".join(lines)

    def _lines(self, mark: str, call: str, left: Sequence[str], right: Sequence[str], room: int) -> list[str]:
        columns = (_wrapped([call], CALL_WIDTH), _wrapped(left, room), _wrapped(right, room))
        return [
            f"{mark if not at else '':1} {one:{CALL_WIDTH}} │ {two:{room}} │ {three}".rstrip()
            for at, (one, two, three) in enumerate(zip_longest(*columns, fillvalue=""))
        ]

    def page(self, title: str, verdict: str) -> str:
        """As a page for any browser, without scripts or links to other files."""
        rows = "\n".join(
            f"<tr{' class=differs id=broken' if row.differs else ''}><td>{escape(row.call)}</td>"
            f"<td>{_cell(row.left)}</td><td>{_cell(row.right)}</td></tr>"
            for row in self.rows
        )
        return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(title)}</title>
<style>{STYLE}
table {{ border-collapse: collapse; margin: 8px 24px; font: 12px/1.45 ui-monospace, monospace; }}
th, td {{ border: 1px solid var(--line); padding: 3px 10px; text-align: left; vertical-align: top; }}
tr.differs td {{ border: 2px solid var(--bad); font-weight: bold; }}
</style>
</head>
<body>
<header>
<h1>{escape(title)}</h1>
<pre class="failed">{escape(verdict)}</pre>
<p>The same calls, one after the other, without a cluster. <a href="#broken">To the difference</a></p>
</header>
<table>
<tr><th>call</th><th>{escape(self.left)}</th><th>{escape(self.right)}</th></tr>
{rows}
</table>
</body>
</html>
"""


def _wrapped(lines: Sequence[str], room: int) -> list[str]:
    return [each for line in lines for each in textwrap.wrap(line, room, break_on_hyphens=False) or [""]]


def _cell(lines: Sequence[str]) -> str:
    return "<br>".join(escape(line) for line in lines)
