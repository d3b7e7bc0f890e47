"""`raftkv serve` as a process: how it starts, refuses to, and ends."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import urllib.error
import urllib.request

import pytest

from raftkv.processes.cluster import NodeProcess, ProcessCluster
from raftkv.processes.ports import free_ports
from tests.cli.commands import invoke, when_led


@pytest.fixture
def cluster(tmp_path):
    """A node that is not started yet."""
    with ProcessCluster(tmp_path, 1) as cluster:
        yield cluster


@pytest.fixture
def node(cluster):
    """The node of it."""
    return cluster.nodes[1]


def put(node: NodeProcess, key: str, value: str) -> None:
    """Wait until the node has taken a write; it may still be starting."""
    assert invoke("put", key, value, "-a", node.member.client_address, "--timeout", "30").exit_code == 0


def get(node: NodeProcess, key: str) -> str:
    """What the node has."""
    return invoke("get", key, "-a", node.member.client_address, "--timeout", "30").stdout


def serve(*arguments: str, **settings):
    """Run `raftkv serve` until it ends by itself."""
    command = [sys.executable, "-m", "raftkv", "serve", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=30, check=False, **settings)


def test_a_node_that_is_killed_has_what_it_acknowledged(node):
    """SIGKILL after an acknowledgement, start, and it is there."""
    node.start()
    for turn in range(3):
        put(node, "turn", str(turn))
        node.kill()
        node.start()
        assert get(node, "turn") == f"{turn}\n"


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT"])
def test_a_signal_ends_it_gracefully(node, name):
    """Exit code 0, files closed; the next start has everything."""
    node.start()
    put(node, "a", "1")
    node.signal(getattr(signal, name))
    assert node.process.wait(20) == 0
    assert "node_stopped" in node.log_path.read_text()
    node.start()
    assert get(node, "a") == "1\n"


def test_a_data_directory_says_which_cluster_it_is_of(node, tmp_path):
    """Started again it needs no members; but not under another id, nor with other members."""
    node.start()
    put(node, "a", "1")
    assert node.terminate() == 0
    other = serve("--data-dir", node.data_dir, "--node-id", "2")
    assert other.returncode == 5
    assert "belongs to node 1, not to node 2" in other.stderr
    strange = serve("--data-dir", node.data_dir, "--member", "1=127.0.0.1:1/127.0.0.1:2")
    assert strange.returncode == 5
    assert "belongs to the cluster" in strange.stderr
    member = node.member
    node.arguments = ["--data-dir", node.data_dir, "--listen", member.client_address]
    node.arguments += ["--peer-listen", member.peer_address]
    node.start()
    assert get(node, "a") == "1\n"


def test_two_processes_do_not_share_a_data_directory(node):
    """The second one ends with what to do."""
    node.start()
    put(node, "a", "1")
    second = serve("--data-dir", node.data_dir, "--listen", "127.0.0.1:0", "--peer-listen", "127.0.0.1:0")
    assert second.returncode == 5
    assert "another process uses this data directory" in second.stderr


def test_an_address_that_is_taken_is_named(node, tmp_path):
    """With the setting, and where it came from."""
    node.start()
    put(node, "a", "1")
    (port,) = free_ports(1)
    taken = serve(
        *("--data-dir", str(tmp_path / "other"), "--listen", node.member.client_address),
        *("--peer-listen", f"127.0.0.1:{port}"),
    )
    assert taken.returncode == 2
    assert f"listen = '{node.member.client_address}' (from --listen)" in taken.stderr
    assert not (tmp_path / "other").exists(), "nothing was founded"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--node-id", "x"), "node_id = 'x' (from --node-id)"),
        (("--set", "tick_ms=0"), "tick_ms = 0"),
        (
            ("--machine", "nowhere:Machine"),
            "machine = 'nowhere:Machine': ModuleNotFoundError: No module named 'nowhere'",
        ),
        (("--machine", "raftkv.kv"), "must be module:Class"),
        (("--machine", "raftkv.kv:Item"), "Item in raftkv.kv is no StateMachine"),
        (("--config", "nowhere.toml"), "nowhere.toml: No such file"),
        (("--tls-ca", "ca.pem"), "all three are needed"),
        (("--listen", "0.0.0.0:7001"), "no address that others could use"),
        (("--listen", "10.1.2.3:7001"), "listen = '10.1.2.3:7001' (from --listen) is no loopback address"),
        (("--peer-listen", "10.1.2.3:7001"), "peer_listen = '10.1.2.3:7001' (from --peer-listen) is no loopback"),
        (("--peer-secret-file", "nowhere"), "peer_secret_file = 'nowhere': No such file"),
        (("--tls-peer-names", "any"), "tls_peer_names = ('any',): needs tls_ca"),
        (("--member", "1=127.0.0.1:18001/127.0.0.1:17001", "--member", "1=127.0.0.1:2/127.0.0.1:1"), "members: "),
        (("--nonsense",), "No such option"),
    ],
)
def test_a_wrong_setting_ends_it_before_it_touches_anything(arguments, said, tmp_path, monkeypatch):
    """Exit code 2, one line that says what to change, and no data directory."""
    monkeypatch.chdir(tmp_path)
    result = invoke("serve", *arguments)
    assert result.exit_code == 2
    assert said in result.stderr
    assert not list(tmp_path.iterdir())


def test_damage_ends_it_with_what_to_do(node, tmp_path):
    """A record in the middle of the log is broken: it does not start, and does not start empty (F9)."""
    node.start()
    for turn in range(5):
        put(node, "a", str(turn))
    node.kill()
    (segment,) = (tmp_path / "n1" / "log").glob("*.log")
    content = bytearray(segment.read_bytes())
    content[600] ^= 1
    segment.write_bytes(content)
    result = serve(*node.arguments)
    assert result.returncode == 5
    assert "Corruption" in result.stderr and "under a new id" in result.stderr


def test_metrics_and_health_are_on_a_port_of_their_own(node):
    """Off unless asked for; Prometheus can read them, and a load balancer can ask."""
    (port,) = free_ports(1)
    node.start("--http", f"127.0.0.1:{port}")
    put(node, "a", "1")

    def fetch(path: str) -> tuple[int, str]:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=20) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()

    code, metrics = fetch("/metrics")
    assert code == 200
    assert "raftkv_is_leader 1.0" in metrics and "raftkv_applied_index" in metrics
    assert fetch("/health")[0] == fetch("/ready")[0] == 200
    assert json.loads(fetch("/status")[1])["role"] == "leader"
    assert fetch("/nowhere")[0] == 404
    ready = json.loads(fetch("/ready")[1])
    assert ready["disk_free_bytes"] > ready["disk_reserve_bytes"] > 0 and ready["writes_refused"] is None
    assert "raftkv_disk_reserve_bytes" in metrics and "raftkv_writes_refused 0.0" in metrics
    assert node.terminate() == 0


def test_the_log_can_be_json(node):
    """An object a line, with fields instead of sentences; the level is kept."""
    node.start("--log-json", "--log-level", "info")
    put(node, "a", "1")
    assert node.terminate() == 0
    events = [json.loads(line) for line in node.log_path.read_text().splitlines()]
    started = next(event for event in events if event["event"] == "node_started")
    assert started["node"] == 1 and "term" in started and started["level"] == "info"


def test_a_machine_of_ones_own(node, tmp_path):
    """Found in the working directory, as one's own code is; the key-value commands do not fit it."""
    (tmp_path / "shop.py").write_text(
        "from raftkv.machine import StateMachine, Value, command\n\n"
        "class Shop(StateMachine):\n    sold = Value(int, 0)\n\n"
        "    @command\n    def sell(self) -> int:\n        self.sold.set(self.sold.get() + 1)\n        return 1\n"
    )
    node.environment["PYTHONPATH"] = str(tmp_path)
    node.environment |= {"RAFTKV_MACHINE": "shop:Shop"}
    node.start()
    assert when_led(node)["machine"].startswith("Shop/")
