"""Parts by themselves: the core, the log, the wire, the state machine, simulated worlds."""

from __future__ import annotations

import itertools
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from benchmarks import core
from benchmarks.report import Column, Report
from benchmarks.suite import Run, Suite
from raftkv import LocalMachine
from raftkv.config import MIB
from raftkv.disk import RealDisk
from raftkv.entry import Entry, make_entries
from raftkv.kv import KeyValue
from raftkv.log import Identity, Log
from raftkv.machine import encode_command
from raftkv.model import EntryKind
from raftkv.wire import (
    FrameDecoder,
    Request,
    RequestKind,
    Response,
    Status,
    decode_request,
    decode_response,
    encode_request,
    encode_response,
)
from raftkv.worlds.simulation import simulate

TITLE = "Parts by themselves, in one thread, 256-byte values"
COLUMNS = [Column("per_s", "a second", "higher"), Column("us", "µs each", "lower", 2)]
VALUE = b"x" * 256
SEGMENT_BYTES = 64 * MIB
CACHE_BYTES = 32 * MIB


def rate(count: int, work: Callable[[], object]) -> dict[str, float]:
    """`work` does something `count` times: how often a second, and how long each takes."""
    began = time.perf_counter()
    work()
    seconds = time.perf_counter() - began
    return {"per_s": count / seconds, "us": seconds / count * 1e6}


def core_entries(batch: int, batches: int) -> dict[str, float]:
    """Three nodes decide on batches of entries, in memory."""
    entries_s, _ = core.measure(batch, batches)
    return {"per_s": entries_s, "us": 1e6 / entries_s}


def _batches(batch: int, count: int) -> Iterator[list[Entry]]:
    chain, index = 0, 1
    for _ in range(count):
        entries = make_entries(index, 1, 0, EntryKind.COMMAND, [VALUE] * batch, chain)
        chain, index = entries[-1].chain, index + batch
        yield entries


def log_writes(batch: int, count: int) -> dict[str, float]:
    """Batches written and synced, one after the other."""
    with tempfile.TemporaryDirectory(prefix="raftkv-bench-") as directory:
        log = _open(directory)
        batches = list(_batches(batch, count))

        def write() -> None:
            for entries in batches:
                log.write([log.stage(None, entries)])

        found = rate(batch * count, write)
        log.close()
    return found


def log_opening(entries: int) -> dict[str, float]:
    """A log read and checked entry by entry, as a start does."""
    with tempfile.TemporaryDirectory(prefix="raftkv-bench-") as directory:
        log = _open(directory)
        for batch in _batches(1_000, entries // 1_000):
            log.write([log.stage(None, batch)])
        log.close()
        return rate(entries, lambda: _open(directory).close())


def _open(directory: str) -> Log:
    path = str(Path(directory) / "log")
    owner = Identity(cluster_id="benchmark", node_id=1, incarnation="0")
    return Log.open(
        RealDisk(), path, owner=owner, segment_bytes=SEGMENT_BYTES, cache_bytes=CACHE_BYTES, durable_index=0
    )


def requests(count: int) -> dict[str, float]:
    """A put's request made and read, in frames."""
    decoder = FrameDecoder(MIB)

    def work() -> None:
        for number in range(count):
            payload = encode_command(1, number + 1, number, "put", b"\x92\xc4\x01a\xc4\x01b")
            for frame in decoder.feed(encode_request(Request(number, RequestKind.COMMAND, payload, False, 1_000))):
                decode_request(frame)

    return rate(count, work)


def responses(count: int) -> dict[str, float]:
    """An answer made and read, in frames."""
    decoder = FrameDecoder(MIB)

    def work() -> None:
        for number in range(count):
            for frame in decoder.feed(encode_response(Response(number, Status.OK, b"\x93\x01\x01\x01", number))):
                decode_response(frame)

    return rate(count, work)


def puts(count: int) -> dict[str, float]:
    """Puts on the key-value machine without a cluster."""
    machine = LocalMachine(KeyValue)
    keys = [b"key-%012d" % (number % 1_000) for number in range(count)]

    def work() -> None:
        for key in keys:
            machine.put(key, VALUE)

    return rate(count, work)


def worlds(count: int) -> dict[str, float]:
    """Virtual seconds of whole simulated clusters under faults."""
    began = time.perf_counter()
    virtual = sum(simulate(seed, duration_s=10.0).virtual_s for seed in range(count))
    seconds = time.perf_counter() - began
    return {"per_s": virtual / seconds, "us": seconds / virtual * 1e6}


def parts(run: Run) -> dict[str, Callable[[], dict[str, float]]]:
    """What is measured, by its name; the same work, less of it when it is to be quick."""
    scale = 1 if run.quick else 5
    found: dict[str, Callable[[], dict[str, float]]] = {
        "core: entries, batches of 100": lambda: core_entries(100, 100 * scale),
        "core: commits of one entry": lambda: core_entries(1, 1_000 * scale),
        "log: entries synced, batches of 1": lambda: log_writes(1, 100 * scale),
        "log: entries synced, batches of 100": lambda: log_writes(100, 40 * scale),
        "log: entries read and checked": lambda: log_opening(20_000 * scale),
        "wire: requests made and read": lambda: requests(20_000 * scale),
        "wire: responses made and read": lambda: responses(20_000 * scale),
        "machine: puts without a cluster": lambda: puts(5_000 * scale),
        "simulation: virtual seconds": lambda: worlds(1 * scale),
    }
    return {name: part for name, part in found.items() if run.wants(name)}


def measure(run: Run) -> Report:
    """Every part, again and again in turn."""
    report = run.report("micro", TITLE, COLUMNS)
    for repeat, (name, part) in itertools.product(range(run.repeats), parts(run).items()):
        run.step(f"{name}, {repeat + 1} of {run.repeats}")
        report.add(name, "raftkv", part())
    shares = core.costs(100, 100)
    for name, cost in sorted(shares.items(), key=lambda share: -share[1])[:5]:
        report.notes.append(f"core, batches of 100: {cost:.3f} µs an entry in {name}")
    return report


SUITE = Suite("micro", TITLE, measure, lambda run: run.repeats * len(parts(run)))
