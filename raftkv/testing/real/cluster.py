"""`raftkv_cluster`: nodes as processes of this machine, which a test kills, pauses, and cuts off from each other."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Generic, TypeVar

import msgspec

from raftkv.client import Admin, BlockingClient
from raftkv.errors import InvalidArgument, RaftKVError
from raftkv.machine import StateMachine
from raftkv.model import NodeId
from raftkv.node import NodeStatus
from raftkv.processes.cluster import ProcessCluster, import_path
from raftkv.testing.judging.failure import Failure
from raftkv.testing.real.links import CLIENTS, BackgroundLoop, Door, Links
from raftkv.testing.trying.references import NotImportable, Reference
from raftkv.transport.tcp import split_address

M = TypeVar("M", bound=StateMachine)

WITHIN_S = 30.0
"""For whatever is waited for: on a busy machine the start of a process takes seconds."""
ASK_S = 2.0
POLL_S = 0.05
LOG_LINES = 200
"""Of each node's log, the last of which a report shows."""


class RealCluster(Generic[M]):
    """Real nodes in a directory, with a proxy on every link; made by the fixture `raftkv_cluster`.

    Nodes have the ids 1, 2, …. What it does to one is done when the call returns, but what the others make of it takes
    its time: an election about a second. `leader` waits for that.
    """

    def __init__(self, machine: type[M], directory: Path, size: int, settings: dict[str, object]) -> None:
        """Starts the nodes. Raises `NotImportable` for a class that another process can't import."""
        found = Reference.of(machine)
        if "." in found.name:
            raise NotImportable(f"{found.name} is in another class: move it to the top of its module")
        arguments = ["--machine", str(found)]
        for name, value in settings.items():
            arguments += ["--set", f"{name}={value}"]
        paths = os.pathsep.join([os.path.abspath(found.directory), import_path()])
        self.machine = machine
        self._nodes = ProcessCluster(
            directory, size, arguments=arguments, environment={"PYTHONPATH": paths}, apart=True
        )
        self._background = BackgroundLoop("raftkv-cluster")
        self._links = Links(self._doors(), self._background)
        self._paused: set[NodeId] = set()
        self._nodes.start_all()

    def _doors(self) -> list[Door]:
        doors = []
        for node in self._nodes.nodes.values():
            told, own = node.member, node.own
            doors += [
                Door(node.node_id, split_address(told.peer_address), split_address(own.peer_address), True),
                Door(node.node_id, split_address(told.client_address), split_address(own.client_address), False),
            ]
        return doors

    @property
    def nodes(self) -> list[NodeId]:
        """All, running or not."""
        return list(self._nodes.nodes)

    @property
    def addresses(self) -> list[str]:
        """Where clients reach the nodes."""
        return self._nodes.addresses

    def client(self, **settings: Any) -> BlockingClient[M]:
        """A client to be used with `with`; for asyncio make a `Client(machine, cluster.addresses)`."""
        return BlockingClient(self.machine, self.addresses, **settings)

    def kill(self, *node_ids: NodeId) -> None:
        """SIGKILL to these at once; it returns when they are gone."""
        self._check(*node_ids)
        self._paused -= {*node_ids}
        self._nodes.kill(*node_ids)

    def start(self, *node_ids: NodeId) -> None:
        """Start these, if they don't run."""
        self._check(*node_ids)
        for node_id in node_ids:
            if not self._nodes.nodes[node_id].is_running:
                self._nodes.nodes[node_id].start()

    def restart(self, *node_ids: NodeId) -> None:
        """Kill these at once, and start them again."""
        self.kill(*node_ids)
        self.start(*node_ids)

    def stop(self, node_id: NodeId) -> int:
        """SIGTERM; returns the exit code, when it is gone."""
        self._check(node_id)
        self.resume(node_id)
        return self._nodes.nodes[node_id].terminate()

    def pause(self, *node_ids: NodeId) -> None:
        """SIGSTOP: they do nothing, and others wait for them."""
        self._check(*node_ids)
        for node_id in node_ids:
            self._nodes.nodes[node_id].signal(signal.SIGSTOP)
            self._paused.add(node_id)

    def resume(self, *node_ids: NodeId) -> None:
        """SIGCONT."""
        self._check(*node_ids)
        for node_id in node_ids:
            self._nodes.nodes[node_id].signal(signal.SIGCONT)
            self._paused.discard(node_id)

    def cut(self, one: NodeId, other: NodeId | None = None) -> None:
        """Let nothing through between two nodes; or between one and all others, clients included."""
        self._check(one, *(() if other is None else (other,)))
        others = [CLIENTS, *self.nodes] if other is None else [other]
        self._links.cut(frozenset({one, each}) for each in others if each != one)

    def heal(self) -> None:
        """Nothing is cut any more."""
        self._links.heal()

    def status(self, node_id: NodeId) -> NodeStatus | None:
        """A node's status, asked past whatever is cut; None when it does not answer."""
        self._check(node_id)
        return self._background.run(self._status(node_id))

    async def _status(self, node_id: NodeId) -> NodeStatus | None:
        node = self._nodes.nodes[node_id]
        if not node.is_running or node_id in self._paused:
            return None
        try:
            async with Admin([node.own.client_address]) as admin:
                return msgspec.convert(await admin.status(ASK_S), NodeStatus)
        except RaftKVError:
            return None

    def leader(self, within_s: float = WITHIN_S) -> NodeId:
        """The node that leads, which a majority that can hear each other has elected. Raises `Failure` when there is
        none in time."""
        end = time.monotonic() + within_s
        while time.monotonic() < end:
            found = self._background.run(self._statuses())
            terms = [each.term for each in found]
            followers = [each for each in found if each.term == max(terms, default=0) and each.leader is not None]
            if len(followers) > len(self.nodes) // 2 and len({each.leader for each in followers}) == 1:
                assert followers[0].leader is not None
                return followers[0].leader
            time.sleep(POLL_S)
        raise Failure(f"no node leads within {within_s:g} s; nodes that run: {self._running()}")

    async def _statuses(self) -> list[NodeStatus]:
        found = await asyncio.gather(*[self._status(node_id) for node_id in self.nodes])
        return [each for each in found if each is not None]

    def _running(self) -> list[NodeId]:
        return [node_id for node_id, node in self._nodes.nodes.items() if node.is_running]

    def log(self, node_id: NodeId) -> str:
        """What a node has written, over all its starts."""
        self._check(node_id)
        path = self._nodes.nodes[node_id].log_path
        return path.read_text(errors="replace") if path.exists() else ""

    @property
    def report(self) -> str:
        """The end of each node's log, for the report of a test that failed."""
        parts = []
        for node_id in self.nodes:
            is_running = node_id in self._running()
            lines = self.log(node_id).splitlines()[-LOG_LINES:]
            parts += [f"node {node_id} ({'runs' if is_running else 'does not run'}):", *(f"  {line}" for line in lines)]
        return "\n".join(parts)

    def _check(self, *node_ids: NodeId) -> None:
        for node_id in node_ids:
            if node_id not in self._nodes.nodes:
                raise InvalidArgument(f"there is no node {node_id}: there are {', '.join(map(str, self.nodes))}")

    def close(self) -> None:
        """End every process, and the proxy."""
        self._nodes.kill_all()
        self._links.close()
        self._background.close()


class RealClusters:
    """What the fixture `raftkv_cluster` gives: call it to start a cluster; all end with the test."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._made: list[RealCluster[Any]] = []

    def __call__(self, machine: type[M], size: int = 3, **settings: object) -> RealCluster[M]:
        """Start `size` nodes that run `machine`, and wait for a leader; `settings` are those of `Config`.

        Raises `NotImportable`, and `Failure` when there is no leader in time.
        """
        directory = self._directory / f"cluster{len(self._made) + 1}"
        cluster = RealCluster(machine, directory, size, settings)
        self._made.append(cluster)
        cluster.leader()
        return cluster

    @property
    def report(self) -> str:
        """Of all of them."""
        return "\n\n".join(cluster.report for cluster in self._made)

    def close(self) -> None:
        """End all of them, also when one can't be ended; raises that at last."""
        with ExitStack() as last_first:
            for cluster in self._made:
                last_first.callback(cluster.close)
