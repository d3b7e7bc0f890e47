"""Programs that fork in the midst of what their clients do."""

from __future__ import annotations

import asyncio
import os
import random
import sys

import msgspec

from raftkv.processes.cluster import import_path
from tests.chaos import tally
from tests.chaos.fault import RealFault
from tests.chaos.forking import Counted
from tests.chaos.stage import ChaosStage

PROGRAM_S = 240.0
"""For all of it, with a leader killed meanwhile; some seconds on an idle machine."""


class Forks(RealFault):
    """A program with a client under load forks again and again; the leader is killed in the middle of it.

    Its children count on with what they find, or close it. Parent and children count to each number once, nothing
    that was acknowledged is lost, and none of them hangs.
    """

    kind = "a process with a live client forked"
    rows = "F89"

    def __init__(self, dice: random.Random, times: int = 8) -> None:
        self._key = b"forked%d" % dice.getrandbits(32)
        self._times = times

    async def inject(self, stage: ChaosStage) -> None:
        addresses = stage.cluster.addresses
        command = [sys.executable, "-m", "tests.chaos.forking", self._key.decode(), str(self._times)]
        program = await asyncio.create_subprocess_exec(
            *command,
            *addresses,
            stdout=asyncio.subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": import_path()},
        )
        try:
            reading = asyncio.ensure_future(program.communicate())
            await stage.until(lambda: self._has_begun(addresses), "a program that counts")
            leader = await stage.leader()
            stage.note(f"SIGKILL to node {leader.node_id}, which leads, while a program forks")
            leader.kill()
            leader.start()
            said, _ = await asyncio.wait_for(reading, PROGRAM_S)
        finally:
            if program.returncode is None:
                program.kill()
                await program.wait()
        assert program.returncode == 0, f"a program that forks has ended with {program.returncode}"
        found = msgspec.json.decode(said, type=Counted)
        assert found.hung == 0, f"{found.hung} children of {self._times} hung"
        tally.check(self._key, found.numbers, found.unknown, await tally.counted(self._key, addresses))
        stage.note(f"{len(found.numbers)} increments were acknowledged in all, {found.unknown} are unknown")
        stage.met(self.kind, self._times)

    async def _has_begun(self, addresses: list[str]) -> bool | None:
        return await tally.counted(self._key, addresses) > 0 or None

    def describe(self) -> str:
        return f"{self.kind}: {self._times} times"
