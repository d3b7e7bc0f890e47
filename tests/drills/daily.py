"""Drills of every day: restarts, certificates, and finding out what is the matter."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from tests.chaos import certificates, syscalls
from tests.chaos.certificates import Authority
from tests.chaos.host import CLOCK, MODULE, HostClock, say
from tests.drills.drill import Drill
from tests.drills.etcds import EtcdNodes
from tests.drills.nodes import Nodes
from tests.drills.ours import OurNodes
from tests.drills.terminal import DrillFailed

VALID_S = 40.0
"""As long as a certificate is valid: nodes have to come up with it, and it has to run out."""

SLOW_S = 0.4
"""What a slow disk takes for each sync; less than an election's time-out, so that nobody is deposed for it."""

WRITE_S = 5.0


def rolling_restart(nodes: Nodes) -> None:
    """As for an upgrade."""
    nodes.found()
    nodes.terminal.trouble()
    _restart(nodes)


def _restart(nodes: Nodes) -> None:
    """Stop each node, start it, and wait until it answers."""
    for number in nodes.founders:
        nodes.stop(number)
        nodes.serve(number)
        nodes.all_up()
    nodes.served()


def our_setting(nodes: OurNodes) -> None:
    """While nodes run, and for their next starts."""
    nodes.found()
    nodes.terminal.trouble()
    nodes.terminal.type("raftkv", "config", "set", "snapshot_entries=20000", "--all")
    nodes.served()


def etcds_setting(nodes: EtcdNodes) -> None:
    """A setting is said at a start."""
    nodes.more = ["--snapshot-count", "10000"]
    nodes.found()
    nodes.terminal.trouble()
    nodes.more = ["--snapshot-count", "20000"]
    _restart(nodes)


def our_check(nodes: OurNodes) -> None:
    """Is all well before an upgrade, and who runs what?"""
    nodes.found()
    nodes.terminal.trouble()
    nodes.terminal.type("raftkv", "doctor")
    nodes.terminal.relief()


def etcds_check(nodes: EtcdNodes) -> None:
    """The same questions."""
    nodes.found()
    nodes.terminal.trouble()
    nodes.terminal.type("etcdctl", "endpoint", "health", "--cluster")
    nodes.terminal.type("etcdctl", "endpoint", "status", "--cluster")
    nodes.terminal.type("etcdctl", "alarm", "list")
    nodes.terminal.relief()


def our_status(nodes: OurNodes) -> None:
    """A table."""
    nodes.found()
    nodes.terminal.trouble()
    _shows(nodes.terminal.type("raftkv", "status"), "leader")
    nodes.terminal.relief()


def etcds_status(nodes: EtcdNodes) -> None:
    """A table, too."""
    nodes.found()
    nodes.terminal.trouble()
    _shows(nodes.terminal.type("etcdctl", "endpoint", "status", "--cluster", "--write-out", "table"), "true")
    nodes.terminal.relief()


def _shows(said: str, word: str) -> None:
    if word not in said:
        raise DrillFailed(f"no {word!r} in {said}")


def our_silent_node(nodes: OurNodes) -> None:
    """Which one, and what to do."""
    nodes.found()
    nodes.kill(3)
    nodes.terminal.trouble()
    _shows(nodes.terminal.complaint("raftkv", "doctor") or "", "node 3")
    nodes.terminal.relief()


def etcds_silent_node(nodes: EtcdNodes) -> None:
    """Which one."""
    nodes.found()
    nodes.kill(3)
    nodes.terminal.trouble()
    _shows(nodes.terminal.complaint("etcdctl", "endpoint", "health", "--cluster") or "", nodes.client(3))
    nodes.terminal.relief()


def run_out(nodes: Nodes) -> None:
    """All nodes show one certificate, which has run out: node 3 was restarted, and nobody lets it in any more."""
    authority = Authority(nodes.terminal.directory / "tls")
    began = time.monotonic()
    authority.issue("node", days=VALID_S / 86_400)
    nodes.speak_tls(authority, *authority.issue("operator"))
    nodes.found()
    authority.issue("new")
    nodes.until(lambda: time.monotonic() - began > VALID_S + 1, "the certificate has run out")
    nodes.kill(3)
    nodes.serve(3)
    nodes.terminal.trouble()
    nodes.terminal.type("cp", "tls/new.key", "tls/node.key")
    nodes.terminal.type("cp", "tls/new.pem", "tls/node.pem")
    nodes.all_up()
    nodes.served()


