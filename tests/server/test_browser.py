"""The page in a real browser: a failover of real nodes, hostile names, a phone, dark and light, a lost connection."""

from __future__ import annotations

import contextlib
import json
import re
import urllib.request
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import pytest

from raftkv.logs import EventLog
from raftkv.node.status import NodeStatus
from raftkv.processes.cluster import ProcessCluster
from tests.integration.nodes import with_http
from tests.server.browser import OVERFLOW, browser, needs_browser, prefer, resize, text
from tests.server.test_page import alone, serving
from tests.waiting import until

pytestmark = [needs_browser, pytest.mark.filterwarnings("default")]

HOSTILE = "<img src=x onerror=\"document.title='owned'\"><script>document.title='owned'</script>‮&amp;"


@pytest.fixture(scope="module")
def driver() -> Iterator[Any]:
    """One browser for all tests of this module."""
    with browser() as found:
        yield found


@pytest.fixture(autouse=True)
def _blank(driver: Any) -> Iterator[None]:
    """Each test begins with a wide light screen, and leaves no page behind."""
    resize(driver, 1280)
    prefer(driver, "light")
    yield
    driver.get("about:blank")
    driver.get_log("browser")


def is_shown(driver: Any, selector: str, pattern: str) -> None:
    """Wait until the element's text is so."""
    until(lambda: re.search(pattern, text(driver, selector)), f"{pattern} in {selector}: {text(driver, selector)!r}")


def open_page(driver: Any, port: int) -> None:
    """Open the page, and wait for the first picture."""
    driver.get(f"http://127.0.0.1:{port}/")
    is_shown(driver, "#link", "Connected to node")


def troubled(**more: Any) -> NodeStatus:
    """A node with long sentences to tell."""
    return alone(
        stopped=None,
        writes_refused="only 1.5 MiB of disk are free",
        damaged=["/" + "a-very-long-directory-name" * 12 + "/snapshot is damaged"],
        disk_low=True,
        sessions=1_234_567,
        **more,
    )


def test_names_are_text_and_never_html(driver):
    """Whatever a cluster, a version, a damaged file or an event is called is shown as it is written, and nothing of it
    runs; the policy had nothing to forbid."""
    status = alone(damaged=[HOSTILE])
    status.cluster_id = status.version = status.role = status.machine = HOSTILE
    with serving(lambda: status) as server:
        open_page(driver, server.port)
        EventLog("raftkv.test").warning(HOSTILE, **{HOSTILE: HOSTILE})
        is_shown(driver, "#events", re.escape(HOSTILE) + "=")
        assert HOSTILE in text(driver, "#cluster") and HOSTILE in text(driver, "#nodes") + text(driver, "#problems")
        assert driver.execute_script("return document.querySelectorAll('img, main script, main b').length") == 0
        assert "owned" not in driver.title
        assert driver.get_log("browser") == []


@pytest.mark.parametrize("width", [320, 360, 768, 1024, 1280])
def test_nothing_has_to_be_scrolled_sideways(driver, width):
    """Not on a phone, and not with a path that has no blank in it."""
    resize(driver, width)
    with serving(troubled) as server:
        open_page(driver, server.port)
        is_shown(driver, "#problems", "disk")
        assert driver.execute_script(OVERFLOW) == 0
        inner = "return [...document.querySelectorAll('section')].filter(e => e.scrollWidth > e.clientWidth).length"
        assert driver.execute_script(inner) == 0


CONTRAST = """
const parts = colour => colour.match(/[\\d.]+/g).slice(0, 3).map(Number);
const light = colour => parts(colour).map(c => c / 255)
  .map(c => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)
  .reduce((sum, c, at) => sum + c * [0.2126, 0.7152, 0.0722][at], 0);
const back = each => { for (; each; each = each.parentElement) {
  const colour = getComputedStyle(each).backgroundColor;
  if (!/, 0\\)$/.test(colour)) return colour; } return 'rgb(255, 255, 255)'; };
let worst = [99, ''];
for (const each of document.querySelectorAll('body *')) {
  if (![...each.childNodes].some(child => child.nodeType === 3 && child.textContent.trim())) continue;
  if (['SCRIPT', 'STYLE'].includes(each.tagName)) continue;
  const [a, b] = [light(getComputedStyle(each).color), light(back(each))].sort((x, y) => y - x);
  const ratio = (a + 0.05) / (b + 0.05);
  if (ratio < worst[0]) worst = [ratio, each.outerHTML.slice(0, 80)];
}
return [getComputedStyle(document.body).backgroundColor, ...worst];
"""


def test_it_is_dark_for_who_wants_it_dark_and_readable_both_ways(driver):
    """Every text has a contrast of 4.5 at least with what is behind it (WCAG AA)."""
    seen = {}
    with serving(troubled) as server:
        for scheme in ("light", "dark"):
            prefer(driver, scheme)
            open_page(driver, server.port)
            is_shown(driver, "#problems", "disk")
            seen[scheme], ratio, where = driver.execute_script(CONTRAST)
            assert ratio >= 4.5, f"{scheme}: {ratio:.2f} at {where}"
    assert seen["light"] != seen["dark"]


