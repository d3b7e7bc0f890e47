"""Nodes that differ in what must not matter: hash seed, time zone, language, clock; and one that is slow."""

from __future__ import annotations

import asyncio
import contextlib
import random
import signal
import subprocess

from raftkv.client import Client
from raftkv.config import MIB
from raftkv.errors import RaftKVError
from raftkv.kv import KeyValue
from tests.chaos.fault import RealFault
from tests.chaos.power import until_answers
from tests.chaos.probe import usage
from tests.chaos.stage import ChaosStage

ZONES = ("UTC", "Asia/Kolkata", "America/St_Johns", "Pacific/Kiritimati", "<+05>-5")
LANGUAGES = ("C", "C.UTF-8", "POSIX", "de_DE.UTF-8", "tr_TR.UTF-8")

SLOW_RSS_MAX = 192 * MIB
"""What a leader may need more because a follower does not listen: its cache of the log, what is under way to it, and
what clients wait for; all are bounded by the configuration."""

STOPPED_LONG_S = 60.0


def shifted(seconds: int) -> list[str]:
    """A command that gives the one behind it a monotonic clock of its own, so much ahead; none without root.

    The wall clock is the same for all processes of a host, and is set apart in simulated worlds only.
    """
    command = ["unshare", "--time", "--monotonic", str(seconds)]
    try:
        works = subprocess.run([*command, "true"], capture_output=True).returncode == 0
    except OSError:
        works = False
    return command if works else []


class Surroundings(RealFault):
    """One node after the other comes back with other surroundings; at the end their states have to be equal.

    They differ in the seed of hashes, time zone and language, and with root in what their monotonic clocks say.
    """

    kind = "nodes in different surroundings"
    rows = "F42 F73 F76"

    def __init__(self, dice: random.Random) -> None:
        self._dice = dice

    async def inject(self, stage: ChaosStage) -> None:
        zones, languages = self._dice.sample(ZONES, k=3), self._dice.sample(LANGUAGES, k=3)
        for number, node in enumerate(stage.cluster.nodes.values()):
            await stage.leader()
            await asyncio.to_thread(node.terminate)
            node.environment["PYTHONHASHSEED"] = str(self._dice.randrange(1, 2**32))
            node.environment["TZ"], node.environment["LC_ALL"] = zones[number % 3], languages[number % 3]
            node.wrapper = await asyncio.to_thread(shifted, self._dice.randrange(10**6))
            stage.note(f"node {node.node_id} starts with {node.environment} and its clock by {node.wrapper}")
            node.start()
            await until_answers(stage, node)
            stage.met(self.kind)

    def describe(self) -> str:
        return self.kind


class SlowFollower(RealFault):
    """SIGSTOP to a follower under heavy load: the leader's memory stays bounded, and the others go on (F34)."""

    kind = "a follower stopped under load"
    long = "a follower stopped under load for a minute"
    """Its kind from `STOPPED_LONG_S` on."""
    rows = "F34"

    def __init__(self, dice: random.Random, seconds: float = 10.0, *, value_bytes: int = 64 * 1024) -> None:
        self._dice = dice
        self._seconds = seconds
        self._value_bytes = value_bytes
        self._written = 0
        if seconds >= STOPPED_LONG_S:
            self.kind = self.long

    async def inject(self, stage: ChaosStage) -> None:
        leader = await stage.leader()
        others = [node for node in stage.cluster.nodes.values() if node is not leader]
        node = self._dice.choice(others)
        before = usage(leader).rss_bytes
        stage.note(f"SIGSTOP to node {node.node_id}, which follows, for {self._seconds:g} s")
        node.signal(signal.SIGSTOP)
        loads = [asyncio.ensure_future(self._load(stage, number)) for number in range(4)]
        try:
            await asyncio.sleep(self._seconds)
            grown = usage(leader).rss_bytes - before
        finally:
            node.signal(signal.SIGCONT)
            for load in loads:
                load.cancel()
            await asyncio.wait(loads)
        stage.note(f"{self._written / MIB:.0f} MiB were written, and the leader has grown by {grown / MIB:.0f} MiB")
        assert grown < SLOW_RSS_MAX, f"the leader has grown by {grown / MIB:.0f} MiB while a follower was stopped"
        if self._written:
            stage.met(self.kind)

    async def _load(self, stage: ChaosStage, number: int) -> None:
        client = Client(KeyValue, stage.cluster.addresses)
        value = self._dice.randbytes(self._value_bytes)
        try:
            while True:
                with contextlib.suppress(RaftKVError):
                    await client.call("put", b"load%d" % number, value)
                    self._written += len(value)
        finally:
            await client.close()

    def describe(self) -> str:
        return f"{self.kind}: {self._seconds:g} s"
