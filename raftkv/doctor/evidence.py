"""What the doctor goes by: two looks at the cluster, data directories, and the last lines of log files."""

from __future__ import annotations

import re
import shlex

import msgspec

from raftkv.doctor.cluster import ClusterView
from raftkv.log import Identity
from raftkv.model import Membership, NodeId
from raftkv.node.status import NodeStatus

HEARD_MS = 1_000
"""Whom a leader has heard from in this time takes part, though it may not be reached from here. Heartbeats are answered
several times in it."""

FAR_AWAY = 100
"""More than any cluster has had nodes that nobody here knows of."""


class Heard(msgspec.Struct, frozen=True):
    """Who answered at an address that was given."""

    address: str
    node_id: NodeId
    cluster_id: str


class Event(msgspec.Struct, frozen=True):
    """A line of a log: its name, its fields as text, and when it was said, as it stands there."""

    name: str
    level: str = ""
    timestamp: str = ""
    fields: dict[str, str] = {}

    def describe(self) -> str:
        """The line for people."""
        said = " ".join(f"{name}={value}" for name, value in self.fields.items())
        return " ".join(filter(None, [self.timestamp, self.name, said]))


class Trial(msgspec.Struct, frozen=True, kw_only=True):
    """What a start of a directory's node would come to."""

    error: str | None = None
    """The name of the error with which it would end; None when it would go on."""
    text: str = ""
    """The error's text, which says what to do."""
    events: tuple[Event, ...] = ()
    """What it would log."""
    rebuilds: str | None = None
    """From what it would make the state anew; None when it would use the one that is there."""


class DirectorySeen(msgspec.Struct, frozen=True, kw_only=True):
    """A data directory, and what was read of it."""

    path: str
    has_data: bool = True
    """Whether there is anything of a node."""
    owner: Identity | None = None
    """Whose it is, by its file `cluster`, or else by its vote file; None when neither can be read."""
    starts: int = 0
    """How often its node was started, by the vote file."""
    in_use: bool = False
    """Whether a process holds its lock."""
    used_by: int | None = None
    """That process, if it can be told."""
    trial: Trial | None = None
    """None while it is in use: what its node is just writing would look damaged."""
    strangers: tuple[str, ...] = ()
    """Names in it that no version of raftkv writes."""
    has_addresses: bool = False
    """Whether an operator's addresses lie there that are not in the log yet."""
    free_bytes: int = 0
    total_bytes: int = 0
    reserve_bytes: int = 0
    """With fewer free bytes a node does not lead, if nobody has set it otherwise."""
    filesystem: str = ""
    """The kind of file system; empty when that can't be told."""


class LogSeen(msgspec.Struct, frozen=True, kw_only=True):
    """The end of a log file of `raftkv serve --log-json`."""

    path: str
    node_id: NodeId | None = None
    """Whose log it is, by its lines."""
    events: tuple[Event, ...] = ()
    """The last ones, oldest first; those before the last start are left out."""
    unread: int = 0
    """Lines that are no events."""
    problem: str | None = None
    """Why nothing of it could be read."""


