"""Backups: which snapshot one is made of, and what is written at its head."""

from __future__ import annotations

import asyncio

from raftkv.errors import InvalidArgument, RaftKVError, Unavailable
from raftkv.machine import Active, StateMachine
from raftkv.model import Index
from raftkv.node.applier import Applier
from raftkv.node.body import Body
from raftkv.node.engine import Engine
from raftkv.node.peers.belonging import Belonging
from raftkv.node.snapshots import Snapshotter
from raftkv.node.waiting import Query
from raftkv.node.workers import settle
from raftkv.snapshot.backup import BackupHead
from raftkv.version import __version__
from raftkv.wire import BackupAsk, BackupRead


class Backups:
    """Offers snapshots, and reads them for whoever makes a backup. Any node does, whether it leads or not."""

    def __init__(
        self,
        body: Body,
        machine: type[StateMachine],
        engine: Engine,
        applier: Applier,
        snapshots: Snapshotter,
        belonging: Belonging,
    ) -> None:
        self._body = body
        self._machine = machine
        self._engine = engine
        self._applier = applier
        self._snapshots = snapshots
        self._belonging = belonging

    async def offer(self, ask: BackupAsk, deadline_s: float) -> BackupHead:
        """Hold a snapshot that can be read from now on; returns the head of its backup.

        Unless `ask` says otherwise, or names a snapshot that is still here, it has everything that was acknowledged
        before. Raises `Unavailable` when no leader says up to where that is, `Busy`, and what `take_snapshot` raises.
        """
        if self._body.failure is not None:
            raise self._body.failure
        if self._body.doubt is not None and not ask.stale:
            raise Unavailable(self._body.doubt)
        if ask.age_ms < 0:
            raise InvalidArgument(f"a snapshot of {ask.age_ms} ms ago: must be 0 or more")
        newer_than_ms = self._body.world.now_ms() - ask.age_ms if ask.age_ms else 1 << 62
        needed = 0
        if not (ask.age_ms or ask.stale or self._snapshots.lending.has(ask.digest)):
            needed = await self._read_index(deadline_s)
        sealed = await self._snapshots.lending.lend(ask.digest, newer_than_ms, needed)
        active: Active = self._applier.runner.active
        return BackupHead(
            cluster_id=self._belonging.cluster_id,
            cluster_name=self._belonging.cluster_name,
            node_id=self._body.node_id,
            machine=self._machine.__name__,
            version=active.version if active.kept is not None else 0,
            schema=active.schema.digest() if active.kept is not None else "",
            raftkv=__version__,
            made_ms=self._body.world.now_ms(),
            manifest=sealed.data,
        )

    async def read(self, asked: BackupRead) -> bytes:
        """Read a part of a snapshot that is held. Raises as `Lending.read`."""
        if self._body.failure is not None:
            raise self._body.failure
        return await self._snapshots.lending.read(asked.digest, asked.offset, asked.size)

    async def _read_index(self, deadline_s: float) -> Index:
        """An index with everything that was acknowledged before this call; it is applied here on return."""
        found: asyncio.Future[Index] = asyncio.get_running_loop().create_future()

        def done(index: Index, result: bytes | RaftKVError) -> None:
            settle(found, result if isinstance(result, RaftKVError) else index)

        self._engine.query(Query(b"", done, deadline_s, found.done, lambda: b""))
        try:
            return await asyncio.wait_for(found, deadline_s)
        except TimeoutError:
            raise Unavailable(
                f"no leader has confirmed within {deadline_s:.1f} s that node {self._body.node_id} has everything: "
                "wait for one, or ask for what this node has (stale)"
            ) from None
