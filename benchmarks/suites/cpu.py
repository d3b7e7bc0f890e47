"""CPU: what a write costs in each process, where throughput says little because the machine is shared.

Beside each case a fixed piece of Python is timed, so that figures of two runs can be compared though the machine was
not equally fast: `per_loop` is the cost in units of that piece. `within` compares a report with one that is kept: by
etcd's cost in the same run where both have it, else in those units. What was measured while others used the processors
is not judged: it costs more, as caches are shared.
"""

from __future__ import annotations

import os
import time
from contextlib import ExitStack
from pathlib import Path

import msgspec

from benchmarks.peers.etcd import EtcdCluster
from benchmarks.report import OURS, Column, Report
from benchmarks.suite import Cluster, Run, Suite
from benchmarks.suites.writes import Shape, case_name, spec_of

TITLE = "CPU of a put, µs over all threads of each process; 1-KiB values, fsync, sessions on"
COLUMNS = [
    Column("total_us", "µs a put, all processes", "lower"),
    Column("leader_us", "leader", "lower"),
    Column("followers_us", "each follower", "lower"),
    Column("generator_us", "generator", "lower"),
    Column("per_loop", "in loops", "lower", 2),
    Column("others", "others' share of the machine", "lower", 2),
    Column("throughput", "operations/s", "higher"),
]
SHAPES = (Shape(1), Shape(64), Shape(1_000), Shape(8, 200))
VALUE_BYTES = 1024
NODES = 3
WARM_UP_S = 0.5
STARTING_S = 0.5
"""About what it takes to start a generator, of the processor."""

KEPT = Path(__file__).parents[1] / "cpu.json"
"""The report that a later state of the code is compared with: `tools/bench cpu --out benchmarks` writes it."""

ALLOWED = 1.25
"""A case that costs so many times what it did is a step back."""

OTHERS_MAX = 0.25
"""With more of the processors used by others, a repeat is not judged. On an idle machine it is 0.1 to 0.2: the start of
a generator, and what the kernel does for nobody in particular."""

LOOPS_ALIKE = 1.25
"""Where the fixed piece of Python takes more or less than so many times what it took, it is another kind of machine. It
says nothing of a put there, as that is kernel and cold caches, too: where the piece took a third, a put took 0.63 to
0.46 of what it had."""

ETCD, LOOPS = "times etcd's", "loops"

_LOOPS = 20_000
_TICKS_S = os.sysconf("SC_CLK_TCK")


class _Piece(msgspec.Struct, array_like=True):
    key: bytes
    value: bytes
    number: int


def loop_us() -> float:
    """CPU microseconds of a fixed piece of Python: calls, a dict, and msgpack in and out, as a put needs them too."""
    encoder, decoder = msgspec.msgpack.Encoder(), msgspec.msgpack.Decoder(_Piece)
    value, kept = b"v" * VALUE_BYTES, dict[bytes, bytes]()

    def once(number: int) -> None:
        piece = decoder.decode(encoder.encode(_Piece(b"key-%05d" % (number % 512), value, number)))
        kept[piece.key] = piece.value

    began = time.process_time()
    for number in range(_LOOPS):
        once(number)
    return (time.process_time() - began) / _LOOPS * 1e6


