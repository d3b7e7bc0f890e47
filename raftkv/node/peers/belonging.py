"""Which cluster this node belongs to. A node that joins learns it in its first handshake."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import msgspec

from raftkv.disk import Disk
from raftkv.log import VoteFile
from raftkv.logs import EventLog
from raftkv.node.identity import Founding, join_cluster
from raftkv.node.workers import Worker

logger = EventLog(__name__)


class Belonging:
    """The cluster of a data directory, as the file `cluster` has it.

    Invariant: `cluster_id` changes once at most, from nothing to the cluster that was joined.
    """

    def __init__(self, founding: Founding, vote: VoteFile, disk: Disk, path: str, worker: Worker) -> None:
        self._founding = founding
        self._vote = vote
        self._disk = disk
        self._path = path
        self._worker = worker

    @property
    def cluster_id(self) -> str:
        """The cluster that this node belongs to; empty before it has joined one."""
        return self._founding.cluster_id

    @property
    def cluster_name(self) -> str:
        """What the cluster is called; empty where that is not known."""
        return self._founding.name

    def join(self, cluster_id: str, name: str, written: Callable[[asyncio.Future[None]], None]) -> None:
        """Belong to `cluster_id` from now on; `written` is called when writing that to disk has succeeded or failed."""
        self._founding = msgspec.structs.replace(
            self._founding, cluster_id=cluster_id, name=self._founding.name or name
        )
        saved = self._worker.run(join_cluster, self._disk, self._path, self._vote, self._founding)
        saved.add_done_callback(written)
        logger.info("cluster_joined", node=self._vote.identity.node_id, cluster=cluster_id)
