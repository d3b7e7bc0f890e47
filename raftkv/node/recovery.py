"""From a data directory to a node that could take part: files, core and state machine, but no connection yet."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Protocol

import msgspec

from raftkv import failpoints
from raftkv.core.raft import Raft
from raftkv.errors import StateCorruption
from raftkv.forks import leave, let_go_of_loop, tell_of_fork
from raftkv.logs import EventLog
from raftkv.machine import MethodTimes, Runner, StateMachine
from raftkv.model import Member, NodeId
from raftkv.node.directory import Opened, close_directory, is_new, open_directory
from raftkv.node.firing import Firings
from raftkv.node.inforce import InForce
from raftkv.node.mistakes import MethodMistakes
from raftkv.node.paths import Options, Paths
from raftkv.node.peers.moved import placed
from raftkv.node.slowness import SlowMethods
from raftkv.node.statefiles import give_up, mark_unfit
from raftkv.node.world import World
from raftkv.state import Store
from raftkv.transport import Transport

logger = EventLog(__name__)

failpoints.declare(
    __name__,
    {
        "founding.listening": "the address of a new directory's node is taken, and nothing is written",
    },
)


class Hosting(Protocol):
    """A program that keeps objects in memory beside the machine's state (such as `syncobj`), and must keep them equal.

    All methods are called on the loop's thread.
    """

    def loaded(self, runner: Runner) -> None:
        """The whole state is new: at the start, and after a snapshot was installed."""

    async def before_checkpoint(self, store: Store) -> None:
        """Write to `store` what its next snapshot must have. Nothing is applied until this returns."""

    def role_changed(self) -> None:
        """Called when the node's role, term or leader has changed."""


class NoHost:
    """For a program that keeps nothing beside the machine's state."""

    def loaded(self, runner: Runner) -> None:
        """There is nothing to load."""

    async def before_checkpoint(self, store: Store) -> None:
        """There is nothing to save."""

    def role_changed(self) -> None:
        """There is nothing to do."""


class Recovered:
    """An open data directory with its core and state machine. A `Node` is made of it, or it is closed again."""

    def __init__(
        self,
        machine: type[StateMachine],
        options: Options,
        transport: Transport,
        world: World,
        host: Hosting,
        opened: Opened,
    ) -> None:
        """Raises `StateCorruption` when the state machine finds its state damaged."""
        self.machine = machine
        self.options = options = msgspec.structs.replace(options, config=opened.live.config)
        self.transport = transport
        self.world = world
        self.host = host
        self.opened = opened
        self.raft = Raft(
            node_id=options.node_id,
            config=options.config.raft(),
            draw=world.draw,
            hard_state=opened.vote.hard_state,
            log=opened.view,
            applied_index=opened.store.applied.index,
            snapshot=opened.snapshot,
        )
        self.mistakes = MethodMistakes(options.node_id, world.clock)
        self.firings = Firings(options.node_id)
        self.in_force = InForce()
        self.times = MethodTimes(world.clock, SlowMethods(options.node_id, world.clock).met)
        self.runner = self.new_runner(opened.store)
        self._is_taken = False
        self._loop = asyncio.get_running_loop()
        tell_of_fork(self)

    def new_runner(self, store: Store) -> Runner:
        """Run the state machine on `store`, and let the host load its objects from it."""
        config = self.options.config
        runner = Runner(
            self.machine,
            store,
            sessions_max=config.sessions_max,
            session_ttl_ms=int(config.session_ttl_s * 1000),
            slice_reads=config.query_slice_reads,
            on_mistake=self.mistakes.met,
            on_fired=self.firings.met,
            on_access=self.in_force.took_effect,
            times=self.times,
        )
        self.host.loaded(runner)
        return runner

    def member(self, node_id: NodeId) -> Member | None:
        """`node_id` with its addresses, by the newest membership and the operator's file; None if it is no member."""
        return placed(self.raft.membership, self.opened.moved).member(node_id)

    def settle(self, peer_address: str, client_address: str) -> None:
        """Set where this node listens, for a caller that had to look that up in the membership (`member`)."""
        self.options = msgspec.structs.replace(self.options, peer_address=peer_address, client_address=client_address)

    def taken(self) -> None:
        """A node has been made of this; from now on that closes the files."""
        self._is_taken = True

    async def close(self) -> None:
        """Close all files, unless a node was made of this. For a caller that can't go on after `recover`."""
        if self._is_taken:
            return
        self.transport.abort()
        await self.world.background_worker.run(close_directory, self.opened)

    def after_fork(self) -> None:
        """In a child, all of this is the parent's, and is kept alive until the child ends: to free the store would
        close it, which writes what is in its memory."""
        leave(self)
        let_go_of_loop(self._loop)


async def recover(
    machine: type[StateMachine],
    options: Options,
    transport: Transport,
    world: World,
    host: Hosting = NoHost(),
) -> Recovered:
    """Recover what is on disk, or make a new directory.

    For a new directory, the node listens for peers first, so that no cluster is founded at an address that can't be
    used. Raises a `NodeStopped` or `ConfigError` that says what to do; all files are closed then.
    """
    options = msgspec.structs.replace(options, machine=machine.__name__)
    try:
        if is_new(world.disk, Paths(options.data_dir)):
            await transport.listen()
            failpoints.reach("founding.listening")
        return await _recover(machine, options, transport, world, host)
    except BaseException:
        transport.abort()
        raise


async def _recover(
    machine: type[StateMachine], options: Options, transport: Transport, world: World, host: Hosting
) -> Recovered:
    """Open the directory. If the state proves damaged only when it is read, have it rebuilt and try again, once."""
    worker = world.background_worker
    is_second_try = False
    while True:
        found: list[Opened] = []
        try:
            opened = await worker.run(_open_into, found, options, world)
        except asyncio.CancelledError:
            worker.run(_close_all, found)  # after what it may still be opening, which nobody would close otherwise
            raise
        try:
            return Recovered(machine, options, transport, world, host, opened)
        except BaseException as exc:
            await worker.run(give_up, partial(close_directory, opened))
            if not isinstance(exc, StateCorruption) or is_second_try:
                raise
            is_second_try = True
            await worker.run(mark_unfit, world.disk, Paths(options.data_dir), exc)
            logger.error("state_damaged", node=options.node_id, error=str(exc))


def _open_into(found: list[Opened], options: Options, world: World) -> Opened:
    opened = open_directory(options, world)
    found.append(opened)
    return opened


def _close_all(found: list[Opened]) -> None:
    for opened in found:
        close_directory(opened)
