"""Metrics and health over HTTP: what is answered, to which request, at which address."""

from __future__ import annotations

import asyncio
import http.client
import socket

import pytest

from raftkv.errors import ConfigError
from raftkv.node.status import NodeStatus, UpgradeStatus
from raftkv.server.http import HttpServer
from tests.cli.test_view import status_of

LOOPBACKS = ["127.0.0.1", "::1"]


def has_ipv6() -> bool:
    """Whether this host has a loopback address of that kind."""
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            return True
    except OSError:
        return False


def ask(
    host: str, status: NodeStatus, method: str, path: str, body: bytes = b"", *, by: str | None = None
) -> tuple[int, bytes, dict[str, str]]:
    """One request to a node that is like `status`, `by` that name in `Host`: code, body and headers."""

    def request(port: int) -> tuple[int, bytes, dict[str, str]]:
        connection = http.client.HTTPConnection(host, port, timeout=20)
        connection.request(method, path, body, headers={"Host": by} if by is not None else {})
        answer = connection.getresponse()
        found = answer.status, answer.read(), dict(answer.getheaders())
        connection.close()
        return found

    async def main() -> tuple[int, bytes, dict[str, str]]:
        server = HttpServer(host, 0, lambda: status)
        server.begin()
        try:
            return await asyncio.to_thread(request, server.port)
        finally:
            await asyncio.to_thread(server.close)

    return asyncio.run(main())


@pytest.mark.parametrize("host", LOOPBACKS)
def test_it_listens_on_either_kind_of_address(host):
    """`--http [::1]:9001` is as good as 127.0.0.1."""
    if host == "::1" and not has_ipv6():
        pytest.skip("this host has no IPv6")
    assert ask(host, status_of(1), "GET", "/health")[0] == 200


def test_a_name_that_is_none_is_refused_with_the_reason():
    """An empty label is no OSError to Python."""

    async def story():
        with pytest.raises(ConfigError, match=r"http a\.\.b:0: .*label empty"):
            HttpServer("a..b", 0, lambda: status_of(1))

    asyncio.run(story())


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "PATCH"])
def test_only_reading_is_answered(method):
    """Whatever would change something elsewhere is refused here, with what is allowed; also with a long body."""
    code, body, headers = ask("127.0.0.1", status_of(1), method, "/metrics", bytes(60_000))
    assert (code, headers["Allow"]) == (405, "GET, HEAD")
    assert b"GET" in body


def test_head_is_get_without_the_body():
    """A monitor may ask for the code alone."""
    code, body, headers = ask("127.0.0.1", status_of(1), "HEAD", "/ready")
    assert (code, body) == (200, b"") and int(headers["Content-Length"]) > 0


def test_a_leader_that_refuses_writes_is_not_ready_and_says_why():
    """Without a leader nobody is; a follower without room is, as others lead."""
    refused = status_of(1, writes_refused="only 1.5 MiB of disk are free")
    code, body, _ = ask("127.0.0.1", refused, "GET", "/ready")
    assert code == 503 and b"1.5 MiB" in body
    assert ask("127.0.0.1", refused, "GET", "/health")[0] == 200
    assert ask("127.0.0.1", status_of(2, disk_low=True), "GET", "/ready")[0] == 200
    assert ask("127.0.0.1", status_of(2, leader=None), "GET", "/ready")[0] == 503


def test_versions_and_upgrades_are_metrics_and_nothing_to_be_unready_for():
    """What waits, goes on or has failed is told, and clients are served as before; an older node says nothing."""

    def metrics(versions: UpgradeStatus | None) -> str:
        status = status_of(1, versions=versions)
        assert ask("127.0.0.1", status, "GET", "/ready")[0] == 200
        return ask("127.0.0.1", status, "GET", "/metrics")[1].decode()

    found = metrics(UpgradeStatus(2, 1, 3, ("fill", "-old"), 7, "fill: ValueError", "node 3 runs version 2"))
    for line in (
        "version_active 2.0",
        "version_oldest 1.0",
        "version_newest 3.0",
        "upgrade_pieces_done 7.0",
        "upgrades_left 2.0",
        "upgrade_failed 1.0",
    ):
        name = line.partition(" ")[0]
        assert f"\nraftkv_{line}\n" in found and f"# HELP raftkv_{name} " in found
    assert "raftkv_upgrade_failed 0.0" in metrics(UpgradeStatus(1, 1, 1))
    assert "raftkv_version_active" not in metrics(None)


