"""Shows on a terminal what becomes of something in a cluster, while a command waits for its end."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable

from raftkv.cli.common import PATIENCE_S, Target
from raftkv.cli.progress import Bar, bar, stderr
from raftkv.cli.view import informed, look
from raftkv.doctor import ClusterView
from raftkv.errors import RaftKVError


@contextlib.asynccontextmanager
async def followed(
    target: Target, what: str, show: Callable[[Bar, ClusterView], None], every_s: float
) -> AsyncIterator[None]:
    """Have `show` draw each view of the cluster, every so many seconds, until the end of the block."""
    if not stderr().is_terminal:
        yield
        return
    task = asyncio.get_running_loop().create_task(_follow(target, what, show, every_s))
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def _follow(target: Target, what: str, show: Callable[[Bar, ClusterView], None], every_s: float) -> None:
    await asyncio.sleep(PATIENCE_S)
    asked = target
    with bar(what) as shown:
        while True:
            # What can't be shown now is shown the next time; the command itself reports errors.
            with contextlib.suppress(RaftKVError):
                view = await look(asked)
                asked = informed(target, view)
                show(shown, view)
            await asyncio.sleep(every_s)
