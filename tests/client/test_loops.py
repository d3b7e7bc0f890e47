"""Clients on the event loops that programs use."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from raftkv import Server
from raftkv.kv import KeyValue, KeyValueClient


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_the_first_calls_may_come_at_once(loop: str, tmp_path: Path) -> None:
    """Calls that are made before the client has connected wait for it together."""

    async def story() -> list[object]:
        async with Server(KeyValue, data_dir=tmp_path) as server, KeyValueClient([server.address]) as kv:
            found = await asyncio.gather(kv.get(b"a"), kv.get(b"b"), kv.put(b"c", b"1"), kv.put(b"d", b"2"))
            return found[:2]

    factory = pytest.importorskip("uvloop").new_event_loop if loop == "uvloop" else None
    with asyncio.Runner(loop_factory=factory) as runner:
        assert runner.run(asyncio.wait_for(story(), 30)) == [None, None]
