"""A rolling upgrade, stage by stage: what is restarted, when the leader is killed, and what must be so then."""

from __future__ import annotations

import asyncio
import random
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from raftkv.model import NodeId
from raftkv.processes.cluster import NodeProcess, launch
from raftkv.version import __version__
from tests.chaos.stage import ChaosStage
from tests.forked import ForkedCluster, fork
from tests.formats.before import RELEASE, environment, unpack
from tests.rolling.load import Clients, History, judged
from tests.rolling.second import Jobs

FIRST, SECOND = "tests.rolling.first:Jobs", "tests.rolling.second:Jobs"

KILL, FORWARD, BACK, RAISED, ORDERED = "kill", "forward", "back", "raised", "ordered"
"""SIGKILL of the leader; a node that gets the second version, or the first again; the version becomes active by
itself, or by an operator's order: there the leader is killed again, between two pieces of the upgrade."""

UP, DOWN = "up", "down"
"""A node that gets this raftkv, or the release before it again. Nodes begin with that one where these are."""

ROLL = (KILL, FORWARD, KILL, FORWARD, KILL, BACK, KILL, BACK, KILL, FORWARD, KILL, FORWARD, KILL, FORWARD, RAISED, KILL)
"""With the way back from two nodes of three."""

ORDER = (KILL, FORWARD, FORWARD, KILL, FORWARD, KILL, ORDERED, KILL)
"""Nodes that wait for an operator."""

RELEASES = (
    *(KILL, UP, KILL, UP, KILL, DOWN, KILL, UP, UP, KILL, DOWN, DOWN, DOWN, KILL, UP, UP, KILL, UP),
    *(FORWARD, FORWARD, FORWARD, RAISED, KILL, DOWN, KILL, DOWN, KILL, DOWN, KILL),
)
"""Of raftkv itself, there and back twice: the second time with what an application's upgrade has left."""

BRIEF_RELEASES = (UP, KILL, UP, DOWN, UP, UP, FORWARD, FORWARD, FORWARD, RAISED, KILL, DOWN, DOWN, DOWN, KILL)

BRIEF = (FORWARD, BACK, FORWARD, FORWARD, KILL, FORWARD, RAISED)

INDETERMINATE = 4
"""How `raftkv upgrade` ends when the leader that it asked is gone."""

LAGGING = {"RAFTKV_SNAPSHOT_ENTRIES": "100", "RAFTKV_SNAPSHOT_INTERVAL_S": "0", "RAFTKV_KEEP_ENTRIES": "20"}
"""With these a node that was away for a moment needs a snapshot: of another release's, too."""

UNLESS_ORDERED_S = 1.0
"""For so long at least nothing becomes active that nobody has ordered."""


class Outcome(msgspec.Struct):
    """What came of it."""

    stages: list[tuple[str, float]] = []
    answered: int = 0
    by_version: dict[int, int] = {}
    refused: dict[str, int] = {}
    longest_s: float = 0.0
    kills: int = 0
    killed_at_step: int | None = None
    """How many pieces of the upgrade had been done when the leader was killed between them; None: it was not."""
    pieces: int = 0
    added: int = 0
    installed: int = 0
    """Snapshots that were installed."""
    problems: list[str] = []

    def table(self) -> list[str]:
        """For people."""
        lines = [f"{seconds:7.2f} s  {stage}" for stage, seconds in self.stages]
        served = ", ".join(f"{count:,} of version {version}" for version, count in sorted(self.by_version.items()))
        refused = ", ".join(f"{count:,} {kind}" for kind, count in sorted(self.refused.items()))
        lines += [
            f"calls answered      {self.answered:,} ({served}), the slowest in {self.longest_s:.2f} s",
            f"refused before it   {refused or 'none'}",
            f"leaders killed      {self.kills}, one of them after {self.killed_at_step} of {self.pieces} pieces",
            f"jobs acknowledged   {self.added:,}",
            f"snapshots installed {self.installed}",
            f"problems            {len(self.problems)}",
        ]
        return lines + [f"  {problem}" for problem in self.problems[:20]]