def test_a_screen_reader_and_a_keyboard_find_their_way(driver):
    """Landmarks, headings, headers of rows and columns, a live region for problems; Tab reaches what there is."""
    resize(driver, 360)
    with serving(troubled) as server:
        open_page(driver, server.port)
        is_shown(driver, "#problems", "disk")
        tree = driver.execute_cdp_cmd("Accessibility.getFullAXTree", {})["nodes"]
        roles = [each["role"]["value"] for each in tree if not each.get("ignored")]
        for role in ("main", "banner", "contentinfo", "region", "table", "columnheader", "rowheader", "status"):
            assert role in roles, f"{role} is not among {sorted(set(roles))}"
        live = driver.execute_script("return document.querySelector('#problems').getAttribute('aria-live')")
        assert live == "polite"
        from selenium.webdriver.common.keys import Keys

        reached = []
        for _ in range(12):
            driver.switch_to.active_element.send_keys(Keys.TAB)
            reached.append(
                driver.execute_script("const e = document.activeElement; return e.className || e.id || e.tagName")
            )
        assert reached[0] == "skip" and "SUMMARY" in reached and "plain" in reached, reached


def test_what_stays_the_same_is_left_alone(driver):
    """A picture a second must not close what a reader has opened, nor be read aloud each time."""
    commit = [7]

    def status() -> NodeStatus:
        commit[0] += 10
        status = troubled(commit=commit[0])
        status.disk_free_bytes = (1 << 20) + 10_000 * commit[0]
        return status

    with serving(status) as server:
        open_page(driver, server.port)
        is_shown(driver, "#problems", "disk")
        driver.execute_script("window.part = document.querySelector('#problems details'); part.open = true")
        first = text(driver, "[data-fact='Committed']")
        until(lambda: text(driver, "[data-fact='Committed']") != first, "a new picture")
        assert driver.execute_script("return part.isConnected && part.open")


def test_it_says_when_the_connection_is_lost_and_comes_back(driver):
    """Since when, while the last picture stays, greyed; then all is as before."""
    with serving(alone) as server:
        open_page(driver, server.port)
        port = server.port
    is_shown(driver, "#link", r"lost since \d\d:\d\d:\d\d")
    since = text(driver, "#link")
    assert driver.execute_script("return document.body.className") == "lost"
    assert text(driver, "[data-fact='Leader']") == "node 1"
    with serving(alone, port=port):
        until(lambda: "Connected to node 1" in text(driver, "#link"), f"not {since}")
        assert driver.execute_script("return document.body.className") == ""


def test_it_says_when_too_many_look(driver, monkeypatch):
    """A page that gets no place says why, and what to do."""
    monkeypatch.setattr("raftkv.server.page.feed.VIEWERS_MAX", 0)
    with serving(alone) as server:
        driver.get(f"http://127.0.0.1:{server.port}/")
        is_shown(driver, "#link", "another node's")


def is_ready(address: str) -> bool:
    """Whether the node there knows a leader."""
    with contextlib.suppress(OSError), urllib.request.urlopen(f"http://{address}/ready", timeout=5) as answer:
        return answer.status == 200
    return False


# Notes when the page showed which leader, by the clock of this machine.
NOTE = """
window.leaders = [];
const note = () => { const each = document.querySelector("[data-fact='Leader']").textContent;
  if (!leaders.length || leaders.at(-1)[0] !== each) leaders.push([each, Date.now() / 1000]); };
note();
new MutationObserver(note).observe(document.querySelector('#facts'), {childList: true, subtree: true});
"""


def test_a_failover_is_seen_within_a_second_of_the_new_leader(driver, tmp_path):
    """Three real nodes; the leader is killed, and the page of another one shows the next leader within a second of the
    line of the log with which it began to lead. The dead node is shown as silent, with the doctor's word for it."""
    with ProcessCluster(tmp_path, arguments=["--log-json"]) as cluster:
        http = dict(zip(cluster.nodes, with_http(cluster), strict=True))
        cluster.start_all()
        for address in http.values():
            until(lambda address=address: is_ready(address), f"{address} is ready")
        driver.get(f"http://{http[1]}/")
        is_shown(driver, "[data-fact='Nodes that answer']", "3 of 3")
        leader = int(text(driver, "[data-fact='Leader']").removeprefix("node "))
        watched = next(node for node in cluster.nodes if node != leader)
        driver.get(f"http://{http[watched]}/")
        is_shown(driver, "[data-fact='Nodes that answer']", "3 of 3")
        is_shown(driver, "[data-fact='Leader']", f"node {leader}")
        driver.execute_script(NOTE)
        cluster.kill(leader)
        until(lambda: driver.execute_script("return leaders.at(-1)[0]") not in ("none", f"node {leader}"), "the next")
        shown, at = driver.execute_script("return leaders.at(-1)")
        led = began_to_lead(cluster.nodes[int(shown.removeprefix("node "))].log_path.read_text())
        assert at - led < 1.0, f"{shown} led at {led}, which was seen {at - led:.2f} s later"
        is_shown(driver, "#nodes", "silent")
        is_shown(driver, "#problems", "just a majority")
        assert driver.execute_script("return document.querySelector('[data-condition=quorum-at-risk]') !== null")
        is_shown(driver, "#events", "peer_lost")


def began_to_lead(log: str) -> float:
    """When a node became the leader for the last time, by its log."""
    lines = [json.loads(line) for line in log.splitlines() if '"role_changed"' in line]
    found = [line["timestamp"] for line in lines if line["role"] == "leader"]
    return datetime.fromisoformat(found[-1]).timestamp()
