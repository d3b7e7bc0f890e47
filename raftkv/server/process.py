"""A node's process: brings up the node with everything around it, waits for the end, takes it down in order."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import os
import signal
import sys
from collections.abc import Callable
from typing import Any

from raftkv.errors import ConfigError, Unavailable
from raftkv.logs import EventLog, LogHealth
from raftkv.machine import StateMachine
from raftkv.node import World
from raftkv.server import descriptors
from raftkv.server.assembly import Running, Surroundings, bring_up
from raftkv.server.settings import Settings
from raftkv.server.systemd import Supervisor, status_line
from raftkv.server.tls import Tls, node_tls
from raftkv.transport import SecretFile

logger = EventLog(__name__)

SWITCH_INTERVAL_S = 0.0005
"""With the default of 5 ms, a thread that comes back from the disk waits that long for the interpreter."""


def find_machine(name: str) -> type[StateMachine]:
    """The class at `module:Class`; raises `ConfigError`, and what importing the module raises as such."""
    module_name, colon, class_name = name.partition(":")
    if not colon or not module_name or not class_name:
        raise ConfigError(f"machine = {name!r}: must be module:Class, such as raftkv.kv:KeyValue")
    # A machine usually lies where one works; an installed script does not look there by itself. Nothing lies in a
    # directory that was removed.
    with contextlib.suppress(FileNotFoundError):
        if os.getcwd() not in sys.path:
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
    """A node, and the signals that its process gets."""

    def __init__(self, settings: Settings, machine: type[StateMachine], log_health: Callable[[], LogHealth]) -> None:
        self._settings = settings
        self._machine = machine
        files = (settings.tls_ca, settings.tls_cert, settings.tls_key)
        tls = Tls.of(node_tls(*files, settings.tls_peer_ca, settings.http_tls, settings.tls_peer_names))
        secret = SecretFile(settings.peer_secret_file) if settings.peer_secret_file is not None else None
        world = World.real()
        world.log_health = log_health
        self._surroundings = Surroundings(world, descriptors.make_room(), tls, secret)
        self._supervisor = Supervisor.of(os.environ, os.getpid())
        self._running: Running | None = None
        """None while it starts: what SIGHUP asks for was done just now."""

    async def run(self) -> None:
        """Until the end. Raises the `NodeStopped` that says why it stopped by itself, and `ConfigError`."""
        try:
            await self._run()
        finally:
            if self._supervisor is not None:
                self._supervisor.close()

    async def _run(self) -> None:
        asked, supervisor = self._listen_for_signals(), self._supervisor
        try:
            if supervisor is not None:
                supervisor.starting()
            running = self._running = await bring_up(self._machine, self._settings, self._surroundings)
        except Unavailable as exc:
            raise ConfigError(str(exc)) from exc
        try:
            self._say_serving(running)
            ends: list[asyncio.Future[Any]] = [asked, running.node.stopped]
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            if supervisor is not None:
                failure = running.node.failure
                supervisor.stopping("was asked to stop" if failure is None else str(failure))
            if asked.done():
                logger.info("stopping", node=self._settings.node_id, signal=asked.result())
                await running.hand_over()
        finally:
            await running.stop()
        if running.node.failure is not None:
            raise running.node.failure

    def _say_serving(self, running: Running) -> None:
        logger.info(
            "serving",
            node=self._settings.node_id,
            clients=running.clients,
            peers=running.peers,
            data_dir=self._settings.data_dir,
            machine=running.node.fingerprint,
        )
        if self._supervisor is not None:
            self._supervisor.serving(lambda: status_line(running.node), self._surroundings.world.log_worker)

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
        logger.info("asked_for_renewal", node=self._settings.node_id, signal="SIGHUP")
        if self._running is not None:
            self._running.renew()
