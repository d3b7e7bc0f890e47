"""`raftkv.syncobj` beside PySyncObj's own loop: the same program, three processes each, in the same run.

    python -m benchmarks.syncobj --seconds 5

Replicated calls with 256 bytes are made on the leader, as PySyncObj's own benchmark does, with 1, 1,000 and 10,000 of
them outstanding. PySyncObj runs twice: with equal durability (its journal is synced before entries are counted or
acknowledged: once for each batch, where that is right and costs least) and as it is, which syncs nothing. Both of its
modes (`appendEntriesUseBatch`) are tried, and the faster one counts.
"""

from __future__ import annotations

import argparse
import importlib
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks import machine
from raftkv.processes.ports import free_ports

VALUE = "x" * 256
OUTSTANDING = (1, 1_000, 10_000)
RIVALS = ("raftkv", "pysyncobj-synced", "pysyncobj-synced-nobatch", "pysyncobj", "pysyncobj-nobatch")


def sync_the_journal() -> None:
    """Make PySyncObj's journal durable before anybody relies on it.

    A follower syncs what a message brought before it answers; the leader syncs what a tick brought before it counts.
    """
    from pysyncobj import journal, syncobj

    add = journal.FileJournal.add
    answer = syncobj.SyncObj._SyncObj__sendNextNodeIdx
    tick = syncobj.SyncObj._onTick

    def dirty_add(self: Any, *args: Any) -> None:
        add(self, *args)
        self.dirty = True

    def sync(self: Any) -> None:
        log = self._SyncObj__raftLog
        if getattr(log, "dirty", False):
            log.dirty = False
            log.flush()

    def synced_answer(self: Any, *args: Any, **kwargs: Any) -> None:
        sync(self)
        answer(self, *args, **kwargs)

    def synced_tick(self: Any, *args: Any) -> None:
        sync(self)
        tick(self, *args)

    journal.FileJournal.add = dirty_add
    syncobj.SyncObj._SyncObj__sendNextNodeIdx = synced_answer
    syncobj.SyncObj._onTick = synced_tick


def node(rival: str, directory: str, own: str, others: list[str]) -> None:
    """One node's process: says whether it leads, and measures."""
    kit: Any = importlib.import_module("raftkv.syncobj" if rival == "raftkv" else "pysyncobj")
    replicated: Callable[[Callable[..., int]], Callable[..., int]] = kit.replicated
    if "synced" in rival:
        sync_the_journal()

    class Target(kit.SyncObj):  # type: ignore[misc]  # which of the two it is, is known only here
        def __init__(self) -> None:
            conf = kit.SyncObjConf(journalFile=f"{directory}/journal", appendEntriesUseBatch="nobatch" not in rival)
            super().__init__(own, others, conf)
            self.applied = 0

        @replicated
        def put(self, value: str) -> int:
            self.applied += 1
            return self.applied

    if rival == "raftkv":
        import warnings

        warnings.simplefilter("ignore")
        sys.setswitchinterval(0.0005)
    target = Target()
    for line in sys.stdin:
        command, *arguments = line.split()
        if command == "leader":
            print(target._isLeader() and target._isReady(), flush=True)
        elif command == "run":
            print(*measure(target, int(arguments[0]), float(arguments[1])), flush=True)
    target.destroy()


def measure(target: Any, outstanding: int, seconds: float) -> tuple[float, float, int]:
    """Calls per second that succeeded, their median latency in ms, and how many did not."""
    room = threading.Semaphore(outstanding)
    latencies: list[float] = []
    failed: list[int] = []

    def done(began: float, reason: int) -> None:
        if reason:
            failed.append(reason)
        else:
            latencies.append(time.perf_counter() - began)
        room.release()

    start = time.perf_counter()
    while time.perf_counter() - start < seconds:
        if room.acquire(timeout=0.5):
            began = time.perf_counter()
            target.put(VALUE, callback=lambda result, reason, began=began: done(began, reason))
    rate = len(latencies) / (time.perf_counter() - start)
    median = statistics.median(latencies or [float("inf")]) * 1000
    end = time.perf_counter() + 20
    unanswered = sum(not room.acquire(timeout=max(0.0, end - time.perf_counter())) for _ in range(outstanding))
    return rate, median, len(failed) + unanswered


def run(rival: str, seconds: float) -> dict[int, tuple[float, float, int]]:
    """Rate and latency for each number of outstanding calls."""
    places = [f"127.0.0.1:{port}" for port in free_ports(3)]
    with tempfile.TemporaryDirectory() as directory:
        processes = []
        for number, place in enumerate(places):
            path = Path(directory) / str(number)
            path.mkdir()
            command = [sys.executable, "-m", "benchmarks.syncobj", "--node", rival, str(path), place]
            command += [each for each in places if each != place]
            processes.append(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True))
        try:
            leader = find_leader(processes)
            return {outstanding: ask_to_run(leader, outstanding, seconds) for outstanding in OUTSTANDING}
        finally:
            for process in processes:
                process.kill()
                process.wait()


def ask(process: subprocess.Popen[str], *words: object) -> list[str]:
    """Say a line, hear one."""
    assert process.stdin is not None and process.stdout is not None
    print(*words, file=process.stdin, flush=True)
    return process.stdout.readline().split()


def find_leader(processes: list[subprocess.Popen[str]]) -> subprocess.Popen[str]:
    """Wait until one leads, and is ready."""
    for _ in range(300):
        for process in processes:
            if ask(process, "leader") == ["True"]:
                return process
        time.sleep(0.1)
    raise SystemExit("no leader within 30 s")


def ask_to_run(process: subprocess.Popen[str], outstanding: int, seconds: float) -> tuple[float, float, int]:
    """Warm up, then measure."""
    ask(process, "run", outstanding, 1.0)
    rate, latency, failed = ask(process, "run", outstanding, seconds)
    return float(rate), float(latency), int(failed)


def main() -> None:
    """Run all, print rates, medians and ratios."""
    if sys.argv[1:2] == ["--node"]:
        node(sys.argv[2], sys.argv[3], sys.argv[4], sys.argv[5:])
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=5.0, help="of each measurement")
    parser.add_argument("--only", choices=RIVALS, help="measure one of them")
    options = parser.parse_args()
    print(machine.sentence())
    rivals = ("raftkv", options.only) if options.only else RIVALS
    results = {rival: run(rival, options.seconds) for rival in rivals}
    for outstanding in OUTSTANDING:
        print(f"\n{outstanding} outstanding")
        own = results["raftkv"][outstanding][0]
        for rival in results:
            rate, latency, failed = results[rival][outstanding]
            ratio = f"raftkv is {own / rate:6.2f} times" if rate else ""
            lost = f"   {failed} failed or unanswered" if failed else ""
            print(f"  {rival:26} {rate:9,.0f} calls/s   median {latency:8.2f} ms   {ratio}{lost}")


if __name__ == "__main__":
    main()
