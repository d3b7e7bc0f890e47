"""The page that shows a cluster, by HTTP: what is sent, to how many, how often, and what a picture holds."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest

from raftkv.doctor import ClusterView, Evidence, Silent
from raftkv.logs import RECENT_MAX, VALUE_CHARS_MAX, EventLog, Recent
from raftkv.model import Member, Membership
from raftkv.node.status import NodeStatus, PeerStatus
from raftkv.processes.cluster import ProcessCluster
from raftkv.processes.ports import free_ports
from raftkv.server import wsgi
from raftkv.server.http import HttpServer
from raftkv.server.page import Feed, Watched, asking, page
from raftkv.server.page.feed import VIEWERS_MAX
from raftkv.server.page.picture import picture_of
from raftkv.snapshot import TransferProgress
from tests.certificates import Authority
from tests.cli.test_view import status_of
from tests.integration.nodes import with_http
from tests.waiting import until

NOW = datetime(2026, 1, 1, tzinfo=UTC)


@contextlib.contextmanager
def serving(
    status: Callable[[], NodeStatus], pulse: Callable[[], object] = lambda: None, port: int = 0
) -> Iterator[HttpServer]:
    """A node's HTTP port, with an event loop that runs."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()

    async def make() -> HttpServer:
        server = HttpServer("127.0.0.1", port, status, pulse=pulse)
        server.begin()
        return server

    try:
        server = asyncio.run_coroutine_threadsafe(make(), loop).result(30)
        try:
            yield server
        finally:
            server.close()
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


class Viewer:
    """A browser that looks at the page, as far as the wire goes."""

    def __init__(self, port: int) -> None:
        self.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        self.connection.request("GET", "/events")
        self.answer = self.connection.getresponse()

    def event(self, name: str) -> Any:
        """The next event of that name; None at the end of the stream."""
        found = None
        while line := self.answer.readline():
            if line.startswith(b"event: "):
                found = line[7:].strip().decode()
            elif line.startswith(b"data: ") and found == name:
                return json.loads(line[6:])
        return None

    def close(self) -> None:
        self.answer.close()
        self.connection.close()


def alone(**more: Any) -> NodeStatus:
    """The only member of its cluster."""
    member = Member(1, "127.0.0.1:1", "127.0.0.1:2")
    status = status_of(1, **more)
    status.membership, status.peers = Membership(voters=(1,), members=(member,)), []
    return status


def test_the_page_may_load_nothing_but_what_stands_in_it():
    """The policy allows the two parts of the file by their hashes, and its own node to be asked: no foreign host."""
    with serving(alone) as server:
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
        connection.request("GET", "/")
        answer = connection.getresponse()
        body, policy = answer.read(), answer.headers["Content-Security-Policy"]
        connection.close()
    assert answer.status == 200 and answer.headers["Content-Type"] == "text/html; charset=utf-8"
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert rules["default-src"] == "'none'" and rules["connect-src"] == "'self'"
    assert rules["frame-ancestors"] == rules["form-action"] == rules["base-uri"] == "'none'"
    assert rules["script-src"].startswith("'sha256-") and rules["style-src"].startswith("'sha256-")
    assert "unsafe" not in policy
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    text = body.decode()
    assert "http://" not in text and "https://" not in text and "//cdn" not in text
    for word in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "onclick", 'style="'):
        assert word not in text, word
    assert page()[0] == body


def test_a_viewer_gets_a_picture_and_the_events():
    """One stream carries both; the picture says whose it is, and what the doctor finds."""
    with serving(lambda: alone(sessions=7)) as server:
        EventLog("raftkv.test").info("something_happened", who="<b>x</b>", nothing=None)
        EventLog("raftkv.test").debug("a_detail")
        viewer = Viewer(server.port)
        assert viewer.answer.headers["Content-Type"] == "text/event-stream"
        said = viewer.event("log")
        assert [each["event"] for each in said] == ["something_happened"]
        assert said[0]["fields"] == {"who": "<b>x</b>"}
        picture = viewer.event("picture")
        assert (picture["own"], picture["leader"], picture["term"], picture["sessions"]) == (1, 1, 3, 7)
        assert [each["condition"] for each in picture["findings"]] == ["single-voter"]
        viewer.close()


