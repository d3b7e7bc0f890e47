"""The dashboard and the alert rules: every metric in them is one that a node really has, and Prometheus takes both."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import subprocess
import urllib.request
from datetime import UTC, datetime, timedelta

import pytest

from raftkv.cli.alerts import ALERTS
from raftkv.durations import DURATION_BOUNDS_S, Durations
from raftkv.kv import KeyValue, KeyValueClient
from raftkv.listener import ServerStats
from raftkv.node.status import ClockStatus, SignInStatus, UpgradeStatus
from raftkv.server import Server
from raftkv.server.metrics import metrics_of
from raftkv.transport.tls import CertificateStatus
from tests.cli.commands import invoke
from tests.cli.test_view import status_of

NOT_OURS = {"up"}
"""Metrics that Prometheus makes itself."""


def metrics_text() -> str:
    """What the leader of a cluster says that has peers, certificates and versions."""
    status = status_of(1, versions=UpgradeStatus(1, 1, 1))
    for peer in status.peers:
        peer.match_index, peer.round_trips = 7, Durations()
    soon = datetime.now(UTC) + timedelta(days=1)
    status.certificates = [CertificateStatus(role="node", name="n1", not_after=soon, expires_s=86_400.0, not_taken="")]
    status.clock = ClockStatus(wall_ms=1, log_time_ms=1, bound_ms=1, doubts=0)
    return metrics_of(lambda: status, ServerStats)().decode()


def names_in(expression: str) -> set[str]:
    """The metrics of an expression."""
    return set(re.findall(r"\b(?:raftkv|process)_\w+|\bup\b", re.sub(r'"[^"]*"', "", expression)))


def expressions() -> list[str]:
    """Everything that the two files ask for."""
    printed = invoke("monitoring", "grafana")
    assert printed.exit_code == 0
    drawn = [target["expr"] for panel in json.loads(printed.stdout)["panels"] for target in panel["targets"]]
    return [*drawn, *(alert.expression for alert in ALERTS)]


def test_every_metric_that_is_asked_for_is_there():
    """A dashboard with a wrong name shows nothing, and an alert on it never comes."""
    there = {re.split(r"[ {]", line)[0] for line in metrics_text().splitlines() if line and line[0] != "#"}
    for expression in expressions():
        names = names_in(expression)
        assert names, expression
        assert names - NOT_OURS <= there, f"{expression}: there is no {names - NOT_OURS - there}"


def promtool() -> str:
    """Debian's package prometheus has it."""
    found = shutil.which("promtool")
    if found is None:
        pytest.skip("promtool is not installed: apt-get install prometheus")
    return found


def test_prometheus_takes_the_rules(tmp_path):
    """Their syntax is checked by the program that reads them."""
    printed = invoke("monitoring", "alerts")
    assert printed.exit_code == 0
    path = tmp_path / "raftkv.yml"
    path.write_text(printed.stdout)
    checked = subprocess.run([promtool(), "check", "rules", str(path)], capture_output=True, text=True, timeout=60)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert f"{len(ALERTS)} rules found" in checked.stdout + checked.stderr


def test_prometheus_takes_what_the_dashboard_asks_for(tmp_path):
    """Each expression is one, as rules are: Grafana's variables have a value there."""
    lines = ["groups:", "  - name: drawn", "    rules:"]
    for at, expression in enumerate(expressions()):
        filled = expression.replace("$__rate_interval", "5m").replace("$job", "raftkv")
        lines += [f"      - record: drawn:{at}", f"        expr: {json.dumps(filled)}"]
    path = tmp_path / "drawn.yml"
    path.write_text("\n".join(lines) + "\n")
    checked = subprocess.run([promtool(), "check", "rules", str(path)], capture_output=True, text=True, timeout=60)
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_the_names_follow_prometheus_conventions():
    """Its own linter finds nothing in what a node says."""
    checked = subprocess.run(
        [promtool(), "check", "metrics"], input=metrics_text(), capture_output=True, text=True, timeout=60
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr


def value(text: str, series: str) -> float:
    """A series of `/metrics`."""
    found = re.search(rf"^{re.escape(series)} (\S+)$", text, re.MULTILINE)
    assert found is not None, f"{series} is not in\n{text}"
    return float(found[1])


def test_a_node_counts_what_it_does(tmp_path):
    """Commits, applies, fsyncs and requests are counted, with how they ended; a rejected command is an outcome too."""

    async def story() -> str:
        async with Server(KeyValue, data_dir=tmp_path / "n", http="127.0.0.1:0") as server:
            running = server._started
            async with KeyValueClient([running.clients]) as client:
                for number in range(5):
                    await client.put(b"k%d" % number, b"v")
                await client.get(b"k1")
                await server.node.orders.take_snapshot()
            return await asyncio.to_thread(read, running.http_port)

    def read(port: int | None) -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=30) as answer:
            return answer.read().decode()

    text = asyncio.run(story())
    assert value(text, 'raftkv_requests_total{kind="command",outcome="ok"}') >= 5
    assert value(text, 'raftkv_request_seconds_count{kind="query"}') >= 1
    for name in ("commit", "apply", "fsync", "snapshot"):
        assert value(text, f"raftkv_{name}_seconds_count") >= 1, name
        assert value(text, f"raftkv_{name}_seconds_sum") > 0, name
    assert value(text, "process_open_fds") > 0


