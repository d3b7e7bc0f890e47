"""Diagrams show what a trace holds: in text within a line's width, and as a page that needs nothing else."""

from __future__ import annotations

import itertools
import re
from html.parser import HTMLParser
from xml.etree import ElementTree

import pytest

from raftkv.kv import KeyValue
from raftkv.testing.judging.operation import Operation
from raftkv.testing.tracing.diagram import LEGEND, text_diagram
from raftkv.testing.tracing.lifelines import lifelines
from raftkv.testing.tracing.page import html_diagram
from raftkv.testing.tracing.trace import Trace
from raftkv.testing.world.cluster import SimCluster
from raftkv.testing.world.loop import SimLoop, elapse
from raftkv.worlds.simulation import Simulation


def recorded(scenario, size=3):
    """The trace of `scenario(cluster)` in a world of its own."""
    trace = Trace()

    async def run():
        cluster = SimCluster(KeyValue, size)
        trace.attach(cluster)
        await cluster.start()
        await cluster.until_leader()
        await scenario(cluster)

    SimLoop().run(run())
    return trace


async def crash_and_cut(cluster):
    """A write, a follower's crash, a cut, and an election while it lasts."""
    async with cluster.client() as client:
        await client.put(b"a", b"1")
    leader = cluster.leader.node_id
    follower, other = [node for node in cluster.nodes if node != leader]
    cluster.nodes[follower].crash()
    await elapse(0.5)
    await cluster.nodes[follower].start()
    cluster.network.cut(leader, follower)
    cluster.network.cut(leader, other)
    await cluster.until(lambda: cluster.leader is not None and cluster.leader.node_id != leader)
    cluster.network.heal()
    await cluster.until_equal()


@pytest.fixture(scope="module")
def crashed():
    """The trace of that story."""
    return recorded(crash_and_cut)


@pytest.fixture(scope="module")
def busy():
    """The trace of a world with everything in it."""
    trace = Trace()
    Simulation(3, duration_s=8.0, observe=trace.attach).run()
    return trace


def page(trace, **window):
    """The page, with a verdict that needs escaping."""
    return html_diagram(trace, title="raftkv replay 3", verdict="1 < 2 & <b>", failed=True, **window)


def test_text_shows_what_matters(crashed):
    """Messages with their direction, crash, restart, cut, election and commits are there, each at its node."""
    text = text_diagram(crashed, rows=400)
    for sign in ("✖ crash", "○ start", "★ LEADS term 1", "★ LEADS term 2", "✓ commit", "╌╌ cut", "╌╌ healed"):
        assert sign in text, sign
    assert re.search(r"┠─+append \d+─+▶", text)
    assert re.search(r"◀─+ok \d+─+┤|├─+ok \d+─+▶", text)
    assert "✗" in text
    header = text.splitlines()[0]
    assert [name for name in ("node 1", "node 2", "node 3") if name in header] == ["node 1", "node 2", "node 3"]


def test_a_nodes_column_is_empty_while_it_is_down(crashed):
    """Down-time is seen at a glance."""
    lines = text_diagram(crashed, rows=400).splitlines()
    (x,) = {line.index("✖ crash") for line in lines if "✖ crash" in line}
    first = next(number for number, line in enumerate(lines) if "✖ crash" in line)
    again = next(number for number, line in enumerate(lines) if "○ start" in line and number > first)
    assert again > first
    assert {line[x : x + 1] for line in lines[first + 1 : again]} <= {" ", "", "╌", "✗"}


def test_the_leader_has_a_line_of_its_own(crashed):
    """Who leads is seen in every row."""
    lines = text_diagram(crashed, rows=400).splitlines()
    begun = next(number for number, line in enumerate(lines) if "★ LEADS term 1" in line)
    cut = next(number for number, line in enumerate(lines) if "╌╌ cut" in line)
    x = lines[begun].index("★")
    assert {line[x] for line in lines[begun + 1 : cut]} <= set("┃┠┨╂✓")


@pytest.mark.parametrize("width", [80, 120])
def test_text_keeps_to_its_width(busy, width):
    """Also with nodes that were added, and with long messages."""
    lines = text_diagram(busy, rows=300, width=width).splitlines()
    assert len(lines) > 300
    assert max(len(line) for line in lines if line != LEGEND) <= width
    assert len(LEGEND) <= 120


def test_a_window_shows_only_its_time(busy):
    """One may look at any part of the world."""
    lines = text_diagram(busy, since=3.0, until=4.0, rows=10_000).splitlines()
    times = [float(found.group(1)) for line in lines if (found := re.match(r" +(\d+\.\d{3}) ", line))]
    assert times == sorted(times)
    assert 3.0 <= times[0] <= times[-1] <= 4.0
    assert text_diagram(busy, since=1e6) == "nothing happened"


def test_only_the_last_rows_are_shown(busy):
    """The end is where a failure is; what was left out is said."""
    lines = text_diagram(busy, rows=5).splitlines()
    assert "earlier rows" in lines[1]
    assert lines[-1] == LEGEND


def test_lives_have_no_gaps_and_end_as_the_trace_says(busy):
    """Spans follow each other, and the last is what the node is now."""
    for node, life in lifelines(busy).items():
        spans = life.spans(0.0, busy.now)
        assert spans[0].begin == 0.0
        assert spans[-1].end == busy.now
        assert all(one.end == two.begin for one, two in itertools.pairwise(spans))
        assert spans[-1].state == busy.nodes[node]


