"""One node with everything around it: brought up in the one right order, and taken down in the reverse one."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from raftkv.addresses import join
from raftkv.errors import ConfigError, Unavailable, WrongProcess
from raftkv.forks import leave, tell_of_fork
from raftkv.listener import ClientLimits, Entrance, bind
from raftkv.machine import StateMachine
from raftkv.model import Member
from raftkv.node import Node, Options, Paths, World, recover
from raftkv.node.directory import is_new
from raftkv.server import descriptors
from raftkv.server.descriptors import Room
from raftkv.server.exposure import Protected, check_bound, check_exposure
from raftkv.server.serving import Serving, serve
from raftkv.server.settings import Found, Plan, lone_founder, parse_address, with_port
from raftkv.server.tls import Renewal, Tls, Watched
from raftkv.server.visitors import Visitors
from raftkv.transport import Demands, Resolver, SecretFile, TcpTransport, listen

if TYPE_CHECKING:
    from raftkv.server.http import HttpServer


class Surroundings(NamedTuple):
    """What a node and its ports are given by the process that they run in."""

    world: World
    room: Room
    tls: Tls
    secret: SecretFile | None = None
    """What nodes prove to each other."""


class Running:
    """A node that takes part, serves clients, and tells of itself over HTTP if it was asked to."""

    def __init__(
        self, serving: Serving, addresses: tuple[str, str], http: HttpServer | None, watched: Sequence[Watched]
    ) -> None:
        """`watched` are taken up anew when their files change."""
        self.node = serving.node
        self.clients, self.peers = addresses
        """Where it listens for clients and for other nodes, with the ports that were chosen."""
        self.http_port = http.port if http is not None else None
        self._serving = serving
        self._http = http
        self._renewal = Renewal(watched)
        self._tasks = [self._begin(descriptors.watch(), "raftkv-files")]
        if watched:
            self._tasks.append(self._begin(self._renewal.run(), "raftkv-tls-files"))
        tell_of_fork(self)

    @staticmethod
    def _begin(work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        return asyncio.get_running_loop().create_task(work, name=name)

    def renew(self) -> None:
        """Read the files of TLS and of the cluster secret again, even if they look the same."""
        self._renewal.look()

    def connection(self) -> asyncio.Protocol:
        """The protocol of a client of this very program, whose connection was made without the port for clients. It is
        asked for no user, as it could do everything anyway."""
        return self._serving.listener.trusted_connection()

    async def hand_over(self) -> None:
        """A leader that leaves names its heir."""
        await self._serving.hand_over()

    async def stop(self) -> None:
        """Take no more requests, answer those that are due, and close everything; in a child made by fork, nothing."""
        if isinstance(self.node.failure, WrongProcess):
            return
        for task in self._tasks:
            task.cancel()
        if self._http is not None:
            await asyncio.get_running_loop().run_in_executor(None, self._http.close)
        await self._serving.stop()

    def after_fork(self) -> None:
        """In a child: its tasks are of the parent's loop."""
        leave(self)


async def bring_up(machine: type[StateMachine], plan: Plan, surroundings: Surroundings) -> Running:
    """Recover, take part, and serve clients; what was begun is closed again when that fails.

    Raises a `NodeStopped` that says what to do, `ConfigError`, and `Unavailable` for an address that can't be had.
    """
    tls, limits = surroundings.tls, surroundings.room.server_limits(plan.config)
    surroundings.world.open_files = descriptors.open_files
    async with AsyncExitStack() as undo:
        undo.push_async_callback(surroundings.world.close)
        if plan.http is not None:
            # Nobody else needs it, nor its libraries; and nothing waits for them yet, as the node takes no part.
            import raftkv.server.http  # noqa: F401
        serving, clients, peers = await _take_part(machine, plan, surroundings, limits, undo)
        http = _listen_for_http(plan, serving, tls) if plan.http is not None else None
        if http is not None:
            undo.callback(http.close)
            check_bound("http", [http.host], plan, _protected(plan, surroundings))
            http.begin()
        secret = [surroundings.secret] if surroundings.secret is not None else []
        running = Running(serving, (clients, peers), http, [*tls.renewed, *secret])
        undo.pop_all()
    return running


