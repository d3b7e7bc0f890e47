"""Clusters of `SyncObj`s in one process, and waiting for what is to become true."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from raftkv.processes.ports import free_ports

DEADLINE_S = 30.0
"""For anything that must happen: only a test that fails waits so long."""


def addresses(count: int) -> list[str]:
    """Free ones, on loopback."""
    return [f"127.0.0.1:{port}" for port in free_ports(count)]


def others(own: str, all_addresses: list[str]) -> list[str]:
    """Everybody but `own`."""
    return [each for each in all_addresses if each != own]


def eventually(condition: Callable[[], Any], what: str = "") -> Any:
    """Wait until `condition` gives something true, and return that."""
    end = time.monotonic() + DEADLINE_S
    pause = threading.Event()
    while not (found := condition()):
        assert time.monotonic() < end, f"not within {DEADLINE_S:g} s: {what or condition}"
        pause.wait(0.005)
    return found


def all_in_parallel(works: list[Callable[[], Any]]) -> list[Any]:
    """Run them in threads of their own, and give their results: objects wait for each other when they start."""
    results: list[Any] = [None] * len(works)

    def run(number: int, work: Callable[[], Any]) -> None:
        results[number] = work()

    threads = [threading.Thread(target=run, args=pair) for pair in enumerate(works)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(DEADLINE_S)
    return results


@contextmanager
def cluster(make: Callable[[str, list[str]], Any], count: int = 3) -> Iterator[list[Any]]:
    """`count` objects that `make(address, others)` makes, destroyed at the end."""
    places = addresses(count)
    made: list[Any] = []
    try:
        made.extend(make(place, others(place, places)) for place in places)
        yield made
    finally:
        for each in made:
            each.destroy()


class Outcomes:
    """A callback that remembers, for calls whose order does not matter."""

    def __init__(self) -> None:
        self.seen: list[tuple[Any, Any]] = []

    def __call__(self, result: Any, reason: Any) -> None:
        self.seen.append((result, reason))