def test_a_life_whose_begin_was_forgotten_is_guessed_from_what_is_left():
    """With bounded memory the first record that is kept says what was before."""

    async def wait(cluster):
        await elapse(3.0)
        cluster.nodes[cluster.leader.node_id].crash()

    trace = recorded(wait)
    trace.happenings.clear()
    assert [life.state(0.0) for life in lifelines(trace).values()].count("Follower") == 2


def test_the_page_is_well_formed_and_needs_nothing_else(crashed):
    """No script, no address but the namespace, and a drawing that an XML parser takes."""
    text = page(crashed)
    assert "<script" not in text
    assert set(re.findall(r"(?:src|href)=(\S+?)>", text)) <= {'"#broken"'}
    assert set(re.findall(r"https?://[^\"']+", text)) == {"http://www.w3.org/2000/svg"}
    assert "1 &lt; 2 &amp; &lt;b&gt;" in text
    drawing = parsed(text)
    assert drawing.attrib["width"] == drawing.attrib["viewBox"].split()[2]
    Strict().feed(text)


class Strict(HTMLParser):
    """Counts on every tag being closed."""

    VOID = ("meta", "input", "line", "rect", "polygon")

    def __init__(self):
        super().__init__()
        self.open = []

    def handle_starttag(self, tag, attrs):
        if tag not in ("meta", "input"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        assert tag in self.VOID

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def parsed(text):
    """The drawing on a page."""
    return ElementTree.fromstring(re.search(r"<svg.*</svg>", text, re.S).group(0))  # noqa: S314 (it is our own)


def elements(trace, name, **window):
    """The drawing's elements of a name, each with its class."""
    drawing = parsed(page(trace, **window))
    return [(each.get("class") or "", each) for each in drawing.iter(f"{{http://www.w3.org/2000/svg}}{name}")]


def test_the_drawing_has_every_message(crashed):
    """Each message is there, those that come all the time marked to be hidden, with all of its fields to read."""
    groups = [kind for kind, _ in elements(crashed, "g") if kind.startswith("message")]
    assert len(groups) == len(crashed.messages)
    assert sum("routine" in kind for kind in groups) == sum(message.routine for message in crashed.messages)
    titles = "\n".join(each.text for _, each in elements(crashed, "title"))
    assert all(message.detail in titles for message in crashed.messages)


def test_time_goes_down_in_the_drawing(crashed):
    """An arrow ends below its beginning, and nothing is outside of the picture."""
    (drawing,) = [each for _, each in elements(crashed, "svg")] or [None]
    height = float(drawing.get("height"))
    arrows = [each for kind, each in elements(crashed, "line") if kind == "hit"]
    assert arrows
    for arrow in arrows:
        assert 0 <= float(arrow.get("y1")) <= float(arrow.get("y2")) <= height


def test_labels_of_one_node_do_not_lie_on_each_other(busy):
    """Two happenings at one node have a line of text each."""
    places: dict[str, list[float]] = {}
    for kind, each in elements(busy, "text"):
        if kind.startswith("happening "):
            places.setdefault(each.get("x"), []).append(float(each.get("y")))
    for found in places.values():
        found.sort()
        assert min(two - one for one, two in itertools.pairwise(found)) >= 10


LABELS = ("happening", "arrow", "time", "network", "world", "broken")
"""Kinds of texts; marks, which are a character each, stand on the lines."""


def boxes(trace):
    """Where the drawing's labels are: their left, top, right and bottom, and their texts."""
    found = []
    drawing = parsed(page(trace))
    for group in drawing.iter():
        for each in group:
            kind = (each.get("class") or group.get("class") or "").split()
            if not each.tag.endswith("}text") or not kind or kind[0] not in LABELS:
                continue
            width = len(each.text or "") * (6.0 if kind[0] == "arrow" else 6.6)
            x, y = float(each.get("x")), float(each.get("y"))
            at_end = each.get("text-anchor") == "end" or kind[0] == "time"
            left = x - width if at_end else x
            found.append((left, y - 9, left + width, y + 2, each.text))
    return found


def test_labels_lie_nowhere_on_each_other(busy, crashed):
    """Computed from the letters' size: neither those of one line, nor those of two lines that meet between them."""
    for trace in (crashed, busy):
        found = sorted(boxes(trace), key=lambda box: box[1])
        assert len(found) > 50
        for at, one in enumerate(found):
            for other in itertools.takewhile(lambda box, one=one: box[1] < one[3], found[at + 1 :]):
                assert one[2] <= other[0] or other[2] <= one[0], (one, other)


def test_answers_are_shown_whole_and_arrows_name_the_command():
    """However long: in several lines, in the text as well."""

    async def tell(cluster):
        async with cluster.client() as client:
            await client.put(b"a", b"1")
        operation = Operation(1, None, "items", ("a",), cluster.loop.time())
        cluster.recorder.called(operation)
        await elapse(0.2)
        operation.result = [f"item{number}" for number in range(40)]
        cluster.recorder.answered(operation, refused=False)

    trace = recorded(tell)
    shown = " ".join(each.text or "" for kind, each in elements(trace, "text") if kind.startswith("happening"))
    text = text_diagram(trace, rows=400)
    assert re.search(r"append \d+ put", text)
    assert any(re.fullmatch(r"append \d+ put", each.text) for kind, each in elements(trace, "text") if kind == "arrow")
    for number in range(40):
        assert f"item{number}" in shown
        assert f"item{number}" in text


def test_the_same_trace_is_the_same_page():
    """Diagrams can be compared."""
    pages = set()
    for _ in range(2):
        trace = Trace()
        Simulation(5, duration_s=3.0, observe=trace.attach).run()
        pages.add(page(trace) + text_diagram(trace))
    assert len(pages) == 1
