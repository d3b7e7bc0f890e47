"""A node's process: brings up node, listener and metrics, waits for the end, takes them down in order."""

from __future__ import annotations

import asyncio
import importlib
import os
import signal
import sys
from collections.abc import Callable
from typing import Any

import msgspec

from raftkv.errors import ConfigError, RaftKVError, Unavailable
from raftkv.listener import Listener
from raftkv.logs import EventLog, LogHealth
from raftkv.machine import StateMachine
from raftkv.node import Node, Options, World
from raftkv.node.directory import is_new
from raftkv.server import descriptors
from raftkv.server.http import HttpServer
from raftkv.server.settings import Found, Settings, lone_founder, parse_address, with_port
from raftkv.server.tls import Renewal, node_tls
from raftkv.transport import Resolver, TcpTransport

logger = EventLog("raftkv")

HANDOVER_S = 3.0
"""How long the end of a leader's process may be held up by handing leadership over."""

SWITCH_INTERVAL_S = 0.0005
"""With the default of 5 ms, a thread that comes back from the disk waits that long for the interpreter."""


def find_machine(name: str) -> type[StateMachine]:
    """The class at `module:Class`; raises `ConfigError`, and what importing the module raises as such."""
    module_name, colon, class_name = name.partition(":")
    if not colon or not module_name or not class_name:
        raise ConfigError(f"machine = {name!r}: must be module:Class, such as raftkv.kv:KeyValue")
    if os.getcwd() not in sys.path:
        # A machine usually lies where one works; an installed script does not look there by itself.
        sys.path.insert(0, os.getcwd())
    try:
        module = importlib.import_module(module_name)
    except Exception as exc:
        raise ConfigError(f"machine = {name!r}: {type(exc).__name__}: {exc}") from exc
    machine = getattr(module, class_name, None)
    if not (isinstance(machine, type) and issubclass(machine, StateMachine)):
        raise ConfigError(f"machine = {name!r}: {class_name} in {module_name} is no StateMachine")
    return machine


def run_node(settings: Settings, log_health: Callable[[], LogHealth]) -> None:
    """Run a node until it is asked to stop (SIGTERM, SIGINT) or stops by itself.

    Raises the `NodeStopped` that says why it stopped by itself, and `ConfigError`.
    """
    # Before there is a loop, and after: a terminal that is closed ends no node.
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    machine = find_machine(settings.machine)
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    try:
        with asyncio.Runner(loop_factory=loop_factory()) as runner:
            runner.run(_Process(settings, machine, log_health).run())
    finally:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop]:
    """Makes the fastest event loop that there is here."""
    try:
        import uvloop
    except ImportError:  # there is none for Windows
        return asyncio.new_event_loop
    return uvloop.new_event_loop


