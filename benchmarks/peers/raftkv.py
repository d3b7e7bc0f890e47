"""Our own cluster: `raftkv serve` processes with default settings."""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from benchmarks.load.spec import Target
from raftkv.client import Admin
from raftkv.errors import RaftKVError
from raftkv.processes.cluster import NodeProcess, ProcessCluster

START_DEADLINE_S = 30.0


class RaftkvCluster:
    """Nodes that serve; as a context manager it leaves nothing behind."""

    name = "raftkv"
    target = Target.RAFTKV

    def __init__(self, size: int = 3, *, arguments: Sequence[str] = ()) -> None:
        self._directory = tempfile.TemporaryDirectory(prefix="raftkv-bench-")
        self.processes = ProcessCluster(self._directory.name, size, arguments=arguments)

    @property
    def directory(self) -> Path:
        return Path(self._directory.name)

    def __enter__(self) -> RaftkvCluster:
        self.processes.start_all()
        self.leader()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.processes.kill_all()
        self._directory.cleanup()

    def leader(self, deadline_s: float = START_DEADLINE_S) -> NodeProcess:
        """The node that leads; raises `TimeoutError` when there is none in time."""
        end = time.monotonic() + deadline_s
        while time.monotonic() < end:
            for node in self.processes.nodes.values():
                if node.is_running and status(node).get("role") == "leader":
                    return node
            time.sleep(0.02)
        raise TimeoutError(f"no leader within {deadline_s:g} s")

    def addresses(self, *, leader: bool) -> list[str]:
        """The leader's client address, or those of all others (of the only node, when there is one)."""
        found = self.leader()
        others = [node for node in self.processes.nodes.values() if node is not found]
        chosen = [found] if leader or not others else others
        return [node.member.client_address for node in chosen]

    def pids(self) -> list[int]:
        """The processes, the leader's first."""
        leader = self.leader()
        nodes = [leader, *(node for node in self.processes.nodes.values() if node is not leader)]
        return [node.process.pid for node in nodes if node.process is not None and node.is_running]


def status(node: NodeProcess, deadline_s: float = 1.0) -> dict[str, Any]:
    """What a node says of itself; empty while it does not answer."""

    async def ask() -> dict[str, Any]:
        try:
            async with Admin([node.member.client_address]) as admin:
                return await admin.status(deadline_s)
        except RaftKVError:
            return {}

    return asyncio.run(ask())


def resident_mib(node: NodeProcess) -> float:
    """The process's own memory: without files that the kernel keeps mapped."""
    assert node.process is not None
    fields = Path(f"/proc/{node.process.pid}/status").read_text().splitlines()
    return sum(int(line.split()[1]) for line in fields if line.startswith("RssAnon")) / 1024


def rss_mib(pid: int) -> float:
    """All that a process has in memory, its program and libraries too."""
    fields = Path(f"/proc/{pid}/status").read_text().splitlines()
    return sum(int(line.split()[1]) for line in fields if line.startswith("VmRSS")) / 1024
