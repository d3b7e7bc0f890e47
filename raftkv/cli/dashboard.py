"""A dashboard for Grafana, on the metrics of `/metrics`."""

from __future__ import annotations

from typing import Any, NamedTuple


class Panel(NamedTuple):
    """A diagram: its title, its unit as Grafana calls it, and what is drawn, with the legend of each."""

    title: str
    unit: str
    drawn: tuple[tuple[str, str], ...]


WHERE = '{job=~"$job"}'
NODE = "{{instance}}"
LINK = "{{instance}} → {{peer}}"


def _quantiles(name: str, by: str, legend: str) -> tuple[tuple[str, str], ...]:
    """The median and the 99th percentile of a histogram."""
    return tuple(
        (
            f"histogram_quantile({q}, sum(rate({name}_bucket{WHERE}[$__rate_interval])) by ({by}, le))",
            f"{legend} {text}",
        )
        for q, text in ((0.5, "median"), (0.99, "99 %"))
    )


def _rate(name: str, by: str) -> str:
    return f"sum(rate({name}{WHERE}[$__rate_interval])) by ({by})"


def _each(*drawn: tuple[str, str]) -> tuple[tuple[str, str], ...]:
    """Metrics as they are, each with its legend."""
    return tuple((f"{name}{WHERE}", legend) for name, legend in drawn)


PANELS = (
    Panel("Leader", "short", _each(("raftkv_is_leader", NODE))),
    Panel("Term", "short", _each(("raftkv_term", NODE))),
    Panel("Commits", "ops", ((f"max(rate(raftkv_commit_index{WHERE}[$__rate_interval]))", "entries"),)),
    Panel("Requests", "reqps", ((_rate("raftkv_requests_total", "kind, outcome"), "{{kind}} {{outcome}}"),)),
    Panel("Request latency", "s", _quantiles("raftkv_request_seconds", "kind", "{{kind}}")),
    Panel("Commit latency", "s", _quantiles("raftkv_commit_seconds", "instance", NODE)),
    Panel("Fsync", "s", _quantiles("raftkv_fsync_seconds", "instance", NODE)),
    Panel("Apply", "s", _quantiles("raftkv_apply_seconds", "instance", NODE)),
    Panel("Round trip", "s", _quantiles("raftkv_peer_round_trip_seconds", "instance, peer", LINK)),
    Panel("Behind the leader", "short", _each(("raftkv_peer_lag_entries", "node {{peer}}"))),
    Panel("Committed and not applied", "short", ((f"raftkv_commit_index{WHERE} - raftkv_applied_index{WHERE}", NODE),)),
    Panel("Sent to peers", "Bps", ((_rate("raftkv_peer_sent_bytes_total", "instance, peer"), LINK),)),
    Panel(
        "Disk free", "bytes", _each(("raftkv_disk_free_bytes", NODE), ("raftkv_disk_reserve_bytes", f"{NODE} reserve"))
    ),
    Panel(
        "Log and state", "bytes", _each(("raftkv_log_bytes", f"{NODE} log"), ("raftkv_state_bytes", f"{NODE} state"))
    ),
    Panel("Snapshots", "s", _quantiles("raftkv_snapshot_seconds", "instance", NODE)),
    Panel("Snapshot transfers", "s", _quantiles("raftkv_transfer_seconds", "instance", NODE)),
    Panel("Sessions", "short", ((f"max(raftkv_sessions{WHERE})", "sessions"),)),
    Panel("Connections of clients", "short", _each(("raftkv_client_connections", NODE))),
    Panel(
        "Waiting requests",
        "short",
        _each(("raftkv_waiting_requests", NODE), ("raftkv_parked_requests", f"{NODE} parked")),
    ),
    Panel(
        "Sign-ins",
        "ops",
        (
            (_rate("raftkv_sign_ins_total", "instance"), NODE),
            (_rate("raftkv_sign_ins_failed_total", "instance"), f"{NODE} wrong"),
            (_rate("raftkv_sign_ins_delayed_total", "instance"), f"{NODE} not tried"),
        ),
    ),
    Panel(
        "Refused for who sends it",
        "reqps",
        (
            (_rate("raftkv_requests_unauthenticated_total", "instance"), f"{NODE} not signed in"),
            (_rate("raftkv_requests_forbidden_total", "instance"), f"{NODE} no right"),
            (_rate("raftkv_peer_secrets_refused_total", "instance"), f"{NODE} cluster secret"),
        ),
    ),
    Panel(
        "Users that wait, tokens that end",
        "short",
        _each(("raftkv_sign_ins_slowed", f"{NODE} wait"), ("raftkv_tokens_ending", f"{NODE} end")),
    ),
    Panel("Elections won", "short", ((f"increase(raftkv_elections_won_total{WHERE}[$__rate_interval])", NODE),)),
    Panel("Processor", "percentunit", ((f"rate(process_cpu_seconds_total{WHERE}[$__rate_interval])", NODE),)),
    Panel("Memory", "bytes", _each(("process_resident_memory_bytes", NODE))),
    Panel("Open files", "short", _each(("process_open_fds", NODE))),
)
"""In this order, three in a row."""

SOURCE = {"type": "prometheus", "uid": "${source}"}


def dashboard() -> dict[str, Any]:
    """What Grafana imports: it asks for the source of data, and for the job whose nodes are shown."""
    return {
        "title": "raftkv",
        "uid": "raftkv",
        "tags": ["raftkv"],
        "schemaVersion": 39,
        "refresh": "10s",
        "time": {"from": "now-1h", "to": "now"},
        "templating": {
            "list": [
                {"name": "source", "label": "Source", "type": "datasource", "query": "prometheus"},
                {
                    "name": "job",
                    "label": "Job",
                    "type": "query",
                    "datasource": SOURCE,
                    "query": "label_values(raftkv_term, job)",
                    "refresh": 2,
                    "multi": True,
                    "includeAll": True,
                },
            ]
        },
        "panels": [_panel(at, panel) for at, panel in enumerate(PANELS)],
    }


def _panel(at: int, panel: Panel) -> dict[str, Any]:
    return {
        "id": at + 1,
        "type": "timeseries",
        "title": panel.title,
        "datasource": SOURCE,
        "gridPos": {"h": 8, "w": 8, "x": 8 * (at % 3), "y": 8 * (at // 3)},
        "fieldConfig": {"defaults": {"unit": panel.unit, "min": 0}, "overrides": []},
        "targets": [
            {"refId": chr(ord("A") + place), "expr": expression, "legendFormat": legend, "datasource": SOURCE}
            for place, (expression, legend) in enumerate(panel.drawn)
        ],
    }
