"""Many callers who scan much, beside writers: what the writers notice, and whether the leader stays one.

```bash
python -m benchmarks.scans --rows 1000000 --callers 32
```

Three nodes, each a process of its own, writers and callers in this one and in another; the callers read all rows,
page by page, again and again. It prints the writes' latencies without and with them, taken in turns as the machine may
have other things to do, and the terms before and after.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import statistics
import tempfile
import time

from raftkv.client import Admin
from raftkv.errors import Busy, NotAccepted
from raftkv.kv import KeyValueClient, Put
from raftkv.processes.cluster import ProcessCluster

WRITERS = 8
BATCH = 256


async def fill(addresses: list[str], rows: int) -> None:
    """Put so many rows, as transactions."""
    async with KeyValueClient(addresses, deadline_s=60) as kv:
        for start in range(0, rows, 8 * BATCH):
            await asyncio.gather(
                *(
                    kv.transact([], [Put(b"row/%09d" % key, b"x" * 32) for key in range(first, first + BATCH)])
                    for first in range(start, min(rows, start + 8 * BATCH), BATCH)
                )
            )


async def write(addresses: list[str], seconds: float) -> list[float]:
    """Latencies of puts by a few writers, one outstanding each, in milliseconds."""
    taken: list[float] = []
    end = time.monotonic() + seconds

    async def writer(number: int) -> None:
        async with KeyValueClient(addresses, deadline_s=30) as kv:
            while time.monotonic() < end:
                began = time.monotonic()
                await kv.put(b"written/%d" % number, b"v" * 64)
                taken.append((time.monotonic() - began) * 1000)

    await asyncio.gather(*(writer(number) for number in range(WRITERS)))
    return taken


def scan(
    addresses: list[str],
    callers: int,
    page_items: int,
    seconds: float,
    told: multiprocessing.Queue[tuple[int, int, int]],
) -> None:
    """Callers that read everything, again and again; tells rows, pages and refusals."""
    counts = [0, 0, 0]

    async def caller(end: float) -> None:
        async with KeyValueClient(addresses, deadline_s=10) as kv:
            start: bytes | None = b""
            while time.monotonic() < end:
                try:
                    page = await kv.range(start or b"", None, limit=page_items)
                except (Busy, NotAccepted):
                    counts[2] += 1
                    continue
                counts[0] += len(page.items)
                counts[1] += 1
                start = page.next

    async def all_of_them() -> None:
        end = time.monotonic() + seconds
        await asyncio.gather(*(caller(end) for _ in range(callers)))

    asyncio.run(all_of_them())
    told.put((counts[0], counts[1], counts[2]))


async def term_of(addresses: list[str]) -> int:
    """The term as a node says it."""
    async with Admin(addresses) as admin:
        return int((await admin.status())["term"])


def figures(taken: list[float]) -> dict[str, float]:
    """Count and percentiles."""
    ordered = sorted(taken)
    return {
        "writes": len(ordered),
        "p50_ms": round(statistics.median(ordered), 2),
        "p99_ms": round(ordered[int(len(ordered) * 0.99)], 2),
        "max_ms": round(ordered[-1], 2),
    }


def main() -> None:
    """Run it and print JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--callers", type=int, default=32)
    parser.add_argument("--page", type=int, default=1000, help="rows of one page")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=5.0, help="of each half of a round")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory, ProcessCluster(directory) as cluster:
        cluster.start_all()
        addresses = cluster.addresses
        asyncio.run(fill(addresses, options.rows))
        before = asyncio.run(term_of(addresses))
        told: multiprocessing.Queue[tuple[int, int, int]] = multiprocessing.Queue()
        alone: list[float] = []
        beside: list[float] = []
        read = [0, 0, 0]
        for _ in range(options.rounds):
            alone += asyncio.run(write(addresses, options.seconds))
            arguments = (addresses, options.callers, options.page, options.seconds, told)
            callers = multiprocessing.Process(target=scan, args=arguments)
            callers.start()
            beside += asyncio.run(write(addresses, options.seconds))
            read = [total + more for total, more in zip(read, told.get(timeout=60), strict=True)]
            callers.join(30)
        after = asyncio.run(term_of(addresses))
    print(
        json.dumps(
            {
                "without": figures(alone),
                "with": figures(beside),
                "rows_read": read[0],
                "pages": read[1],
                "refused": read[2],
                "term_before": before,
                "term_after": after,
            },
            indent=2,
        )
    )


if __name__ == "__main__":
    main()
