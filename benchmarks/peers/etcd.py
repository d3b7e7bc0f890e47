"""etcd as Debian packages it: members with default settings, which fsync before they answer."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Any

from benchmarks.load.spec import Target
from raftkv.processes.ports import free_ports

INSTALL = "apt-get install etcd-server etcd-client"
START_DEADLINE_S = 30.0
QUOTA_BYTES = 8 << 30
"""Of the database; the default of 2 GiB would stop a long run with an alarm."""


def missing() -> str | None:
    """The command that installs it, unless it is installed."""
    return None if shutil.which("etcd") and shutil.which("etcdctl") else INSTALL


class EtcdCluster:
    """Members that serve; as a context manager it leaves nothing behind."""

    name = "etcd"
    target = Target.ETCD

    def __init__(self, size: int = 3) -> None:
        self._directory = tempfile.TemporaryDirectory(prefix="etcd-bench-")
        ports = free_ports(2 * size)
        self.clients = [f"127.0.0.1:{port}" for port in ports[:size]]
        self._peers = [f"127.0.0.1:{port}" for port in ports[size:]]
        self.processes: list[subprocess.Popen[bytes] | None] = [None] * size

    @property
    def directory(self) -> Path:
        return Path(self._directory.name)

    def start(self, at: int) -> None:
        """Start member number `at`."""
        cluster = ",".join(f"m{number}=http://{peer}" for number, peer in enumerate(self._peers))
        with (self.directory / f"m{at}.log").open("ab") as log:
            self.processes[at] = subprocess.Popen(
                [
                    "etcd",
                    f"--name=m{at}",
                    f"--data-dir={self.directory / f'm{at}'}",
                    f"--listen-client-urls=http://{self.clients[at]}",
                    f"--advertise-client-urls=http://{self.clients[at]}",
                    f"--listen-peer-urls=http://{self._peers[at]}",
                    f"--initial-advertise-peer-urls=http://{self._peers[at]}",
                    f"--initial-cluster={cluster}",
                    f"--quota-backend-bytes={QUOTA_BYTES}",
                    "--logger=zap",
                    "--log-level=error",
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def kill(self, at: int) -> None:
        """SIGKILL, and wait for the end."""
        process = self.processes[at]
        if process is not None:
            process.kill()
            process.wait()

    def __enter__(self) -> EtcdCluster:
        for at in range(len(self.processes)):
            self.start(at)
        self.leader()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for at in range(len(self.processes)):
            self.kill(at)
        self._directory.cleanup()

    def control(self, *arguments: str, endpoints: str | None = None, timeout_s: float = 120.0) -> str:
        """What `etcdctl` prints; empty when it fails."""
        done = subprocess.run(
            ["etcdctl", f"--endpoints={endpoints or ','.join(self.clients)}", *arguments],
            capture_output=True,
            text=True,
            timeout=timeout_s,
            env={"ETCDCTL_API": "3", "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
            check=False,
        )
        return done.stdout

    def own_benchmark(self, load: str = "xl") -> float:
        """Writes a second by `etcdctl check perf`, which takes a minute; 0 when it says nothing.

        It asks for at most so many: 150 (s), 1,000 (m), 8,000 (l) or 15,000 (xl).
        """
        found = re.search(r"(?:Throughput is|Throughput too low:) ([\d.]+) writes/s", self.check_perf(load))
        return float(found[1]) if found else 0.0

    def check_perf(self, load: str) -> str:
        """All that `etcdctl check perf` says."""
        return self.control("check", "perf", f"--load={load}", endpoints=self.addresses(leader=True)[0])

    def leader(self, deadline_s: float = START_DEADLINE_S) -> int:
        """The number of the member that leads; raises `TimeoutError` when there is none in time."""
        end = time.monotonic() + deadline_s
        while time.monotonic() < end:
            for at, address in enumerate(self.clients):
                process = self.processes[at]
                if process is None or process.poll() is not None:
                    continue
                text = self.control("endpoint", "status", "-w", "json", endpoints=address)
                status: dict[str, Any] = json.loads(text)[0]["Status"] if text.strip() else {}
                if status.get("leader") and status["leader"] == status["header"]["member_id"]:
                    return at
            time.sleep(0.1)
        raise TimeoutError(f"etcd has no leader within {deadline_s:g} s")

    def addresses(self, *, leader: bool) -> list[str]:
        """The leader's client address, or those of all others."""
        found = self.leader()
        return [address for at, address in enumerate(self.clients) if (at == found) == leader]

    def pids(self) -> list[int]:
        """The processes, the leader's first."""
        found = self.leader()
        order = [found, *(at for at in range(len(self.processes)) if at != found)]
        return [process.pid for at in order if (process := self.processes[at]) is not None]
