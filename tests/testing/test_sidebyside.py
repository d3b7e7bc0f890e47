"""Two runs side by side, for what shows without a cluster; long answers differ line by line."""

from __future__ import annotations

from html.parser import HTMLParser

import msgspec

from raftkv.testing.judging.models import Raised, Returned
from raftkv.testing.tracing.sidebyside import Side, Sides
from raftkv.testing.trying.answers import beside, difference_of

ROWS = [Side(f"receive('apple', {number})", ["gives 1"], ["gives 1"]) for number in range(30)]
SIDES = Sides("in one process", "in another", [*ROWS, Side("on_hand('<b>')", ["gives 1"], ["gives " + "long " * 30])])


def test_the_text_shows_both_runs_and_marks_where_they_differ():
    """Nothing is cut off: what does not fit has more lines; earlier calls are counted."""
    lines = SIDES.text(rows=5).splitlines()
    assert [part.strip() for part in lines[0].split("│")] == ["calls", "in one process", "in another"]
    assert lines[1] == "  ⋮ 26 earlier calls, alike on both sides"
    (marked,) = [line for line in lines if line.startswith("✖")]
    assert [part.strip() for part in marked.split("│")][:2] == ["✖ on_hand('<b>')", "gives 1"]
    assert sum(line.count("long") for line in lines) == 30
    assert max(map(len, lines)) <= 120


def test_the_page_needs_nothing_else_and_is_well_formed():
    """All calls are in it, what an application says is escaped, and the difference can be jumped to."""
    text = SIDES.page("raftkv replay x", "1 < 2")
    assert text.count("<tr") == 32
    assert text.count("<tr class=differs id=broken>") == 1
    assert "on_hand(&#x27;&lt;b&gt;&#x27;)" in text
    assert "1 &lt; 2" in text
    assert "<script" not in text
    assert "http" not in text
    Strict().feed(text)


class Strict(HTMLParser):
    """Counts on every tag being closed."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []

    def handle_starttag(self, tag, attrs):
        if tag not in ("meta", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


class Order(msgspec.Struct):
    """With fields."""

    sku: str
    count: int


def test_long_answers_differ_line_by_line():
    """Where both gave one; short ones stand beside each other anyhow."""
    orders = [Order(f"sku{number}", number) for number in range(9)]
    others = [*orders[:4], Order("sku4", 5), *orders[5:]]
    lines = difference_of(Returned(others), Returned(orders)).splitlines()
    assert lines[1:3] == ["--- the model", "+++ the machine"]
    changed = [line.strip(" ,}") for line in lines if line[0:1] in "-+" and "'" in line]
    assert changed == ["-  'count': 4", "+  'count': 5"]
    assert difference_of(Returned(3), Returned(4)) == ""
    assert difference_of(Raised("ValueError"), Returned(orders)) == ""
    assert beside(Returned(1), Returned(2)) == (["gives 1"], ["gives 2"])
