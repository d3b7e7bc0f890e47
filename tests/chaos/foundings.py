"""Clusters that are founded with mistakes and interruptions, and members that move."""

from __future__ import annotations

import asyncio
import os
import random
import socket
import sys
from contextlib import closing
from pathlib import Path

import msgspec

from raftkv.client import Client
from raftkv.model import Member
from raftkv.processes.cluster import NodeProcess, ProcessCluster, import_path, member_argument
from raftkv.processes.ports import free_ports
from raftkv.transport.tcp import split_address
from raftkv.worlds.workload import Workload
from tests.chaos.clients import MACHINE
from tests.chaos.damage import last_line
from tests.chaos.fault import RealFault
from tests.chaos.points import arm, check_killed, ends
from tests.chaos.stage import DEADLINE_S, ChaosStage
from tests.chaos.tally import Tally

STEPS = (
    "founding.listening",
    "cluster.before_save",
    "disk.before_sync",
    "atomic.before_rename",
    "atomic.after_rename",
    "start.recovered",
    "vote.before_write",
    "vote.between_copies",
    "vote.after_sync",
    "start.counted",
    "start.before_record",
)
"""What a founder's first start comes to, in this order; one killed at a step comes to all that are behind it again."""

EXIT_USAGE = 2

COUNTED = 10


class Founded(RealFault):
    """A small cluster beside the other one is founded with a port that is taken, killed at steps of it, and moved.

    Its first node finds its port for peers taken, writes nothing, and gets another one. It is killed at two steps and
    started again as it was. Then the cluster serves with the addresses that were meant; a member moves to others.
    """

    kind = "a founding cut off and done again"
    taken = "a founding whose port was taken"
    moved = "a member moved to other addresses"
    rows = "F83"

    def __init__(self, dice: random.Random, times: int = 2) -> None:
        self._dice = dice
        self._steps = sorted(dice.sample(STEPS, k=times), key=STEPS.index)

    async def inject(self, stage: ChaosStage) -> None:
        directory = stage.directory / f"founding-{stage.fired[self.taken]}"
        with ProcessCluster(directory, 3, arguments=MACHINE, launch=stage.cluster.launch) as cluster:
            own = ChaosStage(cluster, self._dice, directory)
            node = self._dice.choice([*cluster.nodes.values()])
            await self._find_port_taken(own, node)
            stage.met(self.taken)
            for name in self._steps:
                arm(own, node, f"{name}:kill")
                assert await ends(node, DEADLINE_S), f"a founder does not come to {name}"
                check_killed(own, node, name)
                stage.met(self.kind)
                stage.met(f"founding killed at {name}")
            cluster.start_all()
            tally = Tally(b"founded", Client(Workload, cluster.addresses))
            try:
                await tally.more(COUNTED, DEADLINE_S)
                await own.until(lambda: self._is_as_meant(own), "all members where they were meant to be")
                await self._move(own, self._dice.choice([*cluster.nodes.values()]))
                await tally.more(COUNTED)
                stage.met(self.moved)
                await tally.stop(cluster.addresses)
            finally:
                await tally.close()
            await own.until_equal()

    async def _find_port_taken(self, stage: ChaosStage, node: NodeProcess) -> None:
        """Start a founder whose port somebody has; all who are to be founders are told another one then."""
        taken = node.own.peer_address
        with closing(socket.create_server(split_address(taken))):
            node.start()
            assert await ends(node, DEADLINE_S), f"node {node.node_id} goes on without its port {taken}"
        assert node.process is not None
        code, said = node.process.poll(), last_line(node)
        assert code == EXIT_USAGE and taken in said, f"node {node.node_id} without its port {taken}: {code}, {said}"
        assert not await asyncio.to_thread(Path(node.data_dir).exists), (
            f"node {node.node_id} was founded without its port"
        )
        before = member_argument(node.member)
        (port,) = free_ports(1)
        _put(node, msgspec.structs.replace(node.member, peer_address=f"127.0.0.1:{port}"))
        for each in stage.cluster.nodes.values():
            each.arguments = [
                member_argument(node.member) if argument == before else argument for argument in each.arguments
            ]

    async def _is_as_meant(self, stage: ChaosStage) -> bool | None:
        meant = {node.member for node in stage.cluster.nodes.values()}
        statuses = await stage.statuses()
        return (
            len(statuses) == len(meant)
            and all({*status.membership.members} == meant and not status.misplaced for status in statuses)
            and all(peer.connected for status in statuses for peer in status.peers)
        ) or None

    async def _move(self, stage: ChaosStage, node: NodeProcess) -> None:
        """Start a member elsewhere, and tell the others by the command for it."""
        code = await asyncio.to_thread(node.terminate)
        assert code == 0, f"node {node.node_id} ended with {code} after SIGTERM"
        peer, client = (f"127.0.0.1:{port}" for port in free_ports(2))
        _put(node, Member(node.node_id, peer, client))
        node.start()
        addresses = [word for address in stage.cluster.addresses for word in ("-a", address)]
        command = ["member", "update", member_argument(node.member), *addresses, "--timeout", f"{DEADLINE_S:g}"]

        async def ask() -> bool | None:
            """Again while the node is not there yet, or nobody leads after it went."""
            program = await asyncio.create_subprocess_exec(
                sys.executable,
                *("-m", "raftkv", *command),
                stdout=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.DEVNULL,
                env={**os.environ, "PYTHONPATH": import_path()},
            )
            return await program.wait() == 0 or None

        await stage.until(ask, f"raftkv {' '.join(command)}")
        await stage.until(lambda: self._is_as_meant(stage), f"node {node.node_id} where it has moved to")

    def describe(self) -> str:
        return f"{self.kind}: killed at {', '.join(self._steps)}"


def _put(node: NodeProcess, member: Member) -> None:
    """It will listen at these addresses from its next start on, and be looked for there."""
    changed = {
        node.own.peer_address: member.peer_address,
        node.own.client_address: member.client_address,
    }
    node.arguments = [changed.get(argument, argument) for argument in node.arguments]
    node.member = node.listens = member
