"""A node's status, and the problems that it shows: for the command line, health checks, metrics and tests."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import msgspec

from raftkv.durations import Durations
from raftkv.machine import MethodTime
from raftkv.model import Index, Membership, NodeId, Term
from raftkv.node.live import Setting
from raftkv.node.watchdog import bytes_text
from raftkv.snapshot import TransferProgress
from raftkv.transport.tls import WARN_S, CertificateStatus

TELLING = ("name", "lookup", "network", "tls", "handshake")
"""Reasons for which a peer is not reached that say more than that it may not be running."""


class PeerStatus(msgspec.Struct, kw_only=True):
    """Another node, as the node that reports sees it."""

    node_id: NodeId
    connected: bool
    rtt_ms: float | None = None
    refused: str | None = None
    """Why the last handshake failed, with what to do."""
    match_index: Index | None = None
    """The last entry that it holds durably; known to the leader only."""
    flow: str | None = None
    """probe, replicate or snapshot; known to the leader only."""
    silent_ms: int | None = None
    """How long ago it was last heard from; known to the leader only."""
    has_room: bool | None = None
    """Whether its disk is above its reserve; known to the leader only."""
    clock_offset_ms: int | None = None
    """How far its clock is ahead of the leader's time; known to the leader only."""
    snapshot: TransferProgress | None = None
    incarnation: str | None = None
    """The data directory that it had when it was last met; None when it was never met."""
    unreached: str | None = None
    """Why it is not connected, as far as this node can tell; None while it is connected."""
    unreached_reason: str | None = None
    """The same as one word, as metrics have it (`raftkv.transport.reasons.Reason`)."""
    oldest_version: int | None = None
    newest_version: int | None = None
    """Its class runs these versions of the application and what is between them; None when it did not say."""
    refused_here: bool = False
    """Whether this node refused the other one; otherwise the other one refused this node."""
    address: str = ""
    """Where it was met or looked for at last; empty when that is not known."""
    unreached_s: float | None = None
    """For how many seconds it has not been connected; None while it is, and when that is not known."""
    sent_bytes: int = 0
    received_bytes: int = 0
    round_trips: Durations | None = None
    """Of pings, since the link was made; None when nobody counts them."""

    def problem(self, seen_from: NodeId) -> str:
        """A sentence on a peer that is not connected. Only if that may pass by itself it begins "node … can't be"."""
        if self.unreached_reason in TELLING:
            return f"node {seen_from} can't connect to node {self.node_id}: {self.unreached}"
        why = f" ({self.unreached})" if self.unreached else ""
        return f"node {self.node_id} can't be reached from node {seen_from}{why}: is it running?"


class ClockStatus(msgspec.Struct, kw_only=True):
    """A node's clock and log time, in milliseconds (since the epoch). Most fields are known to the leader only."""

    wall_ms: int
    """What its wall clock shows."""
    log_time_ms: int
    """The time of the newest entry of its log."""
    bound_ms: int
    """How far a clock may be off before it is not trusted."""
    doubts: int
    """How often it began to doubt its own clock since it was started."""
    offset_ms: int | None = None
    """How far its clock is ahead of the time by which it stamps entries; negative when it is behind."""
    ahead_ms: int | None = None
    """How far log time is ahead of the clocks; it stands still until they have reached it."""
    has_majority: bool | None = None
    """Whether a majority of the voters' clocks agrees."""
    doubt: str | None = None
    """Why the leader does not stamp entries by its own clock, with what to do."""

    def own_problems(self, node: NodeId) -> list[str]:
        """What is wrong with the leader's clock and log time, in sentences."""
        found = [] if self.doubt is None else [f"node {node}: {self.doubt}"]
        if self.ahead_ms is not None and self.ahead_ms > self.bound_ms:
            found.append(
                f"log time is {seconds_text(self.ahead_ms)} ahead of what the clocks say, and stands still until they "
                "reach it: when they are right, `raftkv clock reset` takes it back"
            )
        return found


class ClockReset(msgspec.Struct, kw_only=True):
    """What a reset of log time did, in milliseconds since the epoch."""

    index: Index
    before_ms: int
    log_time_ms: int


