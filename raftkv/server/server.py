"""A node inside another program: everything that one member of a cluster needs, in one object."""

from __future__ import annotations

import asyncio
import os
import random
import ssl as tls
from collections.abc import Sequence
from types import TracebackType
from typing import Generic, TypeVar

import structlog

from raftkv.addresses import address_problems, join, parse
from raftkv.config import Config
from raftkv.errors import ConfigError, InvalidArgument, NodeStopped, WrongProcess
from raftkv.listener import Limits, Listener
from raftkv.machine import StateMachine
from raftkv.model import Member, NodeId
from raftkv.node import Node, NodeStatus, Options
from raftkv.node.directory import is_new
from raftkv.transport import TcpTransport

M = TypeVar("M", bound=StateMachine)


class Server(Generic[M]):
    """One member of a cluster that runs the state machine `machine`.

    ```python
    async with Server(Inventory, data_dir="data") as server:        # a cluster of one
        ...
    ```

    A cluster of more is started with the same `members` on each of its nodes; a node that joins later with
    `join=True`, and is then added by `Admin.add_learner` and `Admin.promote`. On return of `start` the node has
    recovered what is on its disk, and takes part; it may not have a leader yet.

    In a child made by fork it does nothing: `start` and `status` raise `WrongProcess`, `stop` returns at once, and
    the parent's node goes on; the child can ask it through a client.

    It belongs to the running event loop. Disk work is done in threads of its own; a program that keeps the
    interpreter busy should call `sys.setswitchinterval(0.0005)`, or each of them waits 5 ms for its turn.
    Its log goes to structlog, which is set to keep quiet if the program has not configured it. What is configured
    may raise, which only loses the line; if it blocks, it blocks the loop.
    """

    def __init__(
        self,
        machine: type[M],
        *,
        data_dir: str | os.PathLike[str],
        node_id: NodeId = 1,
        members: Sequence[Member] = (),
        join: bool = False,
        listen: str = "127.0.0.1:0",
        peer_listen: str = "127.0.0.1:0",
        cluster_name: str = "",
        rebuild: bool = False,
        config: Config | None = None,
        ssl: tls.SSLContext | None = None,
        peer_ssl: tuple[tls.SSLContext, tls.SSLContext] | None = None,
    ) -> None:
        """`listen` and `peer_listen` are where this node listens for clients and for other nodes (port 0: any).

        `cluster_name` keeps clusters apart; empty: as in the directory, and "raftkv" for a new one.
        `ssl` is for clients, `peer_ssl` for the links between nodes: a context to be dialled with, and one to dial.
        Raises `ConfigError`.
        """
        self.config = config if config is not None else Config()
        own = next((member for member in members if member.node_id == node_id), None)
        if members and own is None:
            raise ConfigError(f"members: node {node_id} is not among {[member.node_id for member in members]}")
        if members and join:
            raise ConfigError("join: a node that joins a cluster learns its members from it; leave out `members`")
        if problems := address_problems(members):
            raise ConfigError(f"members: {'; '.join(problems)}")
        if own is not None:
            listen, peer_listen = own.client_address or listen, own.peer_address or peer_listen
        self._is_alone = not members and not join
        self._listen = _split(listen, "listen")
        peer_host, peer_port = _split(peer_listen, "peer_listen")
        dialled, dialling = peer_ssl if peer_ssl is not None else (None, None)
        draw = random.SystemRandom().randrange
        transport = self._transport = TcpTransport(
            node_id, peer_host, peer_port, config=self.config, ssl_server=dialled, ssl_client=dialling, draw=draw
        )
        options = Options(
            node_id=node_id,
            data_dir=os.fspath(data_dir),
            members=tuple(members),
            cluster_name=cluster_name,
            rebuild=rebuild,
            config=self.config,
        )
        self.node = Node(machine, options, transport)
        """The node itself: its status, membership changes, snapshots."""
        self._listener = Listener(self.node, Limits.of(self.config), ssl=ssl)
        self._address = ""

    async def start(self) -> None:
        """Recover, take part, and serve clients.

        Raises a `NodeStopped` that says what to do, `ConfigError`, or `Unavailable` when an address is taken.
        """
        if not structlog.is_configured():
            structlog.configure(logger_factory=structlog.ReturnLoggerFactory())
        node, transport = self.node, self._transport
        if isinstance(node.failure, WrongProcess):
            raise node.failure
        new = is_new(node.world.disk, node.paths)
        try:
            if not new:
                await node.open()
            # Both before a new directory is written: nothing is founded that nobody could reach.
            client = join(*await self._listener.listen(*self._listen))
            peer = await transport.listen()
            alone = (Member(node.node_id, peer, client),) if self._is_alone and new else None
            node.settle(peer, client, alone)
            await node.start()
            await self._listener.start(*self._listen)
        except BaseException:
            await self._listener.close()
            await node.stop()
            raise
        self._address = client

    async def stop(self) -> None:
        """Take no more requests, answer those that are due, and close everything."""
        await self._listener.close()
        await self.node.stop()

    @property
    def address(self) -> str:
        """Where clients reach it, with the port that was chosen."""
        return self._address

    @property
    def stopped(self) -> asyncio.Future[NodeStopped | None]:
        """Done when the node has stopped by itself: with the reason, which says what to do."""
        return self.node.stopped

    def status(self) -> NodeStatus:
        """Everything that an operator may ask."""
        return self.node.status()

    async def __aenter__(self) -> Server[M]:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()


def _split(address: str, name: str) -> tuple[str, int]:
    try:
        return parse(address, lowest_port=0)
    except InvalidArgument:
        raise ConfigError(f"{name} = {address!r}: must be host:port") from None
