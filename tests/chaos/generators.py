"""Processes that make load or trouble: started, listened to, killed."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec

from raftkv.processes.cluster import NodeProcess
from tests.chaos.crowd import Standing
from tests.chaos.readers import PagesRead
from tests.chaos.storm import StormHeard


async def _start(module: str, arguments: Sequence[str]) -> asyncio.subprocess.Process:
    root = str(Path(__file__).parents[2])
    path = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        f"tests.chaos.{module}",
        *arguments,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": path},
        start_new_session=True,
    )


async def storm(
    nodes: Sequence[NodeProcess],
    https: Sequence[str] = (),
    *,
    seed: int,
    frames: int,
    seconds: float = 60.0,
    rest: float = 0.0,
) -> StormHeard:
    """So many malformed frames to all of these nodes and HTTP ports; returns what was heard of them."""
    arguments = ["--seed", str(seed), "--frames", str(frames), "--seconds", str(seconds), "--rest", str(rest)]
    for node in nodes:
        arguments += ["--client", node.own.client_address, "--peer", f"{node.node_id}={node.own.peer_address}"]
    for address in https:
        arguments += ["--http", address]
    process = await _start("storm", arguments)
    try:
        out, _ = await process.communicate()
    except asyncio.CancelledError:
        process.kill()
        await process.wait()
        raise
    assert process.returncode == 0, f"the storm ended with {process.returncode}"
    return msgspec.json.decode(out, type=StormHeard)


class Generator:
    """A process that makes load, and tells of it line by line."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def line(self) -> bytes:
        """The next one that it prints. Raises `AssertionError` when it has ended."""
        assert self._process.stdout is not None
        line = await self._process.stdout.readline()
        assert line, f"{type(self).__name__} has ended"
        return line

    async def vanish(self) -> None:
        """SIGKILL: every connection ends in the middle of whatever it was about."""
        if self._process.returncode is None:
            self._process.kill()
        await self._process.wait()


class Crowd(Generator):
    """Many clients in a process of their own."""

    @classmethod
    async def start(
        cls, addresses: Sequence[str], *, connections: int, outstanding: int = 1, rest_s: float = 0.0
    ) -> Crowd:
        """Returns at once; `standing` waits until all are connected."""
        arguments = ["--connections", str(connections), "--outstanding", str(outstanding), "--rest", str(rest_s)]
        for address in addresses:
            arguments += ["--client", address]
        return cls(await _start("crowd", arguments))

    async def standing(self) -> Standing:
        """The next line that it prints."""
        return msgspec.json.decode(await self.line(), type=Standing)


class Readers(Generator):
    """Callers who read everything in a process of their own: whoever decodes their pages has no time for links."""

    @classmethod
    async def start(cls, addresses: Sequence[str], callers: int) -> Readers:
        """Returns at once."""
        clients = [argument for address in addresses for argument in ("--client", address)]
        return cls(await _start("readers", ["--callers", str(callers), *clients]))

    async def read(self) -> PagesRead:
        """The next line that it prints. Raises `AssertionError` for an error that no caller should see."""
        told = msgspec.json.decode(await self.line(), type=PagesRead)
        assert not told.failure, f"a caller who reads everything: {told.failure}"
        return told