class Evidence(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that conditions look at. Without `view` nobody was asked."""

    view: ClusterView | None = None
    before: ClusterView | None = None
    """The same cluster `apart_s` seconds earlier."""
    apart_s: float = 1.0
    heard: tuple[Heard, ...] = ()
    directories: tuple[DirectorySeen, ...] = ()
    logs: tuple[LogSeen, ...] = ()
    options: tuple[str, ...] = ()
    """`-a` with the addresses, and then the TLS files, for commands that talk to the cluster."""

    @property
    def nodes(self) -> list[NodeStatus]:
        return self.view.nodes if self.view is not None else []

    @property
    def newest(self) -> NodeStatus | None:
        """The status that has the newest membership; None when nobody answers."""
        return self.view.newest if self.view is not None and self.view.nodes else None

    @property
    def leader(self) -> NodeStatus | None:
        return self.view.leader if self.view is not None else None

    @property
    def membership(self) -> Membership:
        """The newest that a node knows; an empty one when nobody answers."""
        return self.newest.membership if self.newest is not None else Membership()

    @property
    def silent(self) -> dict[NodeId, str]:
        """The members that don't answer, with what happens when one asks."""
        view = self.view
        return {} if view is None else {each.node_id: each.reason for each in view.silent if each.node_id is not None}

    @property
    def without_tls(self) -> set[NodeId]:
        """The members that don't answer as TLS is not agreed on with them."""
        silent = self.view.silent if self.view is not None else []
        return {each.node_id for each in silent if each.node_id is not None and each.tls}

    @property
    def followed(self) -> NodeId | None:
        """The leader of the newest term, also where it does not answer here and those that do hear it; voters forget
        one of whom they have not heard for some ticks."""
        voters = [node for node in self.nodes if node.role != "stopped" and self.membership.is_voter(node.node_id)]
        term = max((node.term for node in voters), default=0)
        return next((node.leader for node in voters if node.term == term and node.leader is not None), None)

    @property
    def taking_part(self) -> set[NodeId]:
        """Those that answer, or that the leader hears, and the leader that they follow."""
        leader, up = self.leader, {node.node_id for node in self.nodes if node.role != "stopped"}
        up |= set() if self.followed is None else {self.followed}
        for peer in leader.peers if leader is not None else []:
            if peer.node_id in self.silent and peer.connected and peer.silent_ms is not None:
                up |= {peer.node_id} if peer.silent_ms < HEARD_MS else set()
        return up

    def hangs(self, seen: DirectorySeen) -> bool:
        """Whether a process holds the directory of a node that neither answers nor takes part, though it was asked.

        One of another cluster was not: the nodes with its id that were asked are others.
        """
        if self.view is None or seen.owner is None or not seen.in_use:
            return False
        heard = [each for each in self.view.silent if each.is_refusal or each.tls]
        if not self.nodes:
            return not heard
        assert self.newest is not None, "as somebody has answered"
        if seen.owner.cluster_id not in ("", self.newest.cluster_id):
            return False
        answering = {node.node_id for node in self.nodes} | {each.node_id for each in heard}
        return seen.owner.node_id not in self.taking_part | answering

    @property
    def hanging(self) -> set[NodeId]:
        """The nodes that hang, as far as their directories are looked at here."""
        return {seen.owner.node_id for seen in self.directories if seen.owner is not None and self.hangs(seen)}

    def reviving(self, node_id: NodeId) -> tuple[str, ...]:
        """The commands that bring back a node that is down, each on its machine. One that hangs is ended before, and
        one with which TLS is not agreed on runs: it is seen in the status when that is mended."""
        if node_id in self.without_tls:
            return (self.asking("status"),)
        for seen in self.directories:
            if seen.owner is not None and seen.owner.node_id == node_id and self.hangs(seen):
                return ending(seen), starting(node_id, seen.path)
        return (starting(node_id, ""),)

    def earlier(self, node_id: NodeId) -> NodeStatus | None:
        """A node's status at the first look."""
        nodes = self.before.nodes if self.before is not None else []
        return next((node for node in nodes if node.node_id == node_id), None)

    def address(self, node_id: NodeId) -> str:
        """Where clients reach a member; a placeholder when nobody says it."""
        member = self.membership.member(node_id)
        return member.client_address if member is not None and member.client_address else "HOST:PORT"

    def new_id(self) -> NodeId:
        """An id that no node of the cluster has had, as far as those who answer know.

        When nobody answers it is one far away from those that are seen here: the others are not known.
        """
        membership = self.membership
        known = [*membership.all_nodes(), *membership.removed]
        if known:
            return max(known) + 1
        here = [seen.owner.node_id for seen in self.directories if seen.owner is not None]
        here += [log.node_id for log in self.logs if log.node_id is not None]
        return max(here, default=0) + FAR_AWAY

    def asking(self, *words: object) -> str:
        """A command that talks to the cluster."""
        return typed(*words, *self.options)

    def replacing(self, node_id: NodeId | None) -> tuple[str, ...]:
        """The commands that put a new node in the place of one that is gone for good; none when that is not known."""
        if node_id is None:
            return ()
        new = self.new_id()
        return (
            self.asking("member", "remove", node_id),
            self.asking("member", "add", f"{new}=NEWHOST:8001/NEWHOST:7001"),
            typed("serve", "--node-id", new, "--join", "--listen", "NEWHOST:7001", "--peer-listen", "NEWHOST:8001"),
            self.asking("member", "promote", new),
        )


def typed(*words: object) -> str:
    """A command of raftkv as one types it."""
    return shlex.join(["raftkv", *map(str, words)])


def ending(seen: DirectorySeen) -> str:
    """The command that ends the process which holds a directory, or finds it: whatever it does, nothing is lost."""
    return shlex.join(
        ["fuser", "-v", f"{seen.path}/LOCK"] if seen.used_by is None else ["kill", "-9", str(seen.used_by)]
    )


def starting(node_id: NodeId | None, directory: str) -> str:
    """The command that starts a node; the node's other options come behind it."""
    return typed("serve", "--node-id", node_id or "ID", "--data-dir", directory or "DIR")


SPARED = ("peers", "receipts", "settings", "addresses")
"""Files that a node goes on without: it writes them anew, or an operator gives an order again. Nothing that it has
acknowledged is in them."""

FREE = (
    "free some space: remove what is not raftkv's, and backups and logs of processes that are kept elsewhere, too; or "
    "enlarge the disk; or stop the node and move its whole directory to a larger one (--data-dir)"
)
"""What helps where a disk is full, and needs no room on it."""

NEVER = ", by hand: neither of its log nor of its snapshots, nor what looks old or half written"
"""What is not to be removed for that."""

ONLY_THAT = "Don't remove any other file, and don't replace the node for it."

_SPARED_AT = re.compile(rf"(.+/(?:{'|'.join(SPARED)})) ")


def spared(text: str) -> str | None:
    """The path of the file that an error of a start names first, if the node goes on without it; else None."""
    found = _SPARED_AT.match(text)
    return found[1] if found is not None else None


def sparing(file: str, node_id: NodeId | None, directory: str) -> tuple[str, ...]:
    """The commands that let a node go on without such a file."""
    return shlex.join(["rm", file]), starting(node_id, directory)


def rebuild(node_id: NodeId | None, directory: str) -> str:
    """The same, and lets it replace its state."""
    return f"{starting(node_id, directory)} --rebuild"
