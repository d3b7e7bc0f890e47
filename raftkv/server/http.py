"""Metrics and health over HTTP, on a port of their own and threads of their own."""

from __future__ import annotations

import asyncio
import ssl
import threading
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING
from wsgiref.simple_server import make_server

import msgspec
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from raftkv.errors import ConfigError
from raftkv.forks import leave, let_go, tell_of_fork
from raftkv.node.status import NodeStatus
from raftkv.server.wsgi import BoundedServer, QuietHandler

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

ANSWER_S = 5.0
"""How long the event loop may take to say how the node is, before it counts as unhealthy."""

UNWANTED_BYTES_MAX = 64 * 1024

StatusSource = Callable[[], NodeStatus | None]


class NodeCollector(Collector):
    """A node's status as Prometheus metrics."""

    def __init__(self, source: StatusSource) -> None:
        self._source = source

    def collect(self) -> Iterable[Metric]:
        """Every metric, from one look at the node."""
        status = self._source()
        if status is None:
            return
        gauges: dict[str, tuple[str, float]] = {
            "term": ("Current term", status.term),
            "is_leader": ("1 on the leader", int(status.role == "leader")),
            "has_leader": ("1 when a leader is known", int(status.leader is not None)),
            "last_index": ("Last index in the log", status.last_index),
            "durable_index": ("Last index that is durable here", status.durable_index),
            "commit_index": ("Last committed index", status.commit_index),
            "applied_index": ("Last applied index", status.applied_index),
            "snapshot_index": ("Index of the newest snapshot", status.snapshot_index or 0),
            "log_bytes": ("Bytes of the log behind its start", status.log_bytes),
            "state_bytes": ("Bytes of the applied state, roughly", status.state_bytes),
            "disk_free_bytes": ("Free bytes on the data directory's file system", status.disk_free_bytes),
            "disk_total_bytes": ("Size of that file system", status.disk_total_bytes),
            "disk_reserve_bytes": ("Free bytes below which the node does not lead", status.disk_reserve_bytes),
            "disk_low": ("1 when less than the reserve is free", int(status.disk_low)),
            "writes_refused": ("1 on a leader that refuses writes", int(status.writes_refused is not None)),
            "waiting_requests": ("Requests that wait for an answer", status.waiting_requests),
            "misplaced": (
                "1 when the membership sends others to where it does not listen",
                int(bool(status.misplaced)),
            ),
            "damaged_files": ("Damaged snapshots and files found and not mended", len(status.damaged)),
            "states_doubted": ("1 on a leader that serves nothing as replicas differ", int(status.doubt is not None)),
            "stopped": ("1 when the node stopped because going on was not safe", int(status.stopped is not None)),
        }
        if (clock := status.clock) is not None:
            gauges["log_time_seconds"] = ("Time of the newest entry, since the epoch", clock.log_time_ms / 1000)
            gauges["clock_is_doubted"] = ("1 when the leader stamps by other clocks", int(clock.doubt is not None))
            gauges["log_time_ahead_seconds"] = ("How long log time stands still (leader)", (clock.ahead_ms or 0) / 1000)
        if (versions := status.versions) is not None:
            gauges["version_active"] = ("Active version of the application, 0 before there is one", versions.active)
            gauges["version_oldest"] = ("Oldest version that this node's class runs", versions.oldest)
            gauges["version_newest"] = ("Newest version that this node's class runs", versions.newest)
            gauges["upgrade_pieces_done"] = ("Pieces done of the upgrade to the active version", versions.steps)
            gauges["upgrades_left"] = ("Upgrades to the active version that are not done", len(versions.left))
            gauges["upgrade_failed"] = ("1 when an upgrade has raised", int(versions.failed is not None))
        for name, (text, value) in gauges.items():
            yield GaugeMetricFamily(f"raftkv_{name}", text, value=value)
        counters = {
            "write_batches": ("Batches made durable", status.write_batches),
            "write_seconds": ("Seconds that the disk worked on them", status.write_seconds),
            "snapshots_taken": ("Snapshots taken", status.snapshots_taken),
            "snapshots_installed": ("Snapshots installed from a leader", status.snapshots_installed),
            "scrub_passes": ("Times that snapshots and log were read to find damage", status.scrub_passes),
            "scrub_bytes": ("Bytes that were read for that", status.scrub_bytes),
            "damage_found": ("Damaged files found by that", status.damage_found),
            "disk_hand_overs": ("Leadership handed over for want of disk space", status.disk_hand_overs),
            "elections_won": ("Elections won by this node", status.elections),
            "clock_doubts": ("Times the leader began to doubt its clock", status.clock.doubts if status.clock else 0),
            "log_lines_lost": ("Lines of the log that nobody took", status.log_lines_lost),
        }
        for name, (text, number) in counters.items():
            yield CounterMetricFamily(f"raftkv_{name}", text, value=number)
        mistakes = CounterMetricFamily(
            "raftkv_method_mistakes", "Errors that look like mistakes in a command or query", labels=["method"]
        )
        for method, number in status.mistakes.items():
            mistakes.add_metric([method], number)
        yield mistakes
        peers = GaugeMetricFamily("raftkv_peer_connected", "1 when the peer can be reached", labels=["peer"])
        lag = GaugeMetricFamily("raftkv_peer_lag_entries", "Entries a follower lacks (leader only)", labels=["peer"])
        unreachable = GaugeMetricFamily(
            "raftkv_peer_unreachable", "1 while the peer is not reached, for this reason", labels=["peer", "reason"]
        )
        offsets = GaugeMetricFamily("raftkv_clock_offset_seconds", "Clock against the leader's time", labels=["node"])
        if status.clock is not None and status.clock.offset_ms is not None:
            offsets.add_metric([str(status.node_id)], status.clock.offset_ms / 1000)
        for peer in status.peers:
            if peer.clock_offset_ms is not None:
                offsets.add_metric([str(peer.node_id)], peer.clock_offset_ms / 1000)
            if peer.unreached_reason is not None:
                unreachable.add_metric([str(peer.node_id), peer.unreached_reason], 1)
            peers.add_metric([str(peer.node_id)], int(peer.connected))
            if peer.match_index is not None:
                lag.add_metric([str(peer.node_id)], status.last_index - peer.match_index)
        reasons = GaugeMetricFamily("raftkv_stopped_by", "1 when the node stopped, for this error", labels=["error"])
        if status.stopped_error is not None:
            reasons.add_metric([status.stopped_error], 1)
        yield reasons
        yield peers
        yield unreachable
        expiry = GaugeMetricFamily(
            "raftkv_certificate_expiry_timestamp_seconds", "When a certificate runs out", labels=["role", "name"]
        )
        for each in status.certificates:
            expiry.add_metric([each.role, each.name], each.not_after.timestamp())
        yield expiry
        yield lag
        yield offsets


