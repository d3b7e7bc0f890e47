"""Steady load: writes at one rate for ten minutes, and what each node takes of the machine meanwhile.

What grows with what is stored is kept from growing: the keys are few enough that all of them are there long before the
warm-up is over, and from then on values are only replaced. A log grows and is cut, so its disk goes up and down; what
counts is whether it comes down to the same.
"""

from __future__ import annotations

import contextlib
import statistics
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec

from benchmarks import plots
from benchmarks.load.generator import run_load
from benchmarks.load.spec import LoadSpec, Target
from benchmarks.peers.raftkv import RaftkvCluster, rss_mib
from benchmarks.report import Column, Report, Series
from benchmarks.suite import LATENCY_COLUMNS, Run, Suite

TITLE = "Steady load: 2,000 writes/s of 1 KiB, 20,000 keys, default settings, 3 nodes; flat after the warm-up?"
COLUMNS = [
    Column("throughput", "writes/s", "higher"),
    *[column for column in LATENCY_COLUMNS if column.name in ("p50_ms", "p99_ms", "max_ms")],
    Column("errors", "errors", "lower"),
    *[
        Column(f"{name}_{part}", f"{title} {words}", "lower" if part == "hourly" else "", digits)
        for name, title, digits in (("memory", "MiB", 1), ("descriptors", "open files", 0), ("disk", "disk MiB", 0))
        for part, words in (("first", "at first"), ("last", "at last"), ("hourly", "more an hour"))
    ],
]
RATE = 2_000.0
KEYS = 20_000
VALUE_BYTES = 1024
SECONDS, QUICK_SECONDS = 600.0, 60.0
BETWEEN_S = 1.0
WARM_UP = 0.2
"""The share of the time after which it is to be flat: two minutes of ten, in which a log is cut about four times."""
SHARE = 0.25
"""Of what comes behind that: so much is called the first, and the last."""

MIB = 1 << 20


class Used(msgspec.Struct, frozen=True):
    """What a node takes at one moment."""

    at_s: float
    memory: float
    """MiB, its program and libraries too."""
    descriptors: float
    disk: float
    """MiB of blocks in its directory; a file with several names counts once."""


def used(pid: int, directory: Path, at_s: float) -> Used:
    """By a node now."""
    descriptors = sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir())
    return Used(at_s, rss_mib(pid), float(descriptors), disk_bytes(directory) / MIB)


def disk_bytes(directory: Path) -> int:
    """What the files below a directory take of the disk, each once."""
    found: dict[int, int] = {}
    for path in directory.rglob("*"):
        with contextlib.suppress(FileNotFoundError):  # a node removes files all the time
            status = path.lstat()
            found[status.st_ino] = status.st_blocks * 512
    return sum(found.values())


def hourly(points: Sequence[tuple[float, float]]) -> float:
    """By how much it becomes more in an hour: the slope of the line that comes nearest to all points (at seconds)."""
    if len(points) < 2:
        return 0.0
    return statistics.linear_regression([at for at, _ in points], [value for _, value in points]).slope * 3600


def flatness(seen: Sequence[Used], name: str) -> dict[str, float]:
    """The medians at first and at last, after the warm-up, and the slope in between."""
    points = [(each.at_s, float(getattr(each, name))) for each in seen[int(len(seen) * WARM_UP) :]]
    some = max(1, int(len(points) * SHARE))
    values = [value for _, value in points]
    return {
        f"{name}_first": statistics.median(values[:some]),
        f"{name}_last": statistics.median(values[-some:]),
        f"{name}_hourly": hourly(points),
    }


def measure(run: Run) -> Report:
    """One cluster, once."""
    report = run.report("steady", TITLE, COLUMNS)
    seconds = QUICK_SECONDS if run.quick else SECONDS
    run.step(f"{seconds:.0f} s of writes")
    with RaftkvCluster(3) as cluster:
        pids = {
            node.node_id: node.process.pid
            for node in cluster.processes.nodes.values()
            if node.process is not None and node.is_running
        }
        directories = {node.node_id: Path(node.data_dir) for node in cluster.processes.nodes.values()}
        leader = cluster.leader().node_id
        seen: dict[int, list[Used]] = {node_id: [] for node_id in pids}

        def look() -> None:
            began = time.monotonic()
            while (at_s := time.monotonic() - began) < seconds:
                for node_id, pid in pids.items():
                    seen[node_id].append(used(pid, directories[node_id], at_s))
                time.sleep(BETWEEN_S)

        result = run_load(spec_of(cluster, seconds, run.seed), look)
        led_at_last = cluster.leader().node_id
    run.enter(report, "the load", "clients", result)
    for node_id, readings in seen.items():
        figures = {key: value for name in NAMES for key, value in flatness(readings, name).items()}
        row = report.add("a node", f"node {node_id}" + (", leader" if node_id == leader else ""), figures)
        row.note = ", ".join(span(readings, name) for name in NAMES)
        for name in NAMES:
            points = [(each.at_s, float(getattr(each, name))) for each in readings]
            report.series.append(Series(PLOTS[name], f"node {node_id}", points))
    report.notes.append(f"{seconds:.0f} s, the first {WARM_UP:.0%} of them the warm-up; looked at every second")
    if led_at_last != leader:
        report.notes.append(f"leadership moved meanwhile: to node {led_at_last}")
    return report


PLOTS = {"memory": "steady: memory", "descriptors": "steady: open files", "disk": "steady: disk"}
NAMES = tuple(PLOTS)


def span(seen: Sequence[Used], name: str) -> str:
    """Least and most after the warm-up, in words."""
    values = [float(getattr(each, name)) for each in seen[int(len(seen) * WARM_UP) :]]
    return f"{name} {min(values):,.0f} to {max(values):,.0f}"


def spec_of(cluster: RaftkvCluster, seconds: float, seed: int) -> LoadSpec:
    """Writes on a timetable, as applications make them."""
    return LoadSpec(
        target=Target.LIBRARY,
        addresses=cluster.processes.addresses,
        connections=16,
        outstanding=100,
        rate=RATE,
        keys=KEYS,
        value_bytes=VALUE_BYTES,
        warmup_s=0.0,
        seconds=seconds + 60.0,  # it ends with whoever looks
        seed=seed,
    )


def draw(report: Report, directory: Path) -> list[Path]:
    """Each of the three over time."""
    labels = {"memory": "MiB", "descriptors": "open files", "disk": "MiB"}
    return plots.series(report, directory, {PLOTS[name]: ("seconds", labels[name]) for name in NAMES})


SUITE = Suite("steady", TITLE, measure, lambda run: 1, draw)