def test_all_viewers_share_one_look_and_nobody_is_no_look():
    """The nodes are asked once for everybody, and not at all when nobody looks any more."""
    with serving(alone) as server:
        feed = server.feed
        assert feed.rounds == 0
        viewers = [Viewer(server.port) for _ in range(3)]
        for viewer in viewers:
            assert viewer.event("picture") is not None
        looks = feed.rounds
        assert [viewer.event("picture")["commit"] for viewer in viewers] == [7, 7, 7]
        assert feed.rounds <= looks + 2
        for viewer in viewers:
            viewer.close()
        until(lambda: feed.viewers == 0, "the viewers have left")
        until(lambda: not feed.is_looking, "nobody is asked any more")
        looks = feed.rounds
        late = Viewer(server.port)
        assert late.event("picture") is not None and feed.rounds > looks
        late.close()


def test_one_viewer_too_many_is_told_so():
    """Each viewer is a thread: the ninth learns why it sees nothing, and gets a place when one has left."""
    with serving(alone) as server:
        viewers = [Viewer(server.port) for _ in range(VIEWERS_MAX)]
        for viewer in viewers:
            assert viewer.event("picture") is not None
        refused = Viewer(server.port)
        assert refused.event("full") == {"viewers": VIEWERS_MAX}
        assert refused.event("picture") is None
        refused.close()
        viewers.pop().close()
        until(lambda: server.feed.viewers < VIEWERS_MAX, "one has left")
        late = Viewer(server.port)
        assert late.event("picture") is not None
        for viewer in (late, *viewers):
            viewer.close()


def test_a_viewer_stays_for_longer_than_a_request_may_take(monkeypatch):
    """A request is ended after some time, unless its answer goes on."""
    monkeypatch.setattr(wsgi, "REQUEST_S", 1.5)
    with serving(alone) as server:
        viewer = Viewer(server.port)
        assert all(viewer.event("picture") for _ in range(5))
        viewer.close()


def test_a_new_leader_is_shown_at_once():
    """A picture is due every second, but another leader is no news to wait for."""
    leader = [1]

    def status() -> NodeStatus:
        return alone(leader=leader[0])

    with serving(status, lambda: leader[0]) as server:
        server.feed.period_s = 60.0
        viewer = Viewer(server.port)
        assert viewer.event("picture")["leader"] == 1
        leader[0] = 2
        assert viewer.event("picture")["leader"] is None
        viewer.close()


def test_streams_end_when_the_node_does():
    """A viewer does not keep a node from stopping."""
    with serving(alone) as server:
        viewer = Viewer(server.port)
        assert viewer.event("picture") is not None
    assert viewer.event("picture") is None
    viewer.close()


def test_head_and_other_methods_start_no_stream():
    """Nobody looks who only asks whether there is something."""
    with serving(alone) as server:
        for method, code in (("HEAD", 200), ("POST", 405)):
            connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
            connection.request(method, "/events")
            answer = connection.getresponse()
            answer.read()
            assert answer.status == code and server.feed.viewers == 0
            connection.close()


def test_members_that_do_not_answer_are_silent():
    """The node itself is shown while nobody else is there, and who is missing is said with the reason."""
    ports = free_ports(2)
    members = tuple(
        Member(each, f"127.0.0.1:{port}", f"127.0.0.1:{port}") for each, port in ((2, ports[0]), (3, ports[1]))
    )

    def status() -> NodeStatus:
        status = status_of(1)
        status.membership = Membership(voters=(1, 2, 3), members=(Member(1, "127.0.0.1:1", "127.0.0.1:2"), *members))
        return status

    with serving(status) as server:
        viewer = Viewer(server.port)
        while len((picture := viewer.event("picture"))["silent"]) < 2:
            assert [node["node"] for node in picture["nodes"]] == [1]
        assert sorted(each["node"] for each in picture["silent"]) == [2, 3]
        assert "quorum-lost" in [each["condition"] for each in picture["findings"]]
        viewer.close()


def test_a_node_of_another_cluster_in_a_members_place_is_silent(monkeypatch):
    """Data directories were exchanged: it is not shown as the member, nor compared with this node."""
    members = tuple(Member(each, f"10.0.0.{each}:8001", f"10.0.0.{each}:7001") for each in (1, 2))

    def status(node_id: int = 1, **more: Any) -> NodeStatus:
        return msgspec.structs.replace(
            status_of(node_id), membership=Membership(voters=(1, 2), members=members), **more
        )

    class Stranger:
        def __init__(self, addresses: list[str], **options: Any) -> None:
            assert addresses == ["10.0.0.2:7001"]

        async def status(self, deadline_s: float) -> Any:
            return msgspec.to_builtins(status(2, cluster_id="another", digest="ff"))

        async def close(self) -> None:
            pass

    monkeypatch.setattr(asking, "Admin", Stranger)
    with serving(status) as server:
        viewer = Viewer(server.port)
        while not (picture := viewer.event("picture"))["silent"]:
            assert [node["node"] for node in picture["nodes"]] == [1]
        assert "node 2 of another cluster (another)" in picture["silent"][0]["reason"]
        assert "replicas-differ" not in [each["condition"] for each in picture["findings"]]
        viewer.close()


