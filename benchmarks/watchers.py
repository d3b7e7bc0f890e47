"""Ten thousand clients that watch one key, beside writers: how soon each hears of a change, what the writers notice.

```bash
python -m benchmarks.watchers --watchers 10000 --connections 20
```

A node of its own, writers in this process, and the watchers in another, on a few connections. It prints the latencies
of puts without and with the watchers, taken in turns as the machine may have other things to do; how long after its put
was acknowledged each change was told to each watcher; and the memory of the node.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from raftkv.client import Client
from raftkv.machine import StateMachine, Table, command
from raftkv.processes.cluster import ProcessCluster

WRITERS = 8


class Watched(StateMachine):
    """A table that is watched, with the time of each change in it, and one that is not."""

    rows = Table(str, float, watch=True)
    others = Table(str, bytes)

    @command
    def put(self, key: str, at: float) -> None:
        """Change a row that is watched."""
        self.rows[key] = at

    @command
    def put_other(self, key: str, value: bytes) -> None:
        """Change what nobody watches."""
        self.others[key] = value


async def write(addresses: Sequence[str], seconds: float, told_each_s: float) -> list[float]:
    """Latencies of puts by a few writers, in milliseconds; another one changes what is watched, now and then."""
    taken: list[float] = []
    end = time.monotonic() + seconds

    async def writer(number: int) -> None:
        client = Client(Watched, addresses, deadline_s=30)
        while time.monotonic() < end:
            began = time.monotonic()
            await client.call(Watched.put_other, str(number), b"v" * 64)
            taken.append((time.monotonic() - began) * 1000)
        await client.close()

    async def changer() -> None:
        client = Client(Watched, addresses, deadline_s=30)
        while time.monotonic() < end:
            await client.call(Watched.put, "watched", time.monotonic())
            await asyncio.sleep(told_each_s)
        await client.close()

    await asyncio.gather(changer(), *(writer(number) for number in range(WRITERS)))
    return taken


def watch(addresses: Sequence[str], watchers: int, connections: int, pipe: Any) -> None:
    """Watch until told to end; tells when all watch, and then how late each change was, in milliseconds."""

    async def main() -> None:
        late: list[float] = []
        clients = [Client(Watched, addresses, deadline_s=60) for _ in range(connections)]
        ready, begun = asyncio.Event(), 0

        async def watcher(client: Client[Watched]) -> None:
            nonlocal begun
            changes = await client.watch(Watched.rows, start="watched", end="watched\0").begin()
            begun += 1
            if begun == watchers:
                ready.set()
            async for change in changes:
                assert change.value is not None
                late.append((time.monotonic() - change.value) * 1000)

        tasks = [asyncio.ensure_future(watcher(clients[at % connections])) for at in range(watchers)]
        if tasks:
            await ready.wait()
        pipe.send("ready")
        await asyncio.to_thread(pipe.recv)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        pipe.send(late)

    asyncio.run(main())


def percentile(values: list[float], part: float) -> float:
    """0 when there are none."""
    return sorted(values)[min(len(values) - 1, int(len(values) * part))] if values else 0.0


def memory_mib(pid: int) -> float:
    """Of a process."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * 4096 / 2**20


def measure(addresses: list[str], pid: int, args: argparse.Namespace, watchers: int) -> dict[str, float]:
    """One turn with so many watchers."""
    here, there = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(
        target=watch, args=(addresses, watchers, args.connections, there)
    )
    process.start()
    assert here.recv() == "ready"
    puts = asyncio.run(write(addresses, args.seconds, args.each))
    memory = memory_mib(pid)
    time.sleep(1.0)  # for what is on its way
    here.send("end")
    late = here.recv()
    process.join()
    return {
        "watchers": watchers,
        "puts_s": round(len(puts) / args.seconds),
        "put_p50_ms": round(statistics.median(puts), 2),
        "put_p99_ms": round(percentile(puts, 0.99), 2),
        "told": len(late),
        "late_p50_ms": round(percentile(late, 0.5), 2),
        "late_p99_ms": round(percentile(late, 0.99), 2),
        "node_mib": round(memory),
    }


def main() -> None:
    """Measure and print a line of JSON for each turn."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--watchers", type=int, default=10_000)
    parser.add_argument("--connections", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=10.0, help="of one turn")
    parser.add_argument("--each", type=float, default=1.0, help="seconds between two changes of what is watched")
    parser.add_argument("--repeats", type=int, default=2)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="raftkv-bench-") as directory:
        cluster = ProcessCluster(directory, 1, arguments=["--machine", "benchmarks.watchers:Watched"])
        try:
            cluster.start_all()
            (node,) = cluster.nodes.values()
            assert node.process is not None
            addresses = [node.member.client_address]
            for _ in range(args.repeats):
                for watchers in (0, args.watchers):
                    print(json.dumps(measure(addresses, node.process.pid, args, watchers)), flush=True)
        finally:
            cluster.kill_all()


if __name__ == "__main__":
    main()