class HttpServer:
    """Serves `/metrics`, `/health` (200 while the node serves), `/ready` and `/status`.

    `/ready` is 200 when a leader is known, unless that is this node and it refuses writes, or serves nothing because
    replicas differ. All are only read: `GET` and `HEAD`, and nothing that anybody sends changes anything.
    """

    def __init__(
        self, host: str, port: int, status: Callable[[], NodeStatus], tls: ssl.SSLContext | None = None
    ) -> None:
        """Raises `ConfigError` when the address can't be listened on. With `tls` it speaks HTTPS only."""
        self._status = status
        self._loop = asyncio.get_running_loop()
        self._registry = CollectorRegistry()
        self._registry.register(NodeCollector(self._ask))
        try:
            self._server = make_server(host, port, self._answer, server_class=BoundedServer, handler_class=QuietHandler)
        except (OSError, UnicodeError) as exc:  # the latter for a name that is none
            raise ConfigError(f"http {host}:{port}: {getattr(exc, 'strerror', None) or exc}") from exc
        self._server.tls = tls
        self.port = self._server.server_port
        self._thread = threading.Thread(target=self._server.serve_forever, name="raftkv-http", daemon=True)
        self._thread.start()
        tell_of_fork(self)

    def _ask(self) -> NodeStatus | None:
        """The status, fetched on the event loop's thread; None when the loop does not answer."""

        async def fetch() -> NodeStatus:
            return self._status()

        try:
            return asyncio.run_coroutine_threadsafe(fetch(), self._loop).result(ANSWER_S)
        except (TimeoutError, RuntimeError):
            return None

    def _answer(self, environ: WSGIEnvironment, start_response: StartResponse) -> list[bytes]:
        path, method = environ.get("PATH_INFO", "/"), environ["REQUEST_METHOD"]
        if method not in ("GET", "HEAD"):
            return _refuse_method(environ, start_response)
        if path == "/metrics":
            body, kind, code = generate_latest(self._registry), "text/plain; version=0.0.4", "200 OK"
        elif path in ("/health", "/ready", "/status"):
            body, code = self._health(path)
            kind = "application/json"
        else:
            body, kind, code = b"there are /metrics, /health, /ready and /status\n", "text/plain", "404 Not Found"
        start_response(code, [("Content-Type", kind), ("Content-Length", str(len(body)))])
        return [body] if method == "GET" else []

    def _health(self, path: str) -> tuple[bytes, str]:
        status = self._ask()
        if status is None:
            return b'{"problems":["the event loop does not answer"]}\n', "503 Service Unavailable"
        ready = status.leader is not None and status.writes_refused is None and status.doubt is None
        good = status.stopped is None and (path != "/ready" or ready)
        content: object = status if path == "/status" else _summary(status)
        return msgspec.json.encode(content) + b"\n", "200 OK" if good else "503 Service Unavailable"

    def after_fork(self) -> None:
        """In a child: there is no thread that serves, and the address must be free when the parent is gone."""
        let_go(self._server.fileno())
        leave(self)

    def close(self) -> None:
        """Stop serving. Blocking."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def _refuse_method(environ: WSGIEnvironment, start_response: StartResponse) -> list[bytes]:
    """Nothing here is changed by asking; a body that was sent is read, else the answer would be lost with it."""
    sent = environ.get("CONTENT_LENGTH", "")
    if sent.isascii() and sent.isdigit():
        environ["wsgi.input"].read(min(int(sent), UNWANTED_BYTES_MAX))
    body = b"only GET and HEAD are answered here\n"
    start_response(
        "405 Method Not Allowed",
        [("Allow", "GET, HEAD"), ("Content-Type", "text/plain"), ("Content-Length", str(len(body)))],
    )
    return [body]


def _summary(status: NodeStatus) -> dict[str, object]:
    """What `/health` and `/ready` say besides yes or no."""
    return {
        "role": status.role,
        "problems": status.problems(),
        "disk_free_bytes": status.disk_free_bytes,
        "disk_reserve_bytes": status.disk_reserve_bytes,
        "writes_refused": status.writes_refused,
    }
