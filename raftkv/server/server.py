"""A node inside another program: everything that one member of a cluster needs, in one object."""

from __future__ import annotations

import asyncio
import os
import ssl as tls_contexts
from collections.abc import AsyncIterator, Callable, Sequence
from types import TracebackType
from typing import Generic, TypeVar
from weakref import WeakSet

import msgspec

from raftkv.addresses import address_problems, parse
from raftkv.client import Client, ClientOptions
from raftkv.config import Config
from raftkv.errors import AlreadyStarted, ConfigError, InvalidArgument, NodeStopped, NotRunning, WrongLoop, WrongProcess
from raftkv.machine import StateMachine, check_machine
from raftkv.model import Member, NodeId
from raftkv.node import Node, NodeStatus, Role, World
from raftkv.server.assembly import Running, Surroundings, bring_up
from raftkv.server.descriptors import share_room
from raftkv.server.inprocess import NearDial
from raftkv.server.roles import RoleCallback, Roles
from raftkv.server.settings import HTTP_SIGN_IN_MODES, Found, Plan
from raftkv.server.tls import Tls
from raftkv.transport import SecretFile

M = TypeVar("M", bound=StateMachine)


class Listen(msgspec.Struct, frozen=True, kw_only=True):
    """Where a node listens: HOST:PORT for clients and for other nodes; port 0 takes a free one."""

    clients: str = "127.0.0.1:0"
    peers: str = "127.0.0.1:0"
    peer_secret_file: str | os.PathLike[str] | None = None
    """A file (mode 0600) with the secret that nodes prove to each other, the same on all; taken up anew when it
    changes. It keeps strangers out, and encrypts nothing."""
    insecure: bool = False
    """Beyond loopback, a port without TLS, or for nodes the secret, is refused, unless this is said; and `http` where
    neither certificates are asked for nor users sign in over HTTPS."""
    http_sign_in: str = "pages"
    """Who has to sign in at `http`, as a user: `pages`, for the page and /status, once users have to sign in; `all`,
    always, and for /metrics (a user with the right `metrics`) as well, while /health and /ready say yes or no."""


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
    is not touched. Its events go to the loggers `raftkv.*` of `logging`, or to structlog after `log_to_structlog`;
    nothing is set up for them. A handler of yours may raise, which only loses the line; if it blocks, it blocks the
    loop.
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

        At `http` (HOST:PORT) it serves a page to look at (/), /metrics, /health, /ready and /status, as `raftkv serve`
        does. `cluster_name` keeps clusters apart; empty: as in the directory, and "raftkv" for a new one. Raises
        `ConfigError`, and `MachineError` for what is no class of a state machine.
        """
        check_machine(machine, "Server")
        own = next((member for member in members if member.node_id == node_id), None)
        if members and own is None:
            raise ConfigError(f"members: node {node_id} is not among {[member.node_id for member in members]}")
        if members and join:
            raise ConfigError("join: a node that joins a cluster learns its members from it; leave out `members`")
        if problems := address_problems(members):
            raise ConfigError(f"members: {'; '.join(problems)}")
        listen = listen if listen is not None else Listen()
        if listen.http_sign_in not in HTTP_SIGN_IN_MODES:
            raise ConfigError(
                f"listen.http_sign_in = {listen.http_sign_in!r}: must be one of {', '.join(HTTP_SIGN_IN_MODES)}"
            )
        if own is not None:
            clients, peers = own.client_address or listen.clients, own.peer_address or listen.peers
            listen = msgspec.structs.replace(listen, clients=clients, peers=peers)
        self.config = config if config is not None else Config()
        self._machine = machine
        self._plan = Plan(
            node_id=node_id,
            data_dir=os.fspath(data_dir),
            listen=_given(listen.clients, "listen.clients"),
            peer_listen=_given(listen.peers, "listen.peers"),
            http=_given(http, "http") if http is not None else None,
            http_sign_in=listen.http_sign_in,
            members=tuple(members),
            join=join,
            cluster_name=cluster_name,
            insecure=listen.insecure,
            config=self.config,
        )
        self._secret = SecretFile(os.fspath(listen.peer_secret_file)) if listen.peer_secret_file is not None else None
        self._tls = tls if tls is not None else Tls()
        self._roles = Roles()
        self._clients: WeakSet[Client[M]] = WeakSet()
        self._running: Running | None = None
        self._starting = self._has_stopped = False
        self._stopping: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

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
        self._starting, self._loop = True, asyncio.get_running_loop()
        try:
            plan = msgspec.structs.replace(self._plan, rebuild=rebuild)
            surroundings = Surroundings(World.real(), share_room(), self._tls, self._secret)
            self._running = await bring_up(self._machine, plan, surroundings)
            self._running.node.leadership.tell(self._roles.told)
        finally:
            self._starting = False

    async def stop(self) -> None:
        """Hand leadership over, take no more requests, answer those that are due, and close everything.

        A leader of several nodes takes three seconds for its heir at most. Nothing happens when it does not run. It
        goes on when nobody waits for it any more, and another call waits for its end. Raises `WrongLoop`.
        """
        running = self._running
        if running is None or isinstance(running.node.failure, WrongProcess):
            return
        if self._loop is not asyncio.get_running_loop():
            raise WrongLoop(
                f"node {self._plan.node_id} runs on another event loop than this one: stop it there, as by "
                "asyncio.run_coroutine_threadsafe(server.stop(), loop)"
            )
        if self._stopping is not None:
            await asyncio.wait([self._stopping])
            return
        self._has_stopped = True
        self._stopping = asyncio.get_running_loop().create_task(self._stop(running), name="raftkv-stop")
        await asyncio.shield(self._stopping)

    def on_leader(self, callback: Callable[[Role], object]) -> RoleCallback:
        """Call `callback(role)` when this node begins to lead, and may serve, and when it ceases to; `stop()` of what
        this returns ends that.

        It is called on the event loop, also for leadership that began before, and must not block; what it raises is
        logged. Another node may lead a moment before this one knows that it does not: what only one may do goes
        through a command, or carries `role.term`. Raises `InvalidArgument` for a coroutine function.
        """
        return self._roles.call(callback)

    def roles(self) -> AsyncIterator[Role]:
        """`async for role in server.roles()`: the node's role now, and each new one, until the server has stopped.

        Of several roles while the loop's body runs, only the last one is given; nothing waits for it.
        """
        return self._roles.stream()

    def client(
        self,
        *,
        sessions: bool | None = None,
        deadline_s: float | None = None,
        options: ClientOptions | None = None,
        ssl: tls_contexts.SSLContext | None = None,
    ) -> Client[M]:
        """A client for this program, on this event loop: it reaches this node without a socket, and the others, when
        one of them leads, as any client does, with `ssl` if they speak TLS to clients.

        Calls, sessions, deadlines and errors are those of every `Client`. `stop` closes it. Raises `NotRunning` before
        `start`, and as `Client` does.
        """
        running, own = self._started, self._plan.node_id
        if ssl is None and self._tls.clients is not None:
            raise ConfigError("ssl: the other nodes speak TLS to clients, so the client needs a context for it")
        members = running.node.raft.membership.members
        others = [each.client_address for each in members if each.client_address and each.node_id != own]
        client = Client(
            self._machine,
            [running.clients, *others],
            sessions=sessions,
            deadline_s=deadline_s,
            options=options,
            dial=NearDial(self._accept_near, self._is_own, ssl),
        )
        self._clients.add(client)
        return client

    def _is_own(self, address: str) -> bool:
        member = self.node.raft.membership.member(self._plan.node_id)
        return address == self.address or (member is not None and address == member.client_address)

    def _accept_near(self) -> asyncio.Protocol | None:
        """The node's end of a connection through memory; None on another loop, and in a child made by fork."""
        if self.node.failure is not None or self._loop is not asyncio.get_running_loop():
            return None
        return self._started.connection()

    async def _stop(self, running: Running) -> None:
        try:
            # First: a session is closed by a command, and this node may still lead.
            await asyncio.gather(*(client.close() for client in self._clients), return_exceptions=True)
            await running.hand_over()
        finally:
            try:
                await running.stop()
            finally:
                self._roles.end()

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


def _given(address: str, name: str) -> Found[str]:
    try:
        parse(address, lowest_port=0)
    except InvalidArgument as exc:
        raise ConfigError(f"{name} = {address!r}: must be host:port") from exc
    return Found(address, "the call")
