"""A node inside another program: everything that one member of a cluster needs, in one object."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from types import TracebackType
from typing import Generic, TypeVar

import msgspec
import structlog

from raftkv.addresses import address_problems, parse
from raftkv.config import Config
from raftkv.errors import AlreadyStarted, ConfigError, InvalidArgument, NodeStopped, NotRunning, WrongProcess
from raftkv.machine import StateMachine
from raftkv.model import Member, NodeId
from raftkv.node import Node, NodeStatus, World
from raftkv.server.assembly import Running, Surroundings, bring_up
from raftkv.server.descriptors import share_room
from raftkv.server.settings import Found, Plan
from raftkv.server.tls import Tls

M = TypeVar("M", bound=StateMachine)


class Listen(msgspec.Struct, frozen=True, kw_only=True):
    """Where a node listens: HOST:PORT for clients and for other nodes; port 0 takes a free one."""

    clients: str = "127.0.0.1:0"
    peers: str = "127.0.0.1:0"


class Server(Generic[M]):
    """One member of a cluster that runs the state machine `machine`.

    ```python
    async with Server(Inventory, data_dir="data") as server:        # a cluster of one
        ...
    ```

    A cluster of more is started with the same `members` on each of its nodes; a node that joins later with
    `join=True`, and is then added by `Admin.add_learner` and `Admin.promote`. On return of `start` the node has
    recovered what is on its disk, and takes part; it may not have a leader yet.

    It is started once. Before that, and when it is stopped, `status` and `node` raise `NotRunning`; a second `start`
    raises `AlreadyStarted`, also after `stop`. One that could not start may be started again.

    In a child made by fork it does nothing: `start` and `status` raise `WrongProcess`, `stop` returns at once, and
    the parent's node goes on; the child can ask it through a client.

    It belongs to the running event loop. Disk work is done in threads of its own; a program that keeps the
    interpreter busy should call `sys.setswitchinterval(0.0005)`, or each of them waits 5 ms for its turn.
    Connections are limited so that the program's limit of open files leaves room for the node's own; the limit itself
    is not touched. Its log goes to structlog, which is set to keep quiet if the program has not configured it. What is
    configured may raise, which only loses the line; if it blocks, it blocks the loop.
    """

    def __init__(
        self,
        machine: type[M],
        *,
        data_dir: str | os.PathLike[str],
        node_id: NodeId = 1,
        members: Sequence[Member] = (),
        join: bool = False,
        listen: Listen | None = None,
        http: str | None = None,
        cluster_name: str = "",
        config: Config | None = None,
        tls: Tls | None = None,
    ) -> None:
        """`listen` is where a node listens that is not among `members`; the others listen at their addresses there.

        At `http` (HOST:PORT) it serves /metrics, /health, /ready and /status, as `raftkv serve` does. `cluster_name`
        keeps clusters apart; empty: as in the directory, and "raftkv" for a new one. Raises `ConfigError`.
        """
        own = next((member for member in members if member.node_id == node_id), None)
        if members and own is None:
            raise ConfigError(f"members: node {node_id} is not among {[member.node_id for member in members]}")
        if members and join:
            raise ConfigError("join: a node that joins a cluster learns its members from it; leave out `members`")
        if problems := address_problems(members):
            raise ConfigError(f"members: {'; '.join(problems)}")
        listen = listen if listen is not None else Listen()
        if own is not None:
            listen = Listen(clients=own.client_address or listen.clients, peers=own.peer_address or listen.peers)
        self.config = config if config is not None else Config()
        self._machine = machine
        self._plan = Plan(
            node_id=node_id,
            data_dir=os.fspath(data_dir),
            listen=_given(listen.clients, "listen.clients"),
            peer_listen=_given(listen.peers, "listen.peers"),
            http=_given(http, "http") if http is not None else None,
            members=tuple(members),
            join=join,
            cluster_name=cluster_name,
            config=self.config,
        )
        self._tls = tls if tls is not None else Tls()
        self._running: Running | None = None
        self._starting = self._has_stopped = False
        self._stopping: asyncio.Task[None] | None = None

    async def start(self, *, rebuild: bool = False) -> None:
        """Recover, take part, and serve clients; with `rebuild`, a damaged state is replaced by a snapshot.

        Raises a `NodeStopped` that says what to do, `ConfigError`, `Unavailable` when an address is taken, and
        `AlreadyStarted`.
        """
        if self._running is not None and isinstance(self._running.node.failure, WrongProcess):
            raise self._running.node.failure
        if self._has_stopped:
            raise AlreadyStarted(f"node {self._plan.node_id} was stopped: make another Server to start it again")
        if self._running is not None or self._starting:
            raise AlreadyStarted(f"node {self._plan.node_id} was started already: this Server is it")
        if not structlog.is_configured():
            structlog.configure(logger_factory=structlog.ReturnLoggerFactory())
        self._starting = True
        try:
            plan = msgspec.structs.replace(self._plan, rebuild=rebuild)
            surroundings = Surroundings(World.real(), share_room(), self._tls)
            self._running = await bring_up(self._machine, plan, surroundings)
        finally:
            self._starting = False

    async def stop(self) -> None:
        """Hand leadership over, take no more requests, answer those that are due, and close everything.

        A leader of several nodes takes three seconds for its heir at most. Nothing happens when it does not run. It
        goes on when nobody waits for it any more, and another call waits for its end.
        """
        running = self._running
        if running is None or isinstance(running.node.failure, WrongProcess):
            return
        if self._stopping is not None:
            await asyncio.wait([self._stopping])
            return
        self._has_stopped = True
        self._stopping = asyncio.get_running_loop().create_task(_stop(running), name="raftkv-stop")
        await asyncio.shield(self._stopping)

    @property
    def _started(self) -> Running:
        if self._running is None:
            raise NotRunning(f"node {self._plan.node_id} has not started: await start() first, or use `async with`")
        return self._running

    @property
    def node(self) -> Node:
        """The node itself: its status, membership changes, snapshots. Raises `NotRunning` before `start`."""
        return self._started.node

    @property
    def address(self) -> str:
        """Where clients reach it, with the port that was chosen; empty before `start`."""
        return self._running.clients if self._running is not None else ""

    @property
    def http_port(self) -> int | None:
        """Where it serves metrics and health, with the port that was chosen; None when it does not."""
        return self._running.http_port if self._running is not None else None

    @property
    def stopped(self) -> asyncio.Future[NodeStopped | None]:
        """Done when the node has stopped by itself: with the reason, which says what to do. Raises `NotRunning`."""
        return self.node.stopped

    def status(self) -> NodeStatus:
        """Everything that an operator may ask. Raises `NotRunning` before `start` and after `stop`."""
        node = self.node
        if self._has_stopped:
            why = f": {node.failure}" if node.failure is not None else ""
            raise NotRunning(f"node {self._plan.node_id} is stopped{why}; make another Server to start it again")
        return node.status()

    async def __aenter__(self) -> Server[M]:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()


async def _stop(running: Running) -> None:
    try:
        await running.hand_over()
    finally:
        await running.stop()


def _given(address: str, name: str) -> Found[str]:
    try:
        parse(address, lowest_port=0)
    except InvalidArgument as exc:
        raise ConfigError(f"{name} = {address!r}: must be host:port") from exc
    return Found(address, "the call")
