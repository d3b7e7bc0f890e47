"""From a data directory to a node that could take part: files, core and state machine, before anybody hears of it."""

from __future__ import annotations

import asyncio
from typing import Protocol

import msgspec

from raftkv import failpoints
from raftkv.core.raft import Raft
from raftkv.errors import StateCorruption
from raftkv.forks import leave, let_go_of_loop, tell_of_fork
from raftkv.logs import EventLog
from raftkv.machine import Runner, StateMachine
from raftkv.model import Member, NodeId
from raftkv.node.directory import Opened, close_directory, is_new, open_directory
from raftkv.node.paths import Options, Paths
from raftkv.node.statefiles import mark_unfit
from raftkv.node.world import World
from raftkv.state import Store
from raftkv.transport import Transport

logger = EventLog("raftkv")

failpoints.declare(
    __name__,
    {
        "founding.listening": "the address of a new directory's node is taken, and nothing is written",
    },
)


class Hosting(Protocol):
    """Who keeps objects in memory that change when the machine's state does. All is called on the loop's thread."""

    def loaded(self, runner: Runner) -> None:
        """The state is another one: at the start, and when a snapshot was installed."""

    async def before_checkpoint(self, store: Store) -> None:
        """A snapshot is about to be made of `store`; nothing is applied until this returns."""

    def role_changed(self) -> None:
        """There is another role, term or leader."""


class NoHost:
    """For a machine whose state is all that there is."""

    def loaded(self, runner: Runner) -> None:
        """Nothing else is there to be loaded."""

    async def before_checkpoint(self, store: Store) -> None:
        """Nothing else is there to be saved."""

    def role_changed(self) -> None:
        """Nobody asks."""


class Recovered:
    """An open data directory with core and state machine on it, for a `Node` to go on with, or to be closed again."""

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
        self.options = options
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
        self.runner = self.new_runner(opened.store)
        self._is_taken = False
        self._loop = asyncio.get_running_loop()
        tell_of_fork(self)

    def new_runner(self, store: Store) -> Runner:
        """The state machine on `store`, and what its host keeps of it."""
        config = self.options.config
        runner = Runner(
            self.machine,
            store,
            sessions_max=config.sessions_max,
            session_ttl_ms=int(config.session_ttl_s * 1000),
            slice_reads=config.query_slice_reads,
        )
        self.host.loaded(runner)
        return runner

    def member(self, node_id: NodeId) -> Member | None:
        """Where `node_id` is by the newest membership here, and by what an operator wrote; None when it is none."""
        membership, moved = self.raft.membership, self.opened.moved
        return (membership if moved is None else moved.applied_to(membership)).member(node_id)

    def settle(self, peer_address: str, client_address: str) -> None:
        """Where this node listens, for who learned only from the membership where that should be."""
        self.options = msgspec.structs.replace(self.options, peer_address=peer_address, client_address=client_address)

    def taken(self) -> None:
        """A node goes on with it, and closes what there is to close."""
        self._is_taken = True

    async def close(self) -> None:
        """Close everything again, if no node has taken it; for who has recovered a directory, and can't go on."""
        if self._is_taken:
            return
        self.transport.abort()
        await self.world.background_worker.run(close_directory, self.opened)

    def after_fork(self) -> None:
        """In a child: all of it is the parent's. The store would be closed when the child ends, which writes what it
        has in memory, so it never ends there."""
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

    For a new one the address for peers is taken first: a cluster that nobody could reach is not founded.
    Raises a `NodeStopped` or `ConfigError` that says what to do; nothing stays open then.
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
    """A state whose damage shows only when it is read is rebuilt, once."""
    worker = world.background_worker
    is_second_try = False
    while True:
        opened = await worker.run(open_directory, options, world)
        try:
            return Recovered(machine, options, transport, world, host, opened)
        except BaseException as exc:
            await worker.run(close_directory, opened)
            if not isinstance(exc, StateCorruption) or is_second_try:
                raise
            is_second_try = True
            await worker.run(mark_unfit, world.disk, Paths(options.data_dir), exc)
            logger.error("state_damaged", node=options.node_id, error=str(exc))
