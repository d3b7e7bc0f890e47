"""`raftkv_servers`: servers in the test's own process, on an event loop in a thread of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, Generic, TypeVar

from raftkv.client import BlockingClient
from raftkv.config import Config
from raftkv.errors import InvalidArgument
from raftkv.machine import StateMachine
from raftkv.model import Member, NodeId
from raftkv.node import NodeStatus
from raftkv.processes.ports import free_ports
from raftkv.server import Server
from raftkv.testing.real.links import BackgroundLoop

M = TypeVar("M", bound=StateMachine)
T = TypeVar("T")


class LocalServers(Generic[M]):
    """Members of one cluster; made by the fixture `raftkv_servers`.

    Their class may be made in the test itself, and breakpoints in it are met. They share the interpreter with the
    test: what blocks for long holds up all of them.
    """

    def __init__(self, machine: type[M], directory: Path, size: int, config: Config | None) -> None:
        """Starts them."""
        ports = free_ports(2 * size)
        self.machine = machine
        self.members = tuple(
            Member(node_id, f"127.0.0.1:{ports[2 * node_id - 2]}", f"127.0.0.1:{ports[2 * node_id - 1]}")
            for node_id in range(1, size + 1)
        )
        directory.mkdir(parents=True)
        self._directory, self._config = directory, config
        self._servers: dict[NodeId, Server[M]] = {}
        self._background = BackgroundLoop("raftkv-servers")
        self.start(*self.nodes)

    @property
    def nodes(self) -> list[NodeId]:
        """All, running or not."""
        return [member.node_id for member in self.members]

    @property
    def addresses(self) -> list[str]:
        """Where clients reach them."""
        return [member.client_address for member in self.members]

    def client(self, **settings: Any) -> BlockingClient[M]:
        """A client to be used with `with`; for asyncio make a `Client(machine, servers.addresses)`."""
        return BlockingClient(self.machine, self.addresses, **settings)

    def server(self, node_id: NodeId) -> Server[M]:
        """One that runs, for what is done with `run`. Raises `InvalidArgument` for one that does not."""
        if node_id not in self._servers:
            raise InvalidArgument(f"node {node_id} does not run; there are {', '.join(map(str, self._servers))}")
        return self._servers[node_id]

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Do something on the servers' event loop, and wait for it: `servers.run(server.node.take_snapshot())`."""
        return self._background.run(work)

    def status(self, node_id: NodeId) -> NodeStatus:
        """A server's status. Raises `InvalidArgument` for one that does not run."""
        server = self.server(node_id)

        async def status() -> NodeStatus:
            return server.status()

        return self.run(status())

    def start(self, *node_ids: NodeId) -> None:
        """Start these, all at once, on their files."""
        made = {
            node_id: Server(
                self.machine,
                data_dir=self._directory / f"n{node_id}",
                node_id=node_id,
                members=self.members,
                config=self._config,
            )
            for node_id in node_ids
            if node_id not in self._servers
        }
        self._servers.update(made)

        async def start() -> None:
            await asyncio.gather(*[server.start() for server in made.values()])

        self.run(start())

    def stop(self, *node_ids: NodeId) -> None:
        """Stop these, all at once; `start` starts them again."""
        stopped = [self._servers.pop(node_id) for node_id in node_ids if node_id in self._servers]

        async def stop() -> None:
            await asyncio.gather(*[server.stop() for server in stopped])

        self.run(stop())

    def close(self) -> None:
        """Stop all, and the loop."""
        self.stop(*self._servers)
        self._background.close()


class ServersFixture:
    """What the fixture `raftkv_servers` gives: call it to start servers; all stop with the test."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._made: list[LocalServers[Any]] = []

    def __call__(self, machine: type[M], size: int = 1, *, config: Config | None = None) -> LocalServers[M]:
        """Start `size` members of a cluster that run `machine`; a client waits by itself until one of them leads."""
        servers = LocalServers(machine, self._directory / f"servers{len(self._made) + 1}", size, config)
        self._made.append(servers)
        return servers

    def close(self) -> None:
        for servers in self._made:
            servers.close()
