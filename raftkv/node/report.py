"""A node's status, put together from all of its parts."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from typing import NamedTuple

from raftkv.core.roles import Leader
from raftkv.errors import WrongProcess
from raftkv.model import Member, NodeId
from raftkv.node.applier import Applier
from raftkv.node.body import Body
from raftkv.node.clock import ClockWatch
from raftkv.node.engine import Engine
from raftkv.node.formats import FORMATS
from raftkv.node.lasting import Lasting
from raftkv.node.peers.peers import Peers
from raftkv.node.recovery import Recovered
from raftkv.node.room import DiskRoom
from raftkv.node.scrub import Scrubber
from raftkv.node.snapshots import Snapshotter
from raftkv.node.status import NodeStatus, PeerStatus, SignInStatus
from raftkv.node.timers import Timers
from raftkv.node.upgrades import Upgrades
from raftkv.node.writer import Writer
from raftkv.version import __version__

_PEER = "peer "


def _unreached(peer: NodeId) -> str:
    """What `Lasting` calls it that a peer is not reached."""
    return f"{_PEER}{peer}"


def _since(at: float | None, now: float) -> float | None:
    return None if at is None else now - at


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
        deciding: tuple[Upgrades, Timers],
        parked: Callable[[], int],
    ) -> None:
        """`deciding` are the parts that propose entries by themselves."""
        self._body = body
        self._machine = recovered.machine
        self._mistakes = recovered.mistakes
        self._times = recovered.times
        self._store = recovered.opened.snapshots
        self._engine = engine
        self._applier = applier
        self._peers = peers
        self._snapshots = snapshots
        self._writer, self._scrubber, self._room = disk
        self._clock = clock
        self._upgrades, self._timers = deciding
        self._incarnation = recovered.opened.vote.identity.incarnation
        self._data_dir = os.path.abspath(body.paths.root)
        self._parked = parked
        self._since = asyncio.get_running_loop().time()
        self._lasting = Lasting()
        self.sign_ins: Callable[[], SignInStatus | None] = lambda: None
        """What is known of sign-ins; it is no part of the node that lets clients in."""
        self.elections = 0
        """How often this node was elected since the start."""

    def look(self, now: float) -> None:
        """Take note of since when it is what the status shows; `now` is the loop's time."""
        body, clock = self._body, self._clock.doubt
        holds = {
            "leaderless": body.raft.leader is None,
            "doubt": body.doubt is not None,
            "disk_low": self._room.watch.low is not None,
            "writes_refused": self._room.writes_refused is not None,
            "misplaced": bool(self._peers.places.misplaced),
            "clock_doubt": clock is not None,
            "log_problem": body.world.log_health().problem is not None,
            "snapshot_problem": self._snapshots.problem is not None,
            "snapshot_due": self._snapshots.is_due,
        }
        links = body.transport.links()
        for member in body.raft.membership.members:
            link = links.get(member.node_id)
            holds[_unreached(member.node_id)] = link is None or not link.connected
        self._lasting.look(holds, now)

    def status(self) -> NodeStatus:
        """The node's status. Raises `WrongProcess` in a child made by fork."""
        body, raft = self._body, self._body.raft
        if isinstance(body.failure, WrongProcess):
            raise body.failure  # the store might wait for a thread that the child does not have
        applied, now = self._applier.runner.applied, asyncio.get_running_loop().time()
        snapshot, log_health, disk = raft.snapshot, body.world.log_health(), self._room.watch
        if body.failure is None:
            self.look(now)  # else what was over would last until the next look
        else:
            self._lasting.since_last_look("stopped", now)
        lasting, files = self._lasting.seconds(now), body.world.open_files()
        return NodeStatus(
            node_id=raft.node_id,
            cluster_id=self._peers.belonging.cluster_id,
            machine=self._machine.fingerprint(),
            version=__version__,
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
            parked_requests=self._parked(),
            installing=self._snapshots.receiving(),
            peers=[self._peer(each, lasting) for each in raft.membership.members if each.node_id != raft.node_id],
            uptime_s=now - self._since,
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
            secret_marks=list(body.transport.secret_marks()),
            secret_not_taken=body.transport.secret_not_taken(),
            secrets_refused=body.transport.stats.secrets_refused,
            secret_refused_s=_since(body.transport.stats.secret_refused_at, now),
            sign_ins=self.sign_ins() if body.failure is None else None,
            stopped=str(body.failure) if body.failure is not None else None,
            stopped_error=type(body.failure).__name__ if body.failure is not None else None,
            doubt=body.doubt if body.failure is None else None,
            log_lines_lost=log_health.lines_lost,
            log_problem=log_health.problem,
            mistakes=dict(self._mistakes.counts),
            methods=self._times.so_far(),
            versions=self._upgrades.status(),
            timers=self._timers.status(),
            incarnation=self._incarnation,
            data_dir=self._data_dir,
            sessions=self._applier.runner.sessions,
            sessions_max=body.config.sessions_max,
            waiting_requests_max=body.config.waiting_requests_max,
            open_files=files.used,
            open_files_max=files.limit,
            disk_writing_s=disk.last_writing_s,
            snapshot_problem=self._snapshots.problem,
            formats=FORMATS,
            addresses_unwritten=self._peers.places.has_moved,
            settings=[each for each in body.live.all() if each.source != "the default"],
            took={
                "commit": self._engine.commits.so_far(),
                "apply": self._applier.took.so_far(),
                "fsync": self._writer.took.so_far(),
                **self._snapshots.took(),
            },
            lasting_s={name: seconds for name, seconds in lasting.items() if not name.startswith(_PEER)},
        )

    def _peer(self, member: Member, lasting: dict[str, float]) -> PeerStatus:
        link = self._body.transport.links().get(member.node_id)
        status = PeerStatus(
            node_id=member.node_id,
            connected=link is not None and link.connected,
            rtt_ms=link.rtt_ms if link is not None else None,
            address=link.address if link is not None else "",
            refused=link.refused if link is not None else None,
            refused_here=link is not None and link.refused_here,
            snapshot=self._snapshots.sending(member.node_id),
            incarnation=self._peers.met.incarnation_of(member.node_id),
            clock_offset_ms=self._clock.offset_ms(member.node_id),
        )
        if link is not None and link.traffic is not None:
            traffic = link.traffic
            status.sent_bytes, status.received_bytes = traffic.sent_bytes, traffic.received_bytes
            status.round_trips = traffic.round_trips.so_far()
        if not status.connected:
            status.unreached_s = lasting.get(_unreached(member.node_id))
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