async def _take_part(
    machine: type[StateMachine], plan: Plan, surroundings: Surroundings, limits: ClientLimits, undo: AsyncExitStack
) -> tuple[Serving, str, str]:
    """Settle where the node listens, and start it there; also gives where it listens for clients and for other nodes.

    A new directory is written when all ports listen: a wrong or taken address is not to found a cluster. A node that
    was here before listens where the membership says, unless somebody says where; so it recovers first, but not before
    a given address is known to be free.
    """
    world, tls, transport = surroundings.world, surroundings.tls, _transport(plan, surroundings)
    undo.callback(transport.abort)
    recovered = None
    if is_new(world.disk, Paths(plan.data_dir)):
        if plan.is_alone:
            lone_founder(plan)
        await _check_exposure(plan, surroundings)
    else:
        await _check_exposure(plan, surroundings)
        if plan.listen.is_given:
            await _check_free("listen", plan.listen)
        recovered = await recover(machine, node_options(plan), transport, world)
        undo.push_async_callback(recovered.close)
        plan = _as_told(plan, recovered.member(plan.node_id))
        await _check_exposure(plan, surroundings)
        transport.settle(*parse_address(plan.peer_listen.value))
    protected = _protected(plan, surroundings)
    entrance = await _listen_for_clients(plan.listen, limits, tls)
    undo.callback(entrance.close)
    check_bound("listen", entrance.hosts, plan, protected)
    if recovered is None and plan.http is not None:
        check_bound("http", await _check_free("http", plan.http), plan, protected)
    peers = await _listen_for_peers(plan.peer_listen, transport)
    check_bound("peer_listen", transport.hosts, plan, protected)
    peer_port, client_port = parse_address(peers)[1], entrance.address[1]
    peer, client = with_port(plan.peer_listen.value, peer_port), with_port(plan.listen.value, client_port)
    if recovered is None:
        founders = (lone_founder(plan, peer_port, client_port),) if plan.is_alone else plan.members
        options = msgspec.structs.replace(
            node_options(plan), peer_address=peer, client_address=client, members=founders
        )
        recovered = await recover(machine, options, transport, world)
        undo.push_async_callback(recovered.close)
    recovered.settle(peer, client)
    serving = await serve(Node(recovered), limits, entrance)
    undo.push_async_callback(serving.stop)
    return serving, join(*entrance.address), peers


def _transport(plan: Plan, surroundings: Surroundings) -> TcpTransport:
    world, room, tls, secret = surroundings
    host, port = parse_address(plan.peer_listen.value)
    dialled, dialling = tls.peers if tls.peers is not None else (None, None)
    return TcpTransport(
        plan.node_id,
        host,
        port,
        config=plan.config,
        ssl_server=dialled,
        ssl_client=dialling,
        draw=world.draw,
        limits=room.transport_limits(plan.config),
        demands=Demands(secret, tls.peer_names if tls.peers is not None else None),
    )


def _protected(plan: Plan, surroundings: Surroundings) -> Protected:
    return Protected.of(plan, surroundings.tls, has_secret=surroundings.secret is not None)


async def _check_exposure(plan: Plan, surroundings: Surroundings) -> None:
    await check_exposure(plan, _protected(plan, surroundings))


def node_options(plan: Plan) -> Options:
    """What a node is told of itself; where it listens is known only when it does."""
    return Options(
        node_id=plan.node_id,
        data_dir=plan.data_dir,
        members=plan.members,
        cluster_name=plan.cluster_name,
        rebuild=plan.rebuild,
        config=plan.config,
        given=plan.given,
    )


def _as_told(plan: Plan, member: Member | None) -> Plan:
    """With the addresses of the membership, where nobody has given any."""
    if member is None:
        return plan
    told = {"listen": member.client_address, "peer_listen": member.peer_address}
    found = {
        name: Found(address, "the membership", False)
        for name, address in told.items()
        if address and not getattr(plan, name).is_given
    }
    return msgspec.structs.replace(plan, **found)


async def _listen_for_clients(listen: Found[str], limits: ClientLimits, tls: Tls) -> Entrance:
    try:
        return await bind(*parse_address(listen.value), limits, ssl=tls.clients)
    except Unavailable as exc:
        raise Unavailable(f"listen = {listen.value!r} (from {listen.source}): {exc}") from exc


async def _listen_for_peers(listen: Found[str], transport: TcpTransport) -> str:
    try:
        return await transport.listen()
    except ConfigError as exc:
        raise Unavailable(f"peer_listen = {listen.value!r} (from {listen.source}): {exc}") from exc


def _listen_for_http(plan: Plan, serving: Serving, tls: Tls) -> HttpServer:
    given, node = plan.http, serving.node
    assert given is not None, "whoever calls this has looked"
    from raftkv.server.http import HttpServer

    try:
        return HttpServer(
            *parse_address(given.value),
            node.status,
            tls.http,
            pulse=lambda: (node.raft.term, node.raft.leader),
            asking=tls.asking,
            requests=lambda: serving.listener.stats,
            visitors=Visitors(serving.listener.gate, are_all=plan.http_sign_in == "all"),
        )
    except ConfigError as exc:
        raise Unavailable(f"{exc} (from {given.source})") from exc


async def _check_free(name: str, given: Found[str]) -> list[str]:
    """The numeric hosts that it stands for. Raises `Unavailable` when nobody could listen there now."""
    host, port = parse_address(given.value)
    try:
        hosts = await Resolver().hosts(host)
        server = await listen(asyncio.Protocol, hosts, port)
    except OSError as exc:
        raise Unavailable(f"{name} = {given.value!r} (from {given.source}): {exc.strerror or exc}") from exc
    server.close()
    await server.wait_closed()
    return hosts
