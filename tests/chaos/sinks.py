"""Where a node's log goes when nobody takes it: a full pipe, one whose reader has died, a full disk."""

from __future__ import annotations

import os
import random
import sys
from enum import StrEnum

from raftkv.processes.cluster import NodeProcess
from tests.chaos.fault import RealFault
from tests.chaos.stage import ChaosStage


class BadSink(StrEnum):
    """What is wrong with the descriptors that a node logs and prints to."""

    STUCK = "stuck"
    """A full pipe that nobody reads."""
    DEAD = "dead"
    """A pipe whose reader is gone (EPIPE)."""
    FULL = "full"
    """A device without space (ENOSPC)."""


_BECOME = """
import os, sys
what, *command = sys.argv[1:]
if what == "full":
    writes = os.open("/dev/full", os.O_WRONLY)
elif what.isdigit():
    os.close(int(what))
else:
    reads, writes = os.pipe()
    if what == "dead":
        os.close(reads)
    else:
        os.set_inheritable(reads, True)
        os.set_blocking(writes, False)
        for size in (4096, 1):
            try:
                while True:
                    os.write(writes, bytes(size))
            except BlockingIOError:
                pass
        os.set_blocking(writes, True)
if not what.isdigit():
    os.dup2(writes, 1)
    os.dup2(writes, 2)
os.execvp(command[0], command)
"""


def with_sink(what: BadSink) -> list[str]:
    """The wrapper (`NodeProcess.wrapper`) of a node that logs to such a thing."""
    return [sys.executable, "-c", _BECOME, what]


def without_descriptor(number: int) -> list[str]:
    """The wrapper of a node that starts with this one closed, as some supervisors leave it."""
    return [sys.executable, "-c", _BECOME, str(number)]


def open_sink(node: NodeProcess) -> int:
    """Become the reader of the pipe that `node` logs to, whoever read it before; returns a descriptor to read from."""
    assert node.process is not None, "only a process has a log"
    return os.open(f"/proc/{node.process.pid}/fd/2", os.O_RDONLY | os.O_NONBLOCK)


class LogUnread(RealFault):
    """Nobody takes what some nodes log any more, the leader's among it, while another one is killed and comes back.

    None of it may matter to anybody else: links are made anew, clients are served, SIGTERM ends every node in time.
    """

    kind = "a log that nobody takes"
    rows = "F78"

    def __init__(self, dice: random.Random) -> None:
        self._dice = dice
        self._what = dice.choice([*BadSink])
        self._restarted: list[NodeProcess] = []

    async def inject(self, stage: ChaosStage) -> None:
        leads = await self._restart(stage, self._dice.choice([*stage.cluster.nodes.values()]), with_sink(self._what))
        await stage.make_lead(leads)
        other = self._dice.choice([node for node in stage.cluster.nodes.values() if node is not leads])
        stage.note(f"SIGKILL to node {other.node_id}; node {leads.node_id} can't log")
        stage.cluster.kill(other.node_id)
        other.start()
        await stage.until(lambda: self._is_met(stage, leads), "a node that can't log, and all peers connected")
        stage.met(self.kind)

    async def _is_met(self, stage: ChaosStage, node: NodeProcess) -> bool | None:
        """Whether the log fails as meant, and the one that came back is linked to whoever leads now."""
        status, leader = await stage.status(node.node_id), await stage.status((await stage.leader()).node_id)
        if status is None or leader is None or status.log_problem is None:
            return None
        return all(peer.connected for peer in leader.peers if peer.node_id in stage.cluster.nodes) or None

    async def _restart(self, stage: ChaosStage, node: NodeProcess, wrapper: list[str]) -> NodeProcess:
        node.wrapper = wrapper
        self._restarted.append(node)
        await stage.restart(node)
        return node

    async def heal(self, stage: ChaosStage) -> None:
        for node in {node.node_id: node for node in self._restarted if node.wrapper}.values():
            await self._restart(stage, node, [])

    def describe(self) -> str:
        return f"{self.kind}: it is {self._what}"
