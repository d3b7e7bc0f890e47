"""Alert rules for Prometheus, on the metrics of `/metrics`."""

from __future__ import annotations

import json
from typing import NamedTuple


class Alert(NamedTuple):
    """A rule: what is wrong when its expression has a value for so long."""

    name: str
    expression: str
    lasting: str
    severity: str
    summary: str


ALERTS = (
    Alert("RaftkvStopped", "raftkv_stopped == 1", "0m", "critical", "{{ $labels.instance }} has stopped itself"),
    Alert("RaftkvNodeDown", 'up{job=~".*raftkv.*"} == 0', "1m", "critical", "{{ $labels.instance }} does not answer"),
    Alert("RaftkvNoLeader", "max(raftkv_has_leader) by (job) == 0", "30s", "critical", "no node knows a leader"),
    Alert("RaftkvReplicasDoubted", "raftkv_states_doubted == 1", "0m", "critical", "replicas differ: nothing served"),
    Alert("RaftkvWritesRefused", "raftkv_writes_refused == 1", "1m", "critical", "the leader refuses writes"),
    Alert(
        "RaftkvErrors",
        'sum(rate(raftkv_requests_total{outcome=~"Unavailable|Indeterminate|Busy|DiskLow"}[5m])) by (job) '
        "> 0.05 * sum(rate(raftkv_requests_total[5m])) by (job)",
        "5m",
        "warning",
        "more than 5 % of requests are not served",
    ),
    Alert(
        "RaftkvSignInsFail",
        "sum(increase(raftkv_sign_ins_delayed_total[15m])) by (job) > 100",
        "0m",
        "warning",
        "somebody tries many passwords",
    ),
    Alert(
        "RaftkvSignInsSlowed",
        "max(raftkv_sign_ins_slowed) by (job) > 0",
        "15m",
        "warning",
        "users or places have to wait, as their passwords or tokens are wrong again and again",
    ),
    Alert(
        "RaftkvTokensEnd",
        "max(raftkv_tokens_ending) by (job) > 0",
        "1h",
        "warning",
        "the last token of {{ $value }} users ends within three days",
    ),
    Alert(
        "RaftkvSecretRefused",
        "increase(raftkv_peer_secrets_refused_total[5m]) > 0",
        "2m",
        "warning",
        "{{ $labels.instance }} refuses who dials it as a node, for a wrong cluster secret",
    ),
    Alert(
        "RaftkvLeaderChanges",
        "sum(increase(raftkv_elections_won_total[15m])) by (job) > 3",
        "0m",
        "warning",
        "the leader changes again and again",
    ),
    Alert("RaftkvFollowerBehind", "raftkv_peer_lag_entries > 50000", "5m", "warning", "{{ $labels.peer }} is behind"),
    Alert("RaftkvPeerUnreached", "raftkv_peer_connected == 0", "2m", "warning", "{{ $labels.peer }} is not reached"),
    Alert(
        "RaftkvApplyBehind",
        "raftkv_commit_index - raftkv_applied_index > 10000",
        "2m",
        "warning",
        "{{ $labels.instance }} applies more slowly than is committed",
    ),
    Alert(
        "RaftkvDiskSlow",
        "histogram_quantile(0.99, sum(rate(raftkv_fsync_seconds_bucket[5m])) by (instance, le)) > 0.5",
        "5m",
        "warning",
        "the disk of {{ $labels.instance }} takes more than 0.5 s for a write",
    ),
    Alert(
        "RaftkvCommitSlow",
        "histogram_quantile(0.99, sum(rate(raftkv_commit_seconds_bucket[5m])) by (instance, le)) > 1",
        "5m",
        "warning",
        "commits take more than a second",
    ),
    Alert("RaftkvDiskLow", "raftkv_disk_low == 1", "1m", "warning", "the disk is nearly full"),
    Alert(
        "RaftkvDiskFills",
        "predict_linear(raftkv_disk_free_bytes[6h], 86400) < raftkv_disk_reserve_bytes",
        "1h",
        "warning",
        "the disk of {{ $labels.instance }} is full within a day",
    ),
    Alert("RaftkvDamagedFiles", "raftkv_damaged_files > 0", "0m", "warning", "{{ $labels.instance }} found damage"),
    Alert(
        "RaftkvCertificateExpires",
        "raftkv_certificate_expiry_timestamp_seconds - time() < 14 * 86400",
        "1h",
        "warning",
        "the certificate of {{ $labels.name }} runs out",
    ),
    Alert("RaftkvClockDoubted", "raftkv_clock_is_doubted == 1", "1m", "warning", "the leader doubts its clock"),
    Alert("RaftkvSessionsFull", "raftkv_sessions > 0.9 * raftkv_sessions_limit", "5m", "warning", "sessions run out"),
    Alert("RaftkvUpgradeFailed", "raftkv_upgrade_failed == 1", "0m", "warning", "an upgrade of the application failed"),
    Alert(
        "RaftkvFilesRunOut",
        "process_open_fds > 0.9 * process_max_fds and on (instance) raftkv_term",
        "5m",
        "warning",
        "{{ $labels.instance }} has nearly all the files open that it may",
    ),
    Alert("RaftkvLogLinesLost", "increase(raftkv_log_lines_lost_total[5m]) > 0", "0m", "warning", "log lines are lost"),
)


def alert_rules() -> str:
    """The rules as YAML, the worst first. Texts are written as JSON has them, which is YAML too."""
    lines = [
        "# Made by `raftkv monitoring alerts`. Name the file in rule_files of prometheus.yml.",
        "groups:",
        "  - name: raftkv",
        "    rules:",
    ]
    for alert in ALERTS:
        lines += [
            f"      - alert: {alert.name}",
            f"        expr: {json.dumps(alert.expression)}",
            f"        for: {alert.lasting}",
            "        labels:",
            f"          severity: {alert.severity}",
            "        annotations:",
            f"          summary: {json.dumps(alert.summary)}",
            '          description: "What to do: raftkv doctor -a ADDRESS, or the page that each node serves."',
        ]
    return "\n".join(lines) + "\n"