class Story:
    """Plays stages on three nodes, under load."""

    def __init__(
        self,
        stage: ChaosStage,
        *,
        jobs: int,
        say: Callable[[str], None] = lambda line: None,
        before: Path | None = None,
    ) -> None:
        """`jobs` are there before: the upgrade has a piece for every few of them. `say` gets a line for each stage;
        `before` is the source of the release before, with which nodes begin."""
        self._stage = stage
        self._before = before
        self._old: set[NodeId] = set() if before is None else {*stage.cluster.nodes}
        self._jobs = jobs
        self._say = say
        self._history = History()
        self._runs: dict[NodeId, int] = dict.fromkeys(stage.cluster.nodes, 1)
        self.outcome = Outcome()

    async def play(self, stages: Sequence[str]) -> Outcome:
        """Play, and judge. Raises `AssertionError` when something does not happen in time."""
        stage, history, outcome = self._stage, self._history, self.outcome
        await stage.leader()
        clients = Clients(stage.cluster.addresses, history)
        await clients.fill(self._jobs)
        clients.start()
        for name in stages:
            await self._timed(name)
        await self._timed("judge", clients)
        outcome.answered, outcome.longest_s = history.answered, history.longest_s
        outcome.by_version, outcome.refused = dict(history.by_version), dict(history.refused)
        outcome.added = len(history.added)
        return outcome

    async def _timed(self, name: str, clients: Clients | None = None) -> None:
        began = time.monotonic()
        match name:
            case "kill":
                said = await self._kill()
            case "forward":
                said = await self._install(2)
            case "back":
                said = await self._install(1)
            case "up":
                said = await self._release(is_old=False)
            case "down":
                said = await self._release(is_old=True)
            case "raised":
                said = await self._raise()
            case "ordered":
                said = await self._order()
            case _:
                assert clients is not None
                said = await self._judge(clients)
        if clients is None:
            await self._served()
        seconds = time.monotonic() - began
        self.outcome.stages.append((said, seconds))
        self._say(f"{seconds:7.2f} s  {said}")

    async def _served(self) -> None:
        """Wait until a call is answered that began after now, and every node says how it is."""
        now = time.monotonic()

        async def answered() -> bool | None:
            here = {status.node_id for status in await self._stage.statuses()}
            return (self._history.newest_began > now and here == {*self._stage.cluster.nodes}) or None

        await self._stage.until(answered, "clients served, by all nodes")

    async def _kill(self) -> str:
        leader = await self._stage.leader()
        self._kill_and_start(leader)
        version = self._runs[leader.node_id]
        return f"SIGKILL of node {leader.node_id}, which led, with version {version}"

    def _kill_and_start(self, node: NodeProcess) -> None:
        node.kill()
        node.start()
        self.outcome.kills += 1

    async def _install(self, version: int) -> str:
        able = [node_id for node_id, runs in self._runs.items() if runs != version]
        node = self._stage.cluster.nodes[self._stage.dice.choice(able)]
        self._runs[node.node_id] = version
        node.arguments[node.arguments.index("--machine") + 1] = SECOND if version == 2 else FIRST
        await self._stage.restart(node)
        return f"node {node.node_id} restarted with version {version}; nodes run {sorted(self._runs.values())}"

    async def _release(self, *, is_old: bool) -> str:
        assert self._before is not None, "there is no release to go back to"
        able = [node_id for node_id in self._runs if (node_id in self._old) != is_old]
        node = self._stage.cluster.nodes[self._stage.dice.choice(able)]
        if is_old:
            self._old.add(node.node_id)
            run_by(node, self._before)
        else:
            self._old.remove(node.node_id)
            run_by(node, None)
        await self._stage.restart(node)
        status = await self._stage.status(node.node_id)
        release = RELEASE if is_old else __version__
        assert status is None or status.version == release, f"node {node.node_id} runs raftkv {status.version}"
        return f"node {node.node_id} restarted with raftkv {release}; {len(self._old)} nodes of the release before"

    async def _active(self) -> list[tuple[int, tuple[str, ...], int]]:
        """Of each node that answers: the active version, which upgrades are left, and how many pieces were done."""
        said = [status.versions for status in await self._stage.statuses()]
        return [(each.active, each.left, each.steps) for each in said if each is not None]

    async def _raise(self) -> str:
        """The last node has the second version: it becomes active. The leader is killed between two pieces."""

        async def begun() -> int | None:
            return max((steps for active, left, steps in await self._active() if active == 2 and left), default=None)

        async def done() -> int | None:
            said = await self._active()
            is_done = len(said) == len(self._runs) and all(active == 2 and not left for active, left, _ in said)
            return said[0][2] if is_done else None

        await self._stage.until(begun, "version 2 active")
        self._history.active_since = time.monotonic()
        leader = await self._stage.leader()
        if (steps := await begun()) is not None:
            self._kill_and_start(leader)
            self.outcome.killed_at_step = steps
        self.outcome.pieces = await self._stage.until(done, "the upgrade done on every node")
        return f"version 2 active, node {leader.node_id} killed after {steps} of {self.outcome.pieces} pieces"

    async def _order(self) -> str:
        """Nobody raises the version by itself; then an operator does, and tries again when the leader is killed."""
        end = time.monotonic() + UNLESS_ORDERED_S

        async def waited() -> bool | None:
            active = max((active for active, _, _ in await self._active()), default=0)  # 0: a node that has just begun
            assert active <= 1, f"version {active} is active, and nobody has ordered it"
            return time.monotonic() > end or None

        await self._stage.until(waited, "time passing")
        ordered = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "raftkv", "upgrade", "--timeout", "60"),
            *(argument for address in self._stage.cluster.addresses for argument in ("--address", address)),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        said = await self._raise()
        output, _ = await ordered.communicate()
        # Its leader was killed under it: then it may not know.
        if ordered.returncode not in (0, INDETERMINATE):
            self.outcome.problems.append(f"raftkv upgrade ended with {ordered.returncode}: {output.decode()}")
        return f"{said}; raftkv upgrade said: {output.decode().strip()}"

    async def _judge(self, clients: Clients) -> str:
        await clients.stop()
        await self._stage.until_equal()
        problems, history = self.outcome.problems, self._history
        problems += [f"{count} × {text}" for text, count in Counter(history.errors).items()]
        problems += await judged(self._stage.cluster.addresses, Jobs, history)
        for status in await self._stage.statuses():
            problems += [f"node {status.node_id}: {problem}" for problem in status.problems()]
        for node in self._stage.cluster.nodes.values():
            log = node.log_path.read_text(errors="replace")
            problems += [f"node {node.node_id} logged {word}" for word in BAD if word in log]
            self.outcome.installed += log.count("snapshot_installed")
        return "judged"