def process_s(pid: int) -> float:
    """CPU seconds that a process has used, in all threads."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS_S


def machine_s() -> tuple[float, float]:
    """Seconds of all processors so far: in use, and in all."""
    fields = [int(field) for field in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
    idle = fields[3] + fields[4]
    return (sum(fields) - idle) / _TICKS_S, sum(fields) / _TICKS_S


def measure(run: Run) -> Report:
    """Ours and etcd in turn, case by case, repeat by repeat."""
    report = run.report("cpu", TITLE, COLUMNS)
    with ExitStack() as stack:
        clusters = run.clusters(report, NODES)
        for cluster in clusters:
            stack.enter_context(cluster)
        for repeat in range(run.repeats):
            for shape in wanted(run):
                name = case_name(shape, VALUE_BYTES, NODES)
                for cluster in clusters:
                    run.step(f"{name}: {cluster.name}, {repeat + 1} of {run.repeats}")
                    report.add(name, cluster.name, costs(run, cluster, shape))
    return report


def wanted(run: Run) -> list[Shape]:
    """The shapes that are to be measured."""
    return [shape for shape in SHAPES if run.wants(case_name(shape, VALUE_BYTES, NODES))]


def costs(run: Run, cluster: Cluster, shape: Shape) -> dict[str, float]:
    """One repeat: warmed up, then measured from the first operation to the last."""
    spec = spec_of(cluster, shape, VALUE_BYTES)
    run.spend(spec, WARM_UP_S)
    pids = cluster.pids()
    loop_before = loop_us()
    before, (busy_before, all_before) = [process_s(pid) for pid in pids], machine_s()
    result = run.spend(spec, run.seconds)
    used = [process_s(pid) - earlier for pid, earlier in zip(pids, before, strict=True)]
    busy, total_s = machine_s()
    others = busy - busy_before - sum(used) - result.cpu_s - STARTING_S
    loop = min(loop_before, loop_us())
    leader, *followers = [seconds / max(1, result.operations) * 1e6 for seconds in used]
    generator = result.cpu_s / max(1, result.operations) * 1e6
    total = leader + sum(followers) + generator
    return {
        "total_us": total,
        "leader_us": leader,
        "followers_us": sum(followers) / len(followers),
        "generator_us": generator,
        "per_loop": total / loop,
        "others": max(0.0, others / max(1e-9, total_s - all_before)),
        "throughput": result.throughput,
    }


def within(kept: Report, found: Report, allowed: float = ALLOWED) -> list[str]:
    """The cases that cost too much by now, in words: more than `allowed` times what they did in `kept`.

    Compared is the cheapest repeat of each, as other work on the machine makes it only dearer; by what etcd costs in
    the same run, or by the fixed piece of Python where that is as quick as it was.
    """
    problems = []
    for row in found.rows:
        if row.who != OURS or kept.find(row.case, OURS) is None:
            continue
        alike = loops_alike(kept, found, row.case)
        for unit, cost in ((ETCD, of_etcd), (LOOPS, in_loops)):
            was, now = cost(kept, row.case), cost(found, row.case)
            if was is not None and now is not None and (unit == ETCD or alike):
                if now > was * allowed:
                    problems.append(f"{row.case}: {now:.2f} {unit} a put, {now / was:.2f} times the {was:.2f} before")
                break
    return problems


def of_etcd(report: Report, case: str) -> float | None:
    """What a put costs by what it costs etcd in the same run; None where that can't be said."""
    ours, theirs = (cheapest(report, case, who, "total_us") for who in (OURS, EtcdCluster.name))
    return ours / theirs if ours and theirs else None


def in_loops(report: Report, case: str) -> float | None:
    """What a put costs in units of the fixed piece of Python; None where that can't be said."""
    return cheapest(report, case, OURS, "per_loop")


def loops_alike(kept: Report, found: Report, case: str) -> bool:
    """Whether the fixed piece of Python is about as quick in both."""
    was, now = (loop_of(report, case) for report in (kept, found))
    return was is not None and now is not None and was / LOOPS_ALIKE <= now <= was * LOOPS_ALIKE


def loop_of(report: Report, case: str) -> float | None:
    """CPU microseconds of the fixed piece, the least of all repeats; None where that can't be said."""
    row = report.find(case, OURS)
    if row is None:
        return None
    repeats = zip(row.figures["total_us"], row.figures["per_loop"], strict=True)
    return min((total / loops for total, loops in repeats if loops), default=None)


def cheapest(report: Report, case: str, who: str, column: str) -> float | None:
    """Of the repeats that had the machine to themselves; None when there is none."""
    row = report.find(case, who)
    if row is None:
        return None
    repeats = zip(row.figures[column], row.figures["others"], strict=True)
    return min((value for value, others in repeats if others <= OTHERS_MAX), default=None)


def guard(found: Report) -> list[str]:
    """The same, against the report that is kept. Raises `ValueError` when there is none."""
    return within(Report.load(KEPT), found)


def steps(run: Run) -> int:
    """With etcd, if it is wanted."""
    return run.repeats * len(wanted(run)) * (1 + ("etcd" in run.peers))


SUITE = Suite("cpu", TITLE, measure, steps, guard=guard)
