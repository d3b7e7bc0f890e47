"""How the limit of open files is shared out, and what the log says of it."""

from __future__ import annotations

import asyncio
import os
import resource
from collections.abc import Iterator

import pytest

from raftkv.config import Config
from raftkv.server import descriptors
from raftkv.server.descriptors import Room, make_room, watch
from tests.logged import capture_logs

CONFIG = Config()


@pytest.fixture
def limits() -> Iterator[tuple[int, int]]:
    """This process's own, restored afterwards."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    yield before
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_the_soft_limit_is_raised(limits: tuple[int, int]) -> None:
    """A shell's default of 1,024 is no reason to refuse clients where the system allows more."""
    hard = limits[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(512, hard), hard))
    assert make_room().limit == hard
    assert resource.getrlimit(resource.RLIMIT_NOFILE) == (hard, hard)


@pytest.mark.parametrize(
    ("room", "connections", "strangers"),
    [
        (Room(None, 1024), CONFIG.connections_max, 256),
        (Room(20_000, 5_000), CONFIG.connections_max, 256),
        (Room(1_024, 256), 768, 64),
        (Room(128, 64), 64, 16),
        (Room(8, 4), 4, 4),
    ],
)
def test_connections_leave_room_for_the_nodes_own_files(room: Room, connections: int, strangers: int) -> None:
    """Fewer than configured where the limit demands it, and the log says which limit to raise."""
    with capture_logs() as lines:
        assert room.server_limits(CONFIG).connections_max == connections
    assert room.transport_limits(CONFIG).strangers_max == strangers
    assert [line["event"] for line in lines] == ["connections_limited"] * (connections != CONFIG.connections_max)


def test_the_log_says_when_files_run_out_and_when_they_do_not(
    limits: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once each, whatever took them (EMFILE)."""
    monkeypatch.setattr(descriptors, "WATCH_S", 0)
    taken: list[int] = []

    async def story() -> None:
        watching = asyncio.ensure_future(watch())
        await turns()
        taken.append(os.dup(2))
        resource.setrlimit(resource.RLIMIT_NOFILE, (taken[0] + 20, limits[1]))
        while True:
            try:
                taken.append(os.dup(2))
            except OSError:
                break
        await turns()
        for each in taken:
            os.close(each)
        await turns()
        watching.cancel()

    async def turns() -> None:
        for _ in range(20):
            await asyncio.sleep(0)

    with capture_logs() as lines:
        asyncio.run(story())
    assert [line["event"] for line in lines] == ["files_run_out", "files_enough"]
