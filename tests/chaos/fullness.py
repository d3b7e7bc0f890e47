"""Disks that are full, to the last byte, and have space again later."""

from __future__ import annotations

import asyncio
import errno
import os
import random
from pathlib import Path

from raftkv.client import Client, ClientOptions
from raftkv.errors import RaftKVError
from raftkv.processes.cluster import NodeProcess
from raftkv.worlds.workload import Workload
from tests.chaos.damage import judge_end, judge_start
from tests.chaos.fault import RealFault
from tests.chaos.power import move_to
from tests.chaos.stage import ChaosStage

FILLER = "filler"
VALUE_BYTES = 100_000
"""Of commands that make logs grow; what was written ahead of them is soon used up."""


class DiskFilled(RealFault):
    """Somebody else fills the disks of some nodes, while commands need space; then there is space again.

    A node must refuse commands or end, and say so. One that has ended is started again when there is space.
    Each node's directory is a small file system of its own; they are moved to such, unless they are.
    """

    rows = "F13 F14"

    kind = "a full disk"

    def __init__(self, dice: random.Random, count: int, *, of_leader: bool) -> None:
        self._dice, self._count, self._of_leader = dice, count, of_leader
        self._chosen: list[NodeProcess] = []

    async def inject(self, stage: ChaosStage) -> None:
        if not stage.images:
            await move_to(stage, "ext4")
        leader = await stage.leader()
        followers = [node for node in stage.cluster.nodes.values() if node is not leader]
        self._dice.shuffle(followers)
        self._chosen = ([leader, *followers] if self._of_leader else [*followers, leader])[: self._count]
        for node in self._chosen:
            fill(stage.images[node.node_id].mount_point / FILLER)
        client = Client(Workload, stage.cluster.addresses, options=ClientOptions(deadline_s=1.0))
        try:
            await stage.until(lambda: self._all_say_so(stage, client), "every node with a full disk saying so")
        finally:
            await client.close()

    async def _all_say_so(self, stage: ChaosStage, client: Client[Workload]) -> bool | None:
        try:
            await client.call("put", b"large", bytes(VALUE_BYTES))
        except RaftKVError as exc:
            stage.note(f"a large value: {exc}")
        statuses = [await stage.status(node.node_id) for node in self._chosen]
        low = [status for status in statuses if status is not None and status.disk_low]
        # A leader refuses commands and goes on, so its followers need no space. Those of another one have to write.
        is_refused = any(status.role == "leader" for status in low)
        for node in self._chosen:
            if not node.is_running:
                said = judge_end(node).said
                assert "disk is full" in said or "No space" in said, said
            elif not is_refused or not any(status.node_id == node.node_id for status in low):
                return None
        return True

    async def heal(self, stage: ChaosStage) -> None:
        for node in self._chosen:
            image = stage.images[node.node_id]
            (image.mount_point / FILLER).unlink()
            await asyncio.to_thread(image.sync)  # else the next loss of power brought the filler back
            stage.met(self.kind)
        ended = [node for node in self._chosen if not node.is_running]
        for node in ended:
            node.start()
        for node in ended:
            verdict = await judge_start(stage, node)
            assert verdict.advice is None, f"node {node.node_id} does not start again: {verdict.said}"

    def describe(self) -> str:
        return f"{self.kind}: of {self._count} nodes, {'with' if self._of_leader else 'without'} the leader"


def fill(path: Path) -> None:
    """Write a file until nothing more fits on its file system."""
    with path.open("wb", buffering=0) as file:
        for size in (1 << 20, 4096, 1):
            try:
                while True:
                    file.write(bytes(size))
            except OSError as exc:
                if exc.errno != errno.ENOSPC:
                    raise
        os.fsync(file.fileno())