class _Process:
    """Everything that one node's process runs."""

    def __init__(self, settings: Settings, machine: type[StateMachine], log_health: Callable[[], LogHealth]) -> None:
        self.settings = settings
        world = World.real()
        world.log_health = log_health
        files = (settings.tls_ca, settings.tls_cert, settings.tls_key)
        tls = node_tls(*files, settings.tls_peer_ca, settings.http_tls)
        self.renewal = Renewal(tls.every if tls is not None else ())
        room = descriptors.make_room()
        host, port = parse_address(settings.peer_listen.value)
        transport = TcpTransport(
            settings.node_id,
            host,
            port,
            config=settings.config,
            ssl_server=tls.peers.server if tls is not None else None,
            ssl_client=tls.peers.client if tls is not None else None,
            draw=world.draw,
            limits=room.transport_limits(settings.config),
        )
        self.transport = transport
        self.node = Node(machine, node_options(settings), transport, world)
        client_tls = tls.clients.server if tls is not None else None
        self.listener = Listener(self.node, room.server_limits(settings.config), ssl=client_tls)
        self.http: HttpServer | None = None
        self._http_tls = tls.http.server if tls is not None and tls.http is not None else None

    async def run(self) -> None:
        asked = self._listen_for_signals()
        watching = asyncio.create_task(descriptors.watch(), name="raftkv-files")
        renewing = asyncio.create_task(self.renewal.run(), name="raftkv-tls-files")
        try:
            if is_new(self.node.world.disk, self.node.paths):
                await self._take_addresses()
            else:
                await self._find_addresses()
            await self.node.start()
            await self._open_doors()
            ends: list[asyncio.Future[Any]] = [asked, self.node.stopped]
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            if asked.done():
                logger.info("stopping", node=self.settings.node_id, signal=asked.result())
                await self._hand_over()
        finally:
            watching.cancel()
            renewing.cancel()
            await self._close()
        if self.node.failure is not None:
            raise self.node.failure

    def _listen_for_signals(self) -> asyncio.Future[str]:
        """Done at the first signal; a second one ends the process at once."""
        loop = asyncio.get_running_loop()
        asked: asyncio.Future[str] = loop.create_future()

        def on_signal(number: signal.Signals) -> None:
            if asked.done():
                os._exit(128 + number)
            asked.set_result(number.name)

        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, on_signal, number)
        loop.add_signal_handler(signal.SIGHUP, self._renew)
        return asked

    def _renew(self) -> None:
        """What SIGHUP asks for, as of other servers: read files again. It never ends the process."""
        logger.info("asked_for_renewal", node=self.settings.node_id, signal="SIGHUP")
        self.renewal.look()

    async def _take_addresses(self) -> None:
        """Listen everywhere before a new directory is written: a wrong or taken address is not to found a cluster.

        Raises `ConfigError`.
        """
        settings = self.settings
        if not settings.members and not settings.join:
            lone_founder(settings)
        _, client_port = await self._listen_for_clients()
        if settings.http is not None:
            await _check_free("http", settings.http)
        _, peer_port = parse_address(await self._listen_for_peers())
        peer = with_port(settings.peer_listen.value, peer_port)
        client = with_port(settings.listen.value, client_port)
        members = settings.members
        if not members and not settings.join:
            members = (lone_founder(settings, peer_port, client_port),)
        self.node.settle(peer, client, members)

    async def _find_addresses(self) -> None:
        """A node that was here before listens where the membership says, unless somebody says where. Nothing is read
        before a given address is known to be free. Raises what `Node.open` raises, and `ConfigError`."""
        settings = self.settings
        if settings.listen.is_given:
            await _check_free("listen", settings.listen)
        await self.node.open()
        member = self.node.member(settings.node_id)
        if member is not None:
            told = {"listen": member.client_address, "peer_listen": member.peer_address}
            found = {
                name: Found(address, "the membership", False)
                for name, address in told.items()
                if address and not getattr(settings, name).is_given
            }
            settings = self.settings = msgspec.structs.replace(settings, **found)
        self.transport.settle(*parse_address(settings.peer_listen.value))
        _, client_port = await self._listen_for_clients()
        _, peer_port = parse_address(await self._listen_for_peers())
        self.node.settle(
            with_port(settings.peer_listen.value, peer_port), with_port(settings.listen.value, client_port)
        )

    async def _listen_for_clients(self) -> tuple[str, int]:
        listen = self.settings.listen
        try:
            return await self.listener.listen(*parse_address(listen.value))
        except Unavailable as exc:
            raise ConfigError(f"listen = {listen.value!r} (from {listen.source}): {exc}") from exc

    async def _listen_for_peers(self) -> str:
        listen = self.settings.peer_listen
        try:
            return await self.transport.listen()
        except ConfigError as exc:
            raise ConfigError(f"peer_listen = {listen.value!r} (from {listen.source}): {exc}") from exc

    async def _open_doors(self) -> None:
        settings = self.settings
        host, port = await self.listener.start(*parse_address(settings.listen.value))
        if settings.http is not None:
            try:
                self.http = HttpServer(*parse_address(settings.http.value), self.node.status, self._http_tls)
            except ConfigError as exc:
                raise ConfigError(f"{exc} (from {settings.http.source})") from exc
        logger.info(
            "serving",
            node=settings.node_id,
            clients=f"{host}:{port}",
            peers=self.transport.address,
            data_dir=settings.data_dir,
            machine=self.node.fingerprint,
        )

    async def _hand_over(self) -> None:
        """A leader that leaves names its heir, so that nobody waits for an election."""
        node = self.node
        if node.failure is not None or not node.raft.is_leader or len(node.raft.membership.voters) < 2:
            return
        try:
            heir = await node.transfer_leadership(None, HANDOVER_S)
            logger.info("leadership_handed_over", node=node.node_id, leader=heir)
        except RaftKVError as exc:
            # The others will elect one; what was acknowledged is durable either way.
            logger.warning("leadership_not_handed_over", node=node.node_id, reason=str(exc))

    async def _close(self) -> None:
        if self.http is not None:
            await asyncio.get_running_loop().run_in_executor(None, self.http.close)
        await self.listener.close()
        await self.node.stop()


async def _check_free(name: str, given: Found[str]) -> None:
    """Raises `ConfigError` when nobody could listen there now."""
    host, port = parse_address(given.value)
    try:
        hosts = await Resolver().hosts(host)
        server = await asyncio.get_running_loop().create_server(asyncio.Protocol, hosts, port)
    except OSError as exc:
        raise ConfigError(f"{name} = {given.value!r} (from {given.source}): {exc.strerror or exc}") from exc
    server.close()
    await server.wait_closed()


def node_options(settings: Settings) -> Options:
    """What a node is told of itself; where it listens is known only when it does."""
    return Options(
        node_id=settings.node_id,
        data_dir=settings.data_dir,
        members=settings.members,
        cluster_name=settings.cluster_name,
        rebuild=settings.rebuild,
        config=settings.config,
    )
