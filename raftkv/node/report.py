"""A node's status, put together from all of its parts."""

from __future__ import annotations

import asyncio
from typing import NamedTuple

from raftkv.core.roles import Leader
from raftkv.errors import WrongProcess
from raftkv.model import Member
from raftkv.node.applier import Applier
from raftkv.node.body import Body
from raftkv.node.clock import ClockWatch
from raftkv.node.engine import Engine
from raftkv.node.peers.peers import Peers
from raftkv.node.recovery import Recovered
from raftkv.node.room import DiskRoom
from raftkv.node.scrub import Scrubber
from raftkv.node.snapshots import Snapshotter
from raftkv.node.status import NodeStatus, PeerStatus
from raftkv.node.upgrades import Upgrades
from raftkv.node.writer import Writer
from raftkv.version import package_version


class DiskParts(NamedTuple):
    """The parts of a node that see to its disk."""

    writer: Writer
    scrubber: Scrubber
    room: DiskRoom


class Report:
    """Asks all parts for their share of a node's status, and counts what no part counts."""

    def __init__(
        self,
        body: Body,
        recovered: Recovered,
        *,
        engine: Engine,
        applier: Applier,
        peers: Peers,
        snapshots: Snapshotter,
        disk: DiskParts,
        clock: ClockWatch,
        upgrades: Upgrades,
    ) -> None:
        self._body = body
        self._machine = recovered.machine
        self._mistakes = recovered.mistakes
        self._store = recovered.opened.snapshots
        self._engine = engine
        self._applier = applier
        self._peers = peers
        self._snapshots = snapshots
        self._writer, self._scrubber, self._room = disk
        self._clock = clock
        self._upgrades = upgrades
        self._since = asyncio.get_running_loop().time()
        self.elections = 0
        """How often this node was elected since the start."""

    def status(self) -> NodeStatus:
        """The node's status. Raises `WrongProcess` in a child made by fork."""
        body, raft = self._body, self._body.raft
        if isinstance(body.failure, WrongProcess):
            raise body.failure  # the store might wait for a thread that the child does not have
        applied = self._applier.runner.applied
        snapshot, log_health, disk = raft.snapshot, body.world.log_health(), self._room.watch
        return NodeStatus(
            node_id=raft.node_id,
            cluster_id=self._peers.belonging.cluster_id,
            machine=self._machine.fingerprint(),
            version=package_version(),
            role="stopped" if body.failure is not None else type(raft.role).__name__.lower(),
            term=raft.term,
            leader=raft.leader,
            first_index=raft.log.first_index,
            last_index=raft.log.last_index,
            durable_index=raft.durable_index,
            commit_index=raft.commit_index,
            applied_index=applied.index,
            digest=f"{applied.digest:016x}",
            membership=raft.membership,
            membership_index=raft.log.membership_index,
            snapshot_index=snapshot.index if snapshot is not None else None,
            snapshot_term=snapshot.term if snapshot is not None else None,
            snapshots=len(self._store.list()),
            log_bytes=raft.log.bytes_between(raft.log.start.index, raft.log.last_index),
            state_bytes=self._applier.runner.store.approximate_bytes(),
            disk_free_bytes=disk.space.free_bytes,
            disk_total_bytes=disk.space.total_bytes,
            disk_reserve_bytes=disk.reserve_bytes,
            disk_low=disk.low is not None,
            writes_refused=self._room.writes_refused,
            disk_hand_overs=self._room.handed_over,
            waiting_requests=self._engine.waiting,
            installing=self._snapshots.receiving(),
            peers=[self._peer(member) for member in raft.membership.members if member.node_id != raft.node_id],
            uptime_s=asyncio.get_running_loop().time() - self._since,
            write_batches=self._writer.batches,
            write_seconds=self._writer.syncs_s,
            damaged=self._scrubber.problems(),
            scrub_passes=self._scrubber.passes,
            scrub_bytes=self._scrubber.read_bytes,
            damage_found=self._scrubber.damage_found,
            snapshots_taken=self._snapshots.taken,
            snapshots_installed=self._snapshots.installed,
            elections=self.elections,
            clock=self._clock.status(),
            misplaced=self._peers.places.misplaced,
            certificates=body.transport.certificates(),
            stopped=str(body.failure) if body.failure is not None else None,
            stopped_error=type(body.failure).__name__ if body.failure is not None else None,
            doubt=body.doubt if body.failure is None else None,
            log_lines_lost=log_health.lines_lost,
            log_problem=log_health.problem,
            mistakes=dict(self._mistakes.counts),
            versions=self._upgrades.status(),
        )

    def _peer(self, member: Member) -> PeerStatus:
        link = self._body.transport.links().get(member.node_id)
        status = PeerStatus(
            node_id=member.node_id,
            connected=link is not None and link.connected,
            rtt_ms=link.rtt_ms if link is not None else None,
            refused=link.refused if link is not None else None,
            refused_here=link is not None and link.refused_here,
            snapshot=self._snapshots.sending(member.node_id),
            incarnation=self._peers.met.incarnation_of(member.node_id),
            clock_offset_ms=self._clock.offset_ms(member.node_id),
        )
        if link is not None and link.unreached is not None:
            status.unreached, status.unreached_reason = link.unreached.text, str(link.unreached.reason)
        if (told := self._peers.admission.told.get(member.node_id)) is not None and told.newest:
            status.oldest_version, status.newest_version = told.oldest, told.newest
        role = self._body.raft.role
        if isinstance(role, Leader) and (progress := role.progress.get(member.node_id)) is not None:
            status.match_index = progress.match_index
            status.flow = progress.flow.value
            status.has_room = progress.has_room if progress.acked_round else None
            status.silent_ms = (role.tick - progress.contact_tick) * self._body.config.tick_ms
        return status