def test_a_leader_in_doubt_is_not_ready_and_nobody_is_who_has_stopped():
    """Replicas differ: it is not decided who is wrong, or it never can be; both are said, and counted."""
    doubted = status_of(1, doubt="node 2 differs")
    code, body, _ = ask("127.0.0.1", doubted, "GET", "/ready")
    assert code == 503 and b"node 2 differs" in body
    assert ask("127.0.0.1", doubted, "GET", "/health")[0] == 200
    assert b"raftkv_states_doubted 1.0" in ask("127.0.0.1", doubted, "GET", "/metrics")[1]
    stopped = status_of(1, stopped="no state has a majority", stopped_error="NoAgreement")
    for path in ("/ready", "/health"):
        code, body, _ = ask("127.0.0.1", stopped, "GET", path)
        assert code == 503 and b"no state has a majority" in body
    assert b'raftkv_stopped_by{error="NoAgreement"} 1.0' in ask("127.0.0.1", stopped, "GET", "/metrics")[1]
    well = ask("127.0.0.1", status_of(1), "GET", "/metrics")[1]
    assert b"raftkv_states_doubted 0.0" in well and b"raftkv_stopped_by{" not in well


@pytest.mark.parametrize("path", ["/", "/status", "/metrics", "/events"])
def test_a_page_of_elsewhere_reads_nothing_of_a_node_on_loopback(path):
    """Its name may be made to mean 127.0.0.1 once a browser has it; it stays the name that the browser asks for. By an
    address or by localhost a node answers as ever, and probes say yes or no by any name."""
    for method in ("GET", "HEAD"):
        code, body, headers = ask("127.0.0.1", status_of(1), method, path, by="evil.example:9001")
        assert code == 421 and b"raftkv_" not in body and b"node_id" not in body
        assert (b"evil.example" in body) is (method == "GET") and "no-store" in headers["Cache-Control"]
    for own in ("localhost:9001", "127.0.0.1", "[::1]:9001"):
        assert ask("127.0.0.1", status_of(1), "HEAD", path, by=own)[0] == 200


@pytest.mark.parametrize(("path", "code"), [("/health", 200), ("/ready", 503)])
def test_a_page_of_elsewhere_hears_yes_or_no_from_probes_and_nothing_more(path, code):
    """What is wrong with a node names addresses, files and certificates; a probe by another name needs the code."""
    doubted = status_of(1, doubt="node 2 differs")
    assert ask("127.0.0.1", doubted, "GET", path, by="evil.example")[:2] == (code, b"{}\n")
    assert b"node 2 differs" in ask("127.0.0.1", doubted, "GET", path, by="localhost")[1]
    assert b"node 2 differs" in ask("0.0.0.0", doubted, "GET", path, by="node-1.example")[1]  # noqa: S104


def test_beyond_loopback_a_node_has_any_name():
    """There it is the network that keeps strangers out, or that all sign in."""
    assert ask("0.0.0.0", status_of(1), "GET", "/status", by="node-1.example:9001")[0] == 200  # noqa: S104


@pytest.mark.parametrize("path", ["/", "/status", "/metrics", "/health", "/nowhere"])
def test_no_answer_is_kept_or_taken_for_something_else_by_a_browser(path):
    """Nor is it put into a page of elsewhere."""
    headers = ask("127.0.0.1", status_of(1), "GET", path)[2]
    assert headers["Cache-Control"] == "no-store" and headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Cross-Origin-Resource-Policy"] == "same-origin"
