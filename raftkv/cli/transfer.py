"""Shows how far a snapshot is on its way to a node, while a command waits for that node."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from rich.progress import BarColumn, DownloadColumn, Progress, TaskID, TextColumn, TransferSpeedColumn

from raftkv.cli.common import PATIENCE_S, Target, progress, stderr
from raftkv.cli.view import ClusterView, informed, look
from raftkv.errors import RaftKVError
from raftkv.model import NodeId
from raftkv.node.status import PeerStatus

LOOK_S = 0.3


@contextlib.asynccontextmanager
async def transfer_shown(target: Target, node_id: NodeId) -> AsyncIterator[None]:
    """A bar on stderr as long as the leader sends `node_id` a snapshot, and how far behind it is after that.

    Where there is no terminal, one line says what is waited for.
    """
    if not stderr.is_terminal:
        async with progress(f"waiting until node {node_id} has caught up"):
            yield
        return
    task = asyncio.get_running_loop().create_task(_show(target, node_id))
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def _show(target: Target, node_id: NodeId) -> None:
    await asyncio.sleep(PATIENCE_S)
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(binary_units=True), TransferSpeedColumn())
    with Progress(*columns, console=stderr, transient=True) as shown:
        bar, asked = shown.add_task(f"node {node_id}", total=None), target
        while True:
            # What can't be shown now is shown the next time; the command itself reports errors.
            with contextlib.suppress(RaftKVError):
                view = await look(asked)
                asked = informed(target, view)
                _update(shown, bar, view, node_id)
            await asyncio.sleep(LOOK_S)


def _update(shown: Progress, bar: TaskID, view: ClusterView, node_id: NodeId) -> None:
    peer = seen_by_leader(view, node_id)
    if peer is None or view.leader is None:
        return
    if (sent := peer.snapshot) is not None:
        text = f"snapshot {sent.index} to node {node_id}, {sent.files_done} of {sent.files} files"
        shown.update(bar, description=text, completed=sent.sent_bytes, total=sent.total_bytes)
    else:
        behind = view.leader.commit_index - (peer.match_index or 0)
        shown.update(bar, description=f"node {node_id} is {behind} entries behind")


def seen_by_leader(view: ClusterView, node_id: NodeId) -> PeerStatus | None:
    """The node `node_id` as the leader sees it; None without a leader, or if the leader does not name it."""
    peers = view.leader.peers if view.leader is not None else []
    return next((peer for peer in peers if peer.node_id == node_id), None)