BAD = ("replica_diverged", "states_differ", "no_agreement", "Traceback", "node_failed", "upgrade_failed")
"""What no node may log."""


def run_by(node: NodeProcess, tree: Path | None) -> None:
    """Have a node run by the raftkv whose source is there from its next start on; None: by this one."""
    if tree is None:
        for name in environment(Path()):
            node.environment.pop(name, None)
        node.launch = fork
    else:
        node.environment.update(environment(tree))
        node.launch = launch  # a forked one has this raftkv already


def play(
    directory: Path,
    stages: Sequence[str],
    *,
    seed: int,
    jobs: int = 2_000,
    within_s: float = 240.0,
    say: Callable[[str], None] = lambda line: None,
) -> Outcome:
    """Play `stages` on three new nodes in `directory`; what they left behind is there afterwards.

    Raises `tests.formats.before.Missing` when they want the release before, and its source can't be had.
    """
    settings = dict(LAGGING) if UP in stages else {}
    if ORDERED in stages:
        settings["RAFTKV_AUTO_UPGRADE"] = "false"
    before = unpack(directory / "before") if UP in stages else None
    with ForkedCluster(directory, 3, arguments=("--machine", FIRST), environment=settings) as cluster:
        for node in cluster.nodes.values():
            run_by(node, before)
        cluster.start_all()
        story = Story(ChaosStage(cluster, random.Random(seed), directory), jobs=jobs, say=say, before=before)
        try:
            return asyncio.run(asyncio.wait_for(story.play(stages), within_s))
        except (AssertionError, TimeoutError) as exc:
            story.outcome.problems.append(f"{type(exc).__name__}: {exc}")
            return story.outcome
