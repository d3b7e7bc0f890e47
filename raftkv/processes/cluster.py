"""A cluster of real `raftkv serve` processes on loopback: started, killed, started again."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

import msgspec

from raftkv.model import Member, NodeId
from raftkv.processes.ports import free_ports


class Launched(Protocol):
    """A process that runs, or has ended: so much of `subprocess.Popen` as whoever starts nodes may use."""

    @property
    def pid(self) -> int: ...

    def poll(self) -> int | None:
        """How it has ended: its exit code, or the number of a signal with a minus; None while it runs."""

    def wait(self, timeout: float | None = None) -> int:
        """The same, when it has ended. Raises `subprocess.TimeoutExpired`."""

    def send_signal(self, sig: int) -> None:
        """Does nothing when it has ended."""


Launch = Callable[[Sequence[str], Mapping[str, str], Path], Launched]
"""Starts a command with an environment, in a session of its own; what it prints goes to the end of a file."""


def launch(command: Sequence[str], environment: Mapping[str, str], log_path: Path) -> Launched:
    """`Launch` with a fresh process."""
    with log_path.open("ab") as log:
        return subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment, start_new_session=True
        )


class NodeProcess(msgspec.Struct):
    """One node: what it is started with, and its process while it runs."""

    member: Member
    data_dir: str
    arguments: list[str]
    environment: dict[str, str]
    process: Launched | None = None
    starts: int = 0
    listens: Member | None = None
    """Where it really listens, if `member` says where somebody stands in between."""
    module: str = "raftkv"
    """What is run as `python -m …`; for a node that does something wrong on purpose."""
    wrapper: list[str] = []
    """A command that the node's is given to, and that becomes it: a shell that sets limits first, a tracer."""
    launch: Launch = launch

    @property
    def own(self) -> Member:
        """The node with the addresses that it listens at."""
        return self.listens if self.listens is not None else self.member

    @property
    def node_id(self) -> NodeId:
        return self.member.node_id

    @property
    def log_path(self) -> Path:
        """What the process prints, over all its starts."""
        return Path(self.data_dir).with_suffix(".log")

    @property
    def is_running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def start(self, *extra: str) -> None:
        """Start the process; it has its files, but may not serve yet."""
        assert not self.is_running, f"node {self.node_id} runs already"
        self.starts += 1
        self.process = self.launch(
            [*self.wrapper, sys.executable, "-m", self.module, "serve", *self.arguments, *extra],
            {**os.environ, "PYTHONPATH": import_path(), **self.environment},
            self.log_path,
        )

    def signal(self, number: int) -> None:
        """Send a signal to the process, if it runs."""
        if self.process is not None and self.is_running:
            self.process.send_signal(number)

    def kill(self) -> None:
        """SIGKILL, and wait for the end."""
        if self.process is not None:
            self.signal(signal.SIGKILL)
            self.process.wait()

    def terminate(self, deadline_s: float = 20.0) -> int:
        """SIGTERM, and wait for a graceful end; returns the exit code."""
        assert self.process is not None
        self.signal(signal.SIGTERM)
        return self.process.wait(deadline_s)


class ProcessCluster:
    """Real nodes in a directory, each with a data directory and a log file of its own.

    With `apart`, nodes and clients are told of other addresses than those where nodes listen, for a proxy
    to stand in between: without one nobody reaches anybody.

    Use it as a context manager: at its end every process that it started is gone.
    """

    def __init__(
        self,
        directory: str | Path,
        size: int = 3,
        *,
        arguments: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
        apart: bool = False,
        launch: Launch = launch,
    ) -> None:
        self.directory = Path(directory)
        self.directory.mkdir(parents=True, exist_ok=True)
        self.launch = launch
        self._arguments = list(arguments)
        self._environment = dict(environment or {})
        drawn = _members([*range(1, size + 1)] * (2 if apart else 1))
        self.founders, listens = drawn[:size], drawn[-size:]
        members = [argument for member in self.founders for argument in ("--member", member_argument(member))]
        self.nodes = {
            member.node_id: self._node(member, own, members) for member, own in zip(self.founders, listens, strict=True)
        }

    def _node(self, member: Member, own: Member, extra: Sequence[str]) -> NodeProcess:
        data_dir = str(self.directory / f"n{member.node_id}")
        arguments = [
            "--node-id",
            str(member.node_id),
            "--data-dir",
            data_dir,
            "--listen",
            own.client_address,
            "--peer-listen",
            own.peer_address,
            *extra,
            *self._arguments,
        ]
        return NodeProcess(member, data_dir, arguments, dict(self._environment), listens=own, launch=self.launch)

    def add(self, node_id: NodeId) -> NodeProcess:
        """A further node that will join; it is not started yet."""
        assert node_id not in self.nodes, f"there is a node {node_id} already"
        (member,) = _members([node_id])
        self.nodes[node_id] = self._node(member, member, ["--join"])
        return self.nodes[node_id]

    @property
    def addresses(self) -> list[str]:
        """Every node's client address."""
        return [node.member.client_address for node in self.nodes.values()]

    def start_all(self) -> None:
        for node in self.nodes.values():
            if not node.is_running:
                node.start()

    def kill(self, *node_ids: NodeId) -> None:
        """SIGKILL to all of these at once, then wait until they are gone."""
        for node_id in node_ids:
            self.nodes[node_id].signal(signal.SIGKILL)
        for node_id in node_ids:
            self.nodes[node_id].kill()

    def kill_all(self) -> None:
        """SIGKILL to every node at once, then wait until they are gone."""
        self.kill(*self.nodes)

    def __enter__(self) -> ProcessCluster:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill_all()


def _members(node_ids: Sequence[NodeId]) -> list[Member]:
    """Each with addresses of its own on loopback."""
    ports = free_ports(2 * len(node_ids))
    return [
        Member(node_id, f"127.0.0.1:{ports[2 * at]}", f"127.0.0.1:{ports[2 * at + 1]}")
        for at, node_id in enumerate(node_ids)
    ]


def import_path() -> str:
    """Where children find this package, also when it is not installed and they are started elsewhere."""
    root = str(Path(__file__).parents[2])
    return os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))


def member_argument(member: Member) -> str:
    """A founder as `raftkv serve --member` wants it."""
    return f"{member.node_id}={member.peer_address}/{member.client_address}"
