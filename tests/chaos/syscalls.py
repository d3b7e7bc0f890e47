"""Disks that fail, by strace: errors, delays and short counts injected into the calls that a node really makes."""

from __future__ import annotations

import asyncio
import random
import shutil
import signal
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from raftkv.processes.cluster import NodeProcess
from tests.chaos.damage import judge_end, start_and_judge
from tests.chaos.fault import RealFault
from tests.chaos.stage import ChaosStage

ATTACHED_S = 20.0
"""For strace to attach to all threads of a node."""

ENDS_S = 30.0
"""Within this a node whose disk has failed has ended."""


def missing() -> str | None:
    """Why nothing can be injected here; None when it can."""
    if shutil.which("strace") is None:
        return "strace is not installed"
    probe = subprocess.run(
        ["strace", "-qq", "-e", "trace=none", "true"],
        capture_output=True,
        text=True,
        check=False,
    )
    return None if probe.returncode == 0 else f"strace can't trace here: {probe.stderr.strip()}"


class Injection(msgspec.Struct, frozen=True):
    """What becomes of some calls of each thread of a node: strace's words for it, such as `error=EIO`."""

    calls: str
    what: str
    when: str = "1+"
    """Which calls of a thread: strace's words for that, too."""

    def describe(self) -> str:
        return f"{self.calls}: {self.what}, calls {self.when}"


class Tracer:
    """A strace that is attached to a running node; `fired` counts what it did to its calls."""

    def __init__(self, node: NodeProcess, injection: Injection, report: Path) -> None:
        assert node.process is not None
        self._process = node.process
        self._report = report
        self._report.unlink(missing_ok=True)
        chosen = f"inject={injection.calls}:{injection.what}:when={injection.when}"
        pid = node.process.pid
        self._strace = subprocess.Popen(
            ["strace", "-f", "-o", str(report), "-e", f"trace={injection.calls}", "-e", chosen, "-p", str(pid)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    @property
    def is_attached(self) -> bool:
        """Whether it sees every call by now; also when there is nobody any more who makes any."""
        try:
            threads = list(Path(f"/proc/{self._process.pid}/task").iterdir())
            return all("TracerPid:\t0" not in (thread / "status").read_text() for thread in threads)
        except OSError:
            return True

    @property
    def fired(self) -> int:
        """Calls that were not made as they were meant."""
        if not self._report.exists():
            return 0
        text = self._report.read_text(errors="replace")
        return text.count("(INJECTED)") + text.count("(DELAYED)")

    def detach(self) -> None:
        """Leave the node alone."""
        self._strace.send_signal(signal.SIGINT)
        self._strace.wait(ATTACHED_S)


ERRORS = (
    Injection("pwritev2", "error=EIO", "3"),
    Injection("pwritev2", "error=ENOSPC", "3"),
    Injection("pwritev2", "retval=0", "3+"),
    Injection("fdatasync,fsync", "error=EIO", "2"),
)
"""Of writes that are synced (log, vote), of a device that takes nothing more, and of syncs (snapshots, manifests)."""

INTERRUPTED = Injection("pwritev2,pread64", "error=EINTR", "2+5")
"""Calls that a signal has interrupted: they are to be made again, and nobody notices."""

READ_ERRORS = Injection("pread64", "error=EIO", "1+")


class CallsFail(RealFault):
    """Calls of one node fail. It ends at once with code 5 and says what to do; started again, it has everything.

    `ends` is False for what a node has to live with; `then` is called when calls have begun to fail.
    """

    rows = "F13 F15 F17 F18"

    def __init__(
        self,
        injection: Injection,
        dice: random.Random,
        *,
        ends: bool = True,
        of_leader: bool | None = None,
        then: Callable[[], None] = lambda: None,
    ) -> None:
        self.kind = "calls to the disk fail" if ends else "calls to the disk are interrupted"
        self._injection, self._ends = injection, ends
        self._dice, self._then = dice, then
        self._of_leader = of_leader if of_leader is not None else dice.random() < 0.5

    async def inject(self, stage: ChaosStage) -> None:
        node = await stage.leader() if self._of_leader else self._any(stage)
        tracer = Tracer(node, self._injection, stage.directory / "strace")

        async def attached() -> bool | None:
            return tracer.is_attached or None

        async def look() -> bool | None:
            return (not node.is_running if self._ends else tracer.fired >= 10) or None

        try:
            await stage.until(attached, "strace seeing all calls", ATTACHED_S)
            self._then()
            await stage.until(look, f"node {node.node_id} meeting {self._injection.describe()}", ENDS_S)
        finally:
            await asyncio.to_thread(tracer.detach)
        stage.met(self.kind, tracer.fired)
        if self._ends:
            stage.note(f"node {node.node_id}: {judge_end(node).said}")
            verdict = await start_and_judge(stage, node)
            assert verdict.advice is None, f"node {node.node_id} does not start again: {verdict.said}"

    def _any(self, stage: ChaosStage) -> NodeProcess:
        return stage.cluster.nodes[self._dice.choice(sorted(stage.cluster.nodes))]

    def describe(self) -> str:
        return f"{self.kind}: {self._injection.describe()}"


class SlowDisk(RealFault):
    """Every sync of the leader takes long: leadership moves, or all is slow, but nothing is lost or stale."""

    kind = "a slow disk"
    rows = "F16"

    def __init__(self, dice: random.Random, delays_s: Sequence[float] = (0.5, 2.0, 5.0)) -> None:
        self._delay_s = dice.choice(delays_s)
        self._tracer: Tracer | None = None

    async def inject(self, stage: ChaosStage) -> None:
        node = await stage.leader()
        delay = Injection("pwritev2,fdatasync,fsync", f"delay_enter={int(self._delay_s * 1e6)}")
        self._tracer = tracer = Tracer(node, delay, stage.directory / "strace")

        async def look() -> bool | None:
            return tracer.fired > 0 or None

        await stage.until(look, f"a slow sync of node {node.node_id}", ATTACHED_S)

    async def heal(self, stage: ChaosStage) -> None:
        if self._tracer is not None:
            await asyncio.to_thread(self._tracer.detach)
            stage.met(self.kind, self._tracer.fired)

    def describe(self) -> str:
        return f"{self.kind}: {self._delay_s:g} s for each sync of the leader"