def test_a_picture_counts_what_happened_between_two_looks():
    """Commits a second, the disk's time for a write, and how far the leader knows each follower to be."""
    before, now = (
        status_of(1, 100, write_batches=10, write_seconds=0.1),
        status_of(1, 300, write_batches=20, write_seconds=0.6),
    )
    now.peers[0].match_index, now.peers[0].rtt_ms = 290, 1.5
    evidence = Evidence(
        view=ClusterView([now, status_of(2, 290)], [Silent("10.0.0.3:7001", "refused", 3)]),
        before=ClusterView([before], []),
        apart_s=2.0,
    )
    picture = picture_of(evidence, 1, NOW)
    assert picture["commits_s"] == 100
    first, second = picture["nodes"]
    assert first["write_ms"] == pytest.approx(50) and first["lag"] == 0
    assert (second["lag"], second["rtt_ms"]) == (10, 1.5)
    assert picture["silent"] == [{"node": 3, "address": "10.0.0.3:7001", "reason": "refused"}]


def test_a_transfer_is_shown_once():
    """Both ends of a snapshot's way tell of it; the sender is believed, and a receiver whose sender is silent."""
    progress = TransferProgress(index=7, sent_bytes=1, total_bytes=4, files_done=0, files=2)
    leader, follower = status_of(1), status_of(2, installing=progress)
    leader.peers = [PeerStatus(node_id=2, connected=True, snapshot=progress)]
    shown = picture_of(Evidence(view=ClusterView([leader, follower], [])), 1, NOW)["transfers"]
    assert [(each["from"], each["to"], each["sent_bytes"]) for each in shown] == [(1, 2, 1)]
    shown = picture_of(Evidence(view=ClusterView([follower], [])), 2, NOW)["transfers"]
    assert [(each["from"], each["to"]) for each in shown] == [(None, 2)]


def test_a_failed_look_ends_the_streams_and_the_next_viewer_starts_anew():
    """A bug in a picture is said in the log; viewers are not left waiting for a thread that is gone."""

    def broken() -> NodeStatus:
        raise ZeroDivisionError

    feed = Feed(Watched(broken), Recent())
    try:
        stream = feed.stream(lambda: None)
        parts = list(stream)
        assert not any(b"event: picture" in part for part in parts)
        assert feed.viewers == 0
    finally:
        feed.close()


def test_recent_events_are_bounded_and_kept_only_on_request():
    """A hundred events, cut values, nothing while nobody has asked; a value without text loses the line, not more."""
    events = Recent(lambda: 5.0)
    events.note("info", "unseen", {})
    events.keep()
    for number in range(RECENT_MAX + 5):
        events.note("warning", "seen", {"number": number, "long": "x" * 10_000})
    found = events.after(0)
    assert len(found) == RECENT_MAX and found[-1].fields["number"] == str(RECENT_MAX + 4)
    assert found[0].at == 5.0 and len(found[0].fields["long"]) < VALUE_CHARS_MAX + 10
    assert [each.number for each in events.after(found[-2].number)] == [found[-1].number]
    events.drop()
    assert events.after(0) == []


def test_the_others_are_asked_with_the_nodes_own_certificate(tmp_path):
    """Where clients must show a certificate, any member's page shows the whole cluster all the same."""
    authority = Authority(tmp_path)
    certificate, key = authority.issue("node")
    files = ["--tls-ca", str(tmp_path / "ca.pem"), "--tls-cert", str(certificate), "--tls-key", str(key)]
    with ProcessCluster(tmp_path / "cluster", 3, arguments=files) as cluster:
        ports = [int(address.rpartition(":")[2]) for address in with_http(cluster)]
        cluster.start_all()

        def viewer() -> Viewer | None:
            with contextlib.suppress(OSError):
                return Viewer(ports[1])
            return None

        watching = until(viewer, "node 2 serves its page")
        while len((picture := watching.event("picture"))["nodes"]) < 3 or picture["leader"] is None:
            assert picture["own"] == 2
        assert [node["node"] for node in picture["nodes"]] == [1, 2, 3] and picture["silent"] == []
        watching.close()