def seconds_text(ms: int) -> str:
    """A time for people: `1.5 s`, `2.0 h`, `3650.0 days`."""
    for unit, size in (("days", 86_400_000), ("h", 3_600_000), ("min", 60_000)):
        if ms >= 2 * size:
            return f"{ms / size:.1f} {unit}"
    return f"{ms / 1000:.1f} s"


class UpgradeStatus(msgspec.Struct, frozen=True):
    """What a node knows of the versions of the application."""

    active: int
    """The active version; 0 before there is one."""
    oldest: int
    newest: int
    """This node's class runs these two and what is between them."""
    left: tuple[str, ...] = ()
    """Upgrades to the active version that are not done yet."""
    steps: int = 0
    """How many pieces of them were tried."""
    failed: str | None = None
    """Why the last upgrade, or a piece of it, had no effect."""
    waits_for: str | None = None
    """On a leader: why version `active` + 1, which some node's class has, is not active yet."""


class TimerStatus(msgspec.Struct, frozen=True):
    """A node's scheduled commands; the last three are counted since its start, with replayed entries."""

    waiting: int
    """How many wait for their time."""
    next_due_ms: int | None
    """When the first is due, in milliseconds since the epoch."""
    fired: int
    failed: int
    """Those that raised, and so had no effect."""
    dropped: int
    """Those that the active version lacked."""


class Slowed(msgspec.Struct, frozen=True, kw_only=True):
    """Somebody has shown wrong passwords or tokens so often within a quarter of an hour that each further one has to
    wait."""

    of: Literal["user from host", "user", "host"]
    """Whose failures are counted: a user's from one place, a user's from anywhere, or a place's for anybody."""
    user: str
    """Empty where it does not matter, and for what was no user of this cluster."""
    host: str
    """Empty where it does not matter."""
    failures: int
    ago_s: float
    """Since the last one."""


class TokenEnd(msgspec.Struct, frozen=True):
    """A user whose last token ends soon, or has just ended."""

    user: str
    expires_ms: int
    """Since the epoch."""


class SignInStatus(msgspec.Struct, frozen=True, kw_only=True):
    """What a node knows of those who sign in there, and of their tokens. Counts are since its start."""

    failed: int = 0
    """Clients that have shown a wrong password or token."""
    delayed: int = 0
    """Those that were not tried, as too many before them were wrong."""
    slowed: list[Slowed] = []
    """Those with the most failures."""
    slowed_count: int = 0
    """How many there are in all."""
    ending: list[TokenEnd] = []
    """Those that end first, of all that end within three days or have ended within one."""
    ending_count: int = 0


