"""A node's status as Prometheus metrics. The only module that knows prometheus_client."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import accumulate

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from raftkv.durations import DURATION_BOUNDS_S, Durations
from raftkv.listener import ServerStats
from raftkv.machine import BOUNDS_S
from raftkv.node.status import NodeStatus, TimerStatus

StatusSource = Callable[[], NodeStatus | None]


def metrics_of(source: StatusSource, requests: Callable[[], ServerStats] = ServerStats) -> Callable[[], bytes]:
    """Gives the text of `/metrics`, from one look at the node each time."""
    registry = CollectorRegistry()
    registry.register(NodeCollector(source, requests))
    ProcessCollector(registry=registry)
    return lambda: generate_latest(registry)


class NodeCollector(Collector):
    """A node's status as Prometheus metrics."""

    def __init__(self, source: StatusSource, requests: Callable[[], ServerStats] = ServerStats) -> None:
        self._source = source
        self._requests = requests

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
            "parked_requests": ("Requests that wait until something changes", status.parked_requests),
            "sessions": ("Sessions of clients that are open", status.sessions),
            "sessions_limit": ("Sessions that may be open", status.sessions_max),
            "uptime_seconds": ("Seconds since the node was started", status.uptime_s),
            "misplaced": (
                "1 when the membership sends others to where it does not listen",
                int(bool(status.misplaced)),
            ),
            "damaged_files": ("Damaged snapshots and files found and not mended", len(status.damaged)),
            "states_doubted": ("1 on a leader that serves nothing as replicas differ", int(status.doubt is not None)),
            "sign_ins_slowed": (
                "Users and places that have to wait as too many passwords of theirs were wrong",
                status.sign_ins.slowed_count if status.sign_ins is not None else 0,
            ),
            "tokens_ending": (
                "Users whose last token ends within three days, or has within one",
                status.sign_ins.ending_count if status.sign_ins is not None else 0,
            ),
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
            "peer_secrets_refused": ("Handshakes refused for a wrong cluster secret", status.secrets_refused),
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
        yield from _methods(status)
        yield from _durations(status)
        yield from _peers(status)
        yield from _requests(self._requests())
        if status.timers is not None:
            yield from _timers(status.timers)
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


def _methods(status: NodeStatus) -> Iterable[Metric]:
    """What commands and queries take: a series for each method of the class that has run, and no other."""
    seconds = HistogramMetricFamily(
        "raftkv_method_seconds", "What runs of a command or query took on this node", labels=["method", "kind"]
    )
    raised = CounterMetricFamily("raftkv_method_raised", "Runs that ended with its own exception", labels=["method"])
    slow = CounterMetricFamily("raftkv_method_slow", "Runs that took more than 100 ms", labels=["method", "line"])
    for name, time in status.methods.items():
        bounds = [*(repr(bound) for bound in BOUNDS_S), "+Inf"]
        seconds.add_metric([name, time.kind], list(zip(bounds, accumulate(time.counts), strict=True)), time.seconds)
        raised.add_metric([name], time.raised)
        slow.add_metric([name, time.line], time.slow)
    yield seconds
    yield raised
    yield slow


DURATION_TEXTS = {
    "commit": "From the proposal of a batch of commands until it was committed and durable here (leader only)",
    "apply": "What it took to apply a batch of entries",
    "fsync": "What it took to make a batch durable",
    "snapshot": "What it took to take a snapshot",
    "install": "What it took to install a snapshot",
    "transfer": "What it took to send a snapshot to another node",
}


def _buckets(durations: Durations) -> list[tuple[str, float]]:
    bounds = [*(repr(bound) for bound in DURATION_BOUNDS_S), "+Inf"]
    return list(zip(bounds, accumulate(durations.counts), strict=True))


def _durations(status: NodeStatus) -> Iterable[Metric]:
    for name, text in DURATION_TEXTS.items():
        took = status.took.get(name, Durations())
        yield HistogramMetricFamily(f"raftkv_{name}_seconds", text, buckets=_buckets(took), sum_value=took.seconds)


def _peers(status: NodeStatus) -> Iterable[Metric]:
    """What goes to and fro between nodes."""
    sent = CounterMetricFamily("raftkv_peer_sent_bytes", "Bytes sent to a peer", labels=["peer"])
    received = CounterMetricFamily("raftkv_peer_received_bytes", "Bytes received from a peer", labels=["peer"])
    trips = HistogramMetricFamily("raftkv_peer_round_trip_seconds", "Round trips of pings to a peer", labels=["peer"])
    for peer in status.peers:
        sent.add_metric([str(peer.node_id)], peer.sent_bytes)
        received.add_metric([str(peer.node_id)], peer.received_bytes)
        if peer.round_trips is not None:
            trips.add_metric([str(peer.node_id)], _buckets(peer.round_trips), peer.round_trips.seconds)
    yield from (sent, received, trips)


def _requests(stats: ServerStats) -> Iterable[Metric]:
    """What clients have asked for, how it ended and how long that took; the kinds and ends are few and fixed."""
    seconds = HistogramMetricFamily(
        "raftkv_request_seconds", "From a request's arrival until its outcome was answered", labels=["kind"]
    )
    ends = CounterMetricFamily("raftkv_requests", "Requests by how they ended", labels=["kind", "outcome"])
    results = {"rejected", "session_expired", "stale_duplicate"}
    outcomes = dict(stats.outcomes)
    for kind, durations in (("command", stats.commands), ("query", stats.queries)):
        seconds.add_metric([kind], _buckets(durations), durations.seconds)
        others = sum(number for (of, how), number in outcomes.items() if of == kind and how in results)
        ends.add_metric([kind, "ok"], sum(durations.counts) - others)
    for (kind, how), number in sorted(outcomes.items()):
        ends.add_metric([kind, how], number)
    yield from (seconds, ends)
    yield GaugeMetricFamily(
        "raftkv_client_connections", "Connections of clients that are open", value=stats.connections
    )
    yield CounterMetricFamily(
        "raftkv_client_connections_refused", "Connections over the limit", value=stats.connections_refused
    )
    for name, text, number in (
        ("requests_forbidden", "Requests of users who have no right to them", stats.forbidden),
        ("requests_unauthenticated", "Requests of nobody, where users have to sign in", stats.unauthenticated),
        ("sign_ins", "Clients that have signed in by a password or token", stats.sign_ins),
        ("sign_ins_failed", "Clients that have shown a wrong password or token", stats.sign_ins_failed),
        ("sign_ins_delayed", "Those that were not tried, as too many before them were wrong", stats.sign_ins_delayed),
    ):
        yield CounterMetricFamily(f"raftkv_{name}", text, value=number)


def _timers(timers: TimerStatus) -> Iterable[Metric]:
    yield GaugeMetricFamily(
        "raftkv_timers_waiting", "Scheduled commands that wait for their time", value=timers.waiting
    )
    yield CounterMetricFamily("raftkv_timers_fired", "Scheduled commands that were run", value=timers.fired)
    yield CounterMetricFamily("raftkv_timers_failed", "Scheduled commands that raised", value=timers.failed)