def no_slow_disks() -> str | None:
    """Why no slow disk can be made and found here; None when it can."""
    return syscalls.missing() or (None if shutil.which("curl") else "curl is not installed")


@contextmanager
def _slow_disk(nodes: Nodes, calls: str) -> Iterator[int]:
    """Each sync of a node that follows takes long, while somebody writes again and again; gives that node."""
    nodes.found()
    slow = next(number for number in nodes.founders if number != nodes.leader())
    report = nodes.terminal.directory / "strace"
    nodes.terminal.start(
        *("strace", "-f", "-o", "strace", "-e", f"trace={calls}"),
        *("-e", f"inject={calls}:delay_enter={int(SLOW_S * 1e6)}", "-p", str(nodes.running[slow].pid)),
        log="tracer.log",
    )
    over = threading.Event()

    def write() -> None:
        while not over.is_set():
            nodes.takes("k/slow", "3", WRITE_S)

    def is_slow() -> bool:
        return report.exists() and report.read_text(errors="replace").count("(DELAYED)") >= 10

    writer = threading.Thread(target=write)
    writer.start()
    try:
        nodes.until(is_slow, f"ten slow syncs of node {slow}")
        nodes.terminal.trouble()
        yield slow
    finally:
        over.set()
        writer.join()


def our_slow_disk(nodes: OurNodes) -> None:
    """Named, with what to do."""
    with _slow_disk(nodes, "pwritev2,fdatasync,fsync") as slow:
        _shows(nodes.terminal.complaint("raftkv", "doctor") or "", f"the disk of node {slow} is slow")
        nodes.terminal.relief()


def etcds_slow_disk(nodes: EtcdNodes) -> None:
    """By the metrics of each member, which have to be compared."""
    with _slow_disk(nodes, "fdatasync,fsync") as slow:
        means = {}
        for number in nodes.founders:
            said = nodes.terminal.type("curl", "-s", nodes.client(number) + "/metrics")
            found = {
                name: float(line.split()[-1])
                for line in said.splitlines()
                for name in ("sum", "count")
                if line.startswith(f"etcd_disk_wal_fsync_duration_seconds_{name}")
            }
            means[number] = found["sum"] / found["count"]
        if max(means, key=lambda number: means[number]) != slow:
            raise DrillFailed(f"the slow disk of member {slow} can't be seen: {means}")
        nodes.terminal.relief()


def our_wrong_clock(nodes: OurNodes) -> None:
    """Whose, and by how much."""
    said = nodes.terminal.directory / "clock.json"
    say(said, HostClock(ahead_ms=60_000))
    nodes.elsewhere[3] = (MODULE, {CLOCK: str(said)})
    nodes.found()
    nodes.until(
        lambda: any(peer.get("clock_offset_ms") for peer in nodes.status(nodes.leader())["peers"]), "clocks known"
    )
    nodes.terminal.trouble()
    _shows(nodes.terminal.complaint("raftkv", "doctor") or "", "node 3")
    nodes.terminal.relief()


DRILLS = (
    Drill("rolling-restart", "all nodes are restarted, one after the other", rolling_restart, rolling_restart),
    Drill("setting", "a setting shall change on all nodes: how often snapshots are taken", our_setting, etcds_setting),
    Drill("check", "is all well before an upgrade, and who runs what?", our_check, etcds_check),
    Drill("status", "who leads, and how far is each?", our_status, etcds_status),
    Drill("node-silent", "which node is down?", our_silent_node, etcds_silent_node),
    Drill(
        "certificate",
        "certificates have run out, and new ones are there",
        run_out,
        run_out,
        missing=certificates.missing,
    ),
    Drill("slow-disk", "which disk is slow?", our_slow_disk, etcds_slow_disk, missing=no_slow_disks),
    Drill(
        "clock",
        "whose clock is wrong?",
        our_wrong_clock,
        None,
        note="etcd 3.4 has no command for that, and a line in a log at most",
    ),
)