class NodeStatus(msgspec.Struct, kw_only=True):
    """What a node tells an operator about itself."""

    node_id: NodeId
    cluster_id: str
    machine: str
    """The fingerprint of its state machine."""
    version: str
    role: str
    term: Term
    leader: NodeId | None
    first_index: Index
    last_index: Index
    durable_index: Index
    commit_index: Index
    applied_index: Index
    digest: str
    """The state's digest at `applied_index`, in hexadecimal."""
    membership: Membership
    membership_index: Index
    snapshot_index: Index | None = None
    snapshot_term: Term | None = None
    snapshots: int = 0
    log_bytes: int = 0
    state_bytes: int = 0
    disk_free_bytes: int = 0
    disk_total_bytes: int = 0
    disk_reserve_bytes: int = 0
    """With fewer free bytes the node does not campaign; as a leader it hands over, or refuses writes."""
    disk_low: bool = False
    """Whether fewer bytes are free than the reserve."""
    writes_refused: str | None = None
    """Why this leader refuses writes, with what to do; None when it accepts them or does not lead."""
    disk_hand_overs: int = 0
    """How often it began to hand leadership over because its disk was nearly full."""
    waiting_requests: int = 0
    parked_requests: int = 0
    """Those that wait here until something changes."""
    installing: TransferProgress | None = None
    """A snapshot that is arriving here."""
    peers: list[PeerStatus] = []
    uptime_s: float = 0.0
    write_batches: int = 0
    write_seconds: float = 0.0
    damaged: list[str] = []
    """Damaged files, in sentences that say what to do."""
    scrub_passes: int = 0
    """How often all snapshots and the log were read in search of damage, since the start."""
    scrub_bytes: int = 0
    damage_found: int = 0
    """How many damaged files were found since the start, with those that were mended since."""
    snapshots_taken: int = 0
    snapshots_installed: int = 0
    elections: int = 0
    misplaced: str = ""
    """A text on where it listens, if the membership sends others elsewhere; empty when the two agree."""
    clock: ClockStatus | None = None
    certificates: list[CertificateStatus] = []
    """The certificates of the links between nodes; empty without TLS."""
    secret_marks: list[str] = []
    """By what the cluster secrets in use are told apart: of the one that this node proves to know, then of the other
    one that it accepts. The same on all nodes that have it, and of no use to who wants to know it; empty without one.
    """
    secret_not_taken: str = ""
    """Why the present file of the cluster secret is not in use; empty when it is, and without one."""
    secrets_refused: int = 0
    """How often this node refused another one, or whoever posed as one, for a wrong cluster secret, since its start."""
    secret_refused_s: float | None = None
    """How many seconds ago the last time was; None for never."""
    sign_ins: SignInStatus | None = None
    """Who signs in here; None where that is not known."""
    stopped: str | None = None
    """Why the node has stopped, with what to do; None while it serves."""
    stopped_error: str | None = None
    """The same as the error's name."""
    doubt: str | None = None
    """Why this leader tells clients nothing: replicas differ, and it is not decided who is wrong."""
    log_lines_lost: int = 0
    """How many lines its process could not log, because nothing read them in time."""
    versions: UpgradeStatus | None = None
    """The versions of the application."""
    timers: TimerStatus | None = None
    """The scheduled commands."""
    mistakes: dict[str, int] = {}
    """How often commands and queries raised what looks like a mistake in them, by name, since the start."""
    methods: dict[str, MethodTime] = {}
    """How often commands and queries ran and what that took, by name, since the start."""
    log_problem: str | None = None
    """Why its log does not get through now; None when it does."""
    incarnation: str = ""
    """Its data directory's word, by which others tell it from another one."""
    data_dir: str = ""
    """Where that is on its machine."""
    sessions: int = 0
    """Sessions of clients that are open."""
    sessions_max: int = 0
    """With one more, the session goes that was not used for longest; 0 when that is not known."""
    waiting_requests_max: int = 0
    """So many requests may wait, or further ones are refused; 0 when that is not known."""
    open_files: int = 0
    """About how many files and connections its process has open; 0 when that is not known."""
    open_files_max: int = 0
    """How many the system lets it have; 0 when that is not known, or there is no limit."""
    disk_writing_s: float = 0.0
    """For how many seconds the disk has worked on the write that is under way; 0 when there is none."""
    snapshot_problem: str | None = None
    """Why the last snapshot that was due was not taken; None when it was."""
    settings: list[Setting] = []
    """Those that may change while it runs and are not at their defaults, with where they are from."""
    formats: dict[str, int] = {}
    """The versions of what its raftkv speaks, and writes and reads, by name; empty from one that does not tell."""
    addresses_unwritten: bool = False
    """Whether it goes by addresses of an operator's (`raftkv member rewrite`) that are not in the log yet."""
    took: dict[str, Durations] = {}
    """What things took since the start, by name: `commit` (a batch of commands, from its proposal until it was
    committed and durable here; on a leader), `apply` and `fsync` (a batch), `snapshot`, `install` and `transfer`."""
    lasting_s: dict[str, float] = {}
    """For how many seconds what this status shows has been so, by name: `stopped`, `leaderless`, `doubt`, `disk_low`,
    `writes_refused`, `misplaced`, `clock_doubt`, `log_problem`, `snapshot_problem`, `snapshot_due`."""

    def problems(self) -> list[str]:
        """What an operator should look at, in sentences that say what to do; empty when all is well."""
        found = []
        if self.stopped is not None:
            found.append(f"node {self.node_id} has stopped: {self.stopped}")
        if self.doubt is not None:
            found.append(f"nothing is served: {self.doubt}")
        if self.leader is None:
            found.append(
                f"node {self.node_id} knows no leader: start nodes until a majority of "
                f"{list(self.membership.voters)} can reach each other"
            )
        if self.misplaced:
            found.append(
                f"node {self.node_id} {self.misplaced}: unless something there passes them on, start it at that "
                f"address, or correct the membership with raftkv member update {self.node_id}=PEER/CLIENT"
            )
        if self.disk_low:
            found.append(
                f"node {self.node_id} has {bytes_text(self.disk_free_bytes)} of disk left, less than its reserve of "
                f"{bytes_text(self.disk_reserve_bytes)}, so it shall not lead: free some; it goes on by itself"
            )
        found += [f"node {self.node_id}: {text}" for text in self.damaged]
        if self.writes_refused is not None:
            found.append(f"writes are refused: {self.writes_refused}")
        found += self.version_problems()
        found += self.clock_problems()
        found += [
            f"node {self.node_id}: the certificate of {each.name!r} ({each.role}) "
            f"{'has run' if each.expires_s < 0 else 'runs'} out on {each.not_after:%Y-%m-%d %H:%M} UTC: "
            "replace its file, the node takes it up by itself"
            for each in self.certificates
            if each.expires_s < WARN_S
        ]
        found += [
            f"node {self.node_id} can't take up its TLS files, and its next start will fail: {reason}"
            for reason in sorted({each.not_taken for each in self.certificates if each.not_taken})
        ]
        if self.secret_not_taken:
            found.append(
                f"node {self.node_id} can't take up its file of the cluster secret, and its next start will fail: "
                f"{self.secret_not_taken}"
            )
        if self.log_problem is not None:
            found.append(
                f"node {self.node_id} can't say what happens ({self.log_lines_lost} lines lost): {self.log_problem}: "
                "see to who reads its log, or to the disk that it is on; the node itself goes on"
            )
        for peer in self.peers:
            if peer.refused is not None:
                who, whom = (self, peer) if peer.refused_here else (peer, self)
                found.append(f"node {who.node_id} refuses node {whom.node_id}: {peer.refused}")
            elif not peer.connected:
                found.append(peer.problem(self.node_id))
            if peer.snapshot is not None:
                done = 100 * peer.snapshot.sent_bytes // max(1, peer.snapshot.total_bytes)
                found.append(f"node {peer.node_id} is getting a snapshot: {done} % sent")
            elif peer.match_index is not None and self.commit_index - peer.match_index > 50_000:
                found.append(f"node {peer.node_id} is {self.commit_index - peer.match_index} entries behind")
        return found

    def version_problems(self) -> list[str]:
        """The problems with versions of the application."""
        versions, found = self.versions, []
        if versions is None:
            return []
        if versions.failed is not None:
            found.append(f"{versions.failed}: start all nodes with a mended class, then raftkv upgrade")
        if versions.waits_for is not None:
            found.append(f"version {versions.active + 1} of the application is not active yet: {versions.waits_for}")
        return found

    def clock_problems(self) -> list[str]:
        """The problems with clocks and log time; only a leader knows of any."""
        if self.clock is None:
            return []
        found = self.clock.own_problems(self.node_id)
        for peer in self.peers:
            offset = peer.clock_offset_ms or 0
            if abs(offset) > self.clock.bound_ms:
                side = "ahead of" if offset > 0 else "behind"
                text = seconds_text(abs(offset))
                found.append(f"the clock of node {peer.node_id} is {text} {side} the others': set it right")
        return found


def by_secrets(nodes: Iterable[NodeStatus]) -> dict[tuple[str, ...], list[NodeId]]:
    """Which nodes have taken up which cluster secrets, by the secrets' marks, that of the one that they prove first;
    without the nodes that have none."""
    found: dict[tuple[str, ...], list[NodeId]] = {}
    for node in nodes:
        if node.secret_marks:
            found.setdefault(tuple(node.secret_marks), []).append(node.node_id)
    return found