def test_durations_are_counted_within_their_bounds():
    """A bound belongs to its own bucket, and what is longer than all of them to the last."""
    durations = Durations()
    for seconds in (0.0, DURATION_BOUNDS_S[0], DURATION_BOUNDS_S[0] * 1.01, 10_000.0):
        durations.note(seconds)
    copy = durations.so_far()
    durations.note(1.0)
    assert (copy.counts[0], copy.counts[1], copy.counts[-1], sum(copy.counts)) == (2, 1, 1, 4)
    assert copy.seconds == pytest.approx(10_000.001, abs=0.01)


def test_prometheus_takes_the_scrape_configuration(tmp_path):
    """The files that it names are there; with a token, certificates, both or neither."""
    paths = {name: tmp_path / f"it's {name}" for name in ("token-file", "tls-ca", "tls-cert", "tls-key")}
    for path in paths.values():
        path.write_text("")
    mine = [word for name in ("tls-cert", "tls-key") for word in (f"--{name}", str(paths[name]))]
    ca, token = ["--tls-ca", str(paths["tls-ca"])], ["--token-file", str(paths["token-file"])]
    for given in ([], ca, [*ca, *mine], [*ca, *token], [*ca, *mine, *token]):
        printed = invoke("monitoring", "prometheus", *given, "n1.example:9100", "[::1]:9100")
        assert printed.exit_code == 0, printed.output
        for path in (word for word in given if not word.startswith("--")):
            assert json.dumps(path) in printed.stdout
        path = tmp_path / "prometheus.yml"
        path.write_text(printed.stdout)
        command = [promtool(), "check", "config", "--syntax-only", str(path)]
        checked = subprocess.run(command, capture_output=True, text=True, timeout=60)
        assert checked.returncode == 0, checked.stdout + checked.stderr


def test_a_token_is_shown_to_nobody_on_the_way():
    """Forty addresses beyond loopback without HTTPS; and what does not belong together is refused as well."""
    for number in range(1, 41):
        refused = invoke("monitoring", "prometheus", "--token-file", "t", "127.0.0.1:9100", f"10.0.0.{number}:9100")
        assert refused.exit_code != 0 and f"on the way to 10.0.0.{number} could read" in refused.stderr
        assert "scrape_configs" not in refused.stdout
    assert invoke("monitoring", "prometheus", "--token-file", "t", "127.0.0.1:9100", "[::1]:9100").exit_code == 0
    for given, said in (
        (["--tls-cert", "c"], "belong together"),
        (["--tls-cert", "c", "--tls-key", "k"], "give tls_ca"),
        (["http://n1:9100"], "is a URL"),
    ):
        refused = invoke("monitoring", "prometheus", "n1:9100", *given)
        assert refused.exit_code != 0 and said in refused.stderr


def test_who_guesses_is_counted_in_what_a_node_says():
    """What the status knows of sign-ins, and refusals of the cluster secret; zero where nobody has told it."""
    status = status_of(1)
    text = metrics_of(lambda: status, ServerStats)().decode()
    for name in ("sign_ins_slowed", "tokens_ending", "peer_secrets_refused_total"):
        assert value(text, f"raftkv_{name}") == 0
    status.sign_ins, status.secrets_refused = SignInStatus(slowed_count=41, ending_count=2), 3
    text = metrics_of(lambda: status, lambda: ServerStats(sign_ins_delayed=7))().decode()
    for name, number in (("sign_ins_slowed", 41), ("tokens_ending", 2), ("peer_secrets_refused_total", 3)):
        assert value(text, f"raftkv_{name}") == number
    assert value(text, "raftkv_sign_ins_delayed_total") == 7
