"""What would come of running another class on a cluster's nodes: who would be refused, and what happens in which order.

Nothing is asked of the class but what it declares, and nothing of the nodes but their status and the active schema.
"""

from __future__ import annotations

import msgspec

from raftkv.addresses import is_loopback, split
from raftkv.doctor import ClusterView
from raftkv.errors import RaftKVError
from raftkv.machine import Active, Kept, StateMachine, runs
from raftkv.machine.schema import Schema
from raftkv.model import NodeId
from raftkv.node.formats import FORMATS, OLDEST_READ, PROTOCOL
from raftkv.node.status import NodeStatus
from raftkv.version import __version__

_PROTECT = (
    "and beyond loopback this one starts only with TLS or a cluster secret, or where --insecure says so; --http there "
    "needs --http-tls mutual, or --http-tls server with --http-sign-in all"
)


class NodeVersions(msgspec.Struct, frozen=True, kw_only=True):
    """What a node runs now."""

    node_id: NodeId
    role: str
    raftkv: str
    oldest: int
    newest: int
    """Its class runs these versions of the application and those between them; 0 where it does not say."""
    formats: dict[str, int]
    """What its raftkv speaks, and writes and reads; empty where it does not say."""


class Run(msgspec.Struct, frozen=True):
    """A method of the class that rewrites what there is, when version `to` becomes active."""

    name: str
    to: int
    in_pieces: bool
    """Whether commands go on between its pieces."""


class UpgradeCheck(msgspec.Struct, frozen=True, kw_only=True):
    """A class beside a cluster."""

    machine: str
    oldest: int
    newest: int
    """The class runs these versions and those between them."""
    raftkv: str
    formats: dict[str, int]
    """Those of the raftkv that looks, which is taken for the one that the nodes are to run."""
    active: int
    """The version that is active in the cluster; 0 for none yet."""
    nodes: list[NodeVersions]
    refused: list[str]
    """What would be refused, or would cost the majority; empty when the upgrade can begin."""
    notes: list[str]
    """What is worth knowing, and stops nothing."""
    order: list[str]
    """What to do, in this order; empty when something is refused."""
    then: list[str]
    """What happens by itself when all nodes run the class, or is left to do."""
    runs: list[Run]

    @property
    def is_fit(self) -> bool:
        """Whether nothing is in the way."""
        return not self.refused


def check_upgrade(view: ClusterView, machine: type[StateMachine], declared: bytes | None) -> UpgradeCheck:
    """Compare a class with a cluster; `declared` is the encoded schema of the active version, None before there is one
    and where the class is another one."""
    newest = view.newest
    versions = newest.versions
    active = versions.active if versions is not None else 0
    refused = [*_other_class(view, machine), *_formats_refused(view)]
    if declared is not None and not refused:
        refused += _unfit(machine, Kept(active, declared, versions.left if versions is not None else ()))
    refused += _costs_majority(view)
    own: Schema = machine.schema()
    return UpgradeCheck(
        machine=machine.__name__,
        oldest=machine.oldest_version,
        newest=machine.version,
        raftkv=__version__,
        formats=FORMATS,
        active=active,
        nodes=[_versions_of(node) for node in view.nodes],
        refused=refused,
        notes=_notes(view, machine),
        order=[] if refused else _order(view, machine),
        then=[] if refused else [*_rewritten(view), *_then(view, machine, own, active)],
        runs=[Run(each.name, each.to, each.in_pieces) for each in machine.upgrades_between(active, machine.version)]
        if active
        else [],
    )


def _versions_of(node: NodeStatus) -> NodeVersions:
    known = node.versions
    return NodeVersions(
        node_id=node.node_id,
        role=node.role,
        raftkv=node.version,
        oldest=known.oldest if known is not None else 0,
        newest=known.newest if known is not None else 0,
        formats=dict(sorted(node.formats.items())),
    )


def _name_of(node: NodeStatus) -> str:
    return node.machine.partition("/")[0]


def _other_class(view: ClusterView, machine: type[StateMachine]) -> list[str]:
    names = sorted({_name_of(node) for node in view.nodes})
    if names == [machine.__name__]:
        return []
    return [
        f"HandshakeRefused: the nodes run the state machine {', '.join(names)}, and this class is {machine.__name__}: "
        "nodes with another class are refused. Give the class of that name"
    ]


def _unfit(machine: type[StateMachine], kept: Kept) -> list[str]:
    """In the words with which a node that runs the class would end."""
    try:
        Active.of(machine, kept)
    except RaftKVError as exc:
        return [f"{type(exc).__name__}: {exc}"]
    return []


def _formats_refused(view: ClusterView) -> list[str]:
    found = []
    for name, own in FORMATS.items():
        oldest = OLDEST_READ.get(name, own)
        others = {
            node.node_id: node.formats[name] for node in view.nodes if not oldest <= node.formats.get(name, own) <= own
        }
        if not others:
            continue
        words = ", ".join(f"node {node} has version {version}" for node, version in others.items())
        if name == PROTOCOL:
            found.append(
                f"HandshakeRefused: {words} of the protocol, and raftkv {__version__} speaks version {own}: nodes of "
                "both refuse each other, so they can't be replaced one by one. Stop all nodes, then start all"
            )
        else:
            found.append(
                f"FormatError: {words} of the format of the {name}, and raftkv {__version__} reads "
                f"{runs(oldest, own)}: it would not start on such a directory. Use the raftkv that wrote it, or add "
                "nodes of this one under new ids"
            )
    return found


def _rewritten(view: ClusterView) -> list[str]:
    """What an older raftkv can't read once this one has written it."""
    then = []
    for name, own in FORMATS.items():
        older = [node for node in view.nodes if node.formats.get(name, own) < own]
        if older and name != PROTOCOL:
            names = ", ".join(sorted({f"raftkv {node.version}" for node in older}))
            then.append(
                f"files get version {own} of the format of the {name}, which {names} does not read: there is no way "
                "back to it on such a directory"
            )
    return then


def _costs_majority(view: ClusterView) -> list[str]:
    """Whether one node can be down, while it is started anew, without the others being too few."""
    leader = view.leader
    if leader is None:
        return ["there is no leader: nothing is served, and no node can be taken away from that. See raftkv doctor"]
    voters = leader.membership.all_voters()
    up = {node.node_id for node in view.nodes if node.stopped is None} & set(voters)
    needed = len(voters) // 2 + 1
    if len(voters) > 2 and len(up) - 1 < needed:
        down = ", ".join(str(each) for each in sorted(set(voters) - up))
        return [
            f"node {down} is down, and with one more there would be no majority ({needed} of {len(voters)} voters): "
            "nothing would be served. Start it first"
        ]
    return []


def _notes(view: ClusterView, machine: type[StateMachine]) -> list[str]:
    notes = [f"{each.address} does not answer, so nothing is known of it: {each.reason}" for each in view.silent]
    leader = view.leader
    if leader is not None and len(leader.membership.all_voters()) <= 2:
        notes.append("with fewer than three voters nothing is served while one of them is started anew")
    versions = view.newest.versions
    if versions is not None and versions.failed is not None:
        notes.append(f"{versions.failed}. It is tried again by raftkv upgrade, once all nodes run a mended class")
    if versions is not None and versions.left:
        notes.append(f"the upgrade to version {versions.active} is not done yet: {', '.join(versions.left)}")
    for node in view.nodes:
        if not node.formats:
            text = f"node {node.node_id} (raftkv {node.version}) does not tell its formats: it is an older one"
            notes.append(f"{text}, {_PROTECT}" if _is_exposed(node) else text)
        known = node.versions
        if known is not None and known.newest > machine.version:
            notes.append(
                f"node {node.node_id} runs {runs(known.oldest, known.newest)}: with this class it would be a step back"
            )
        elif known is not None and known.newest == machine.version and node.machine != machine.fingerprint():
            notes.append(
                f"node {node.node_id} runs version {known.newest} as well, with other methods or tables: nodes that "
                "run different code under one version refuse each other, unless only queries differ"
            )
    return notes


def _is_exposed(node: NodeStatus) -> bool:
    """Whether others reach it, as far as its addresses say."""
    own = node.membership.member(node.node_id)
    addresses = [] if own is None else [own.peer_address, own.client_address]
    return not all(is_loopback(split(address)[0]) for address in addresses)


def _order(view: ClusterView, machine: type[StateMachine]) -> list[str]:
    """Followers first, so that leadership moves once."""
    leader = view.leader
    assert leader is not None, "without one the upgrade is refused"
    pending = [node for node in view.nodes if node.machine != machine.fingerprint() or node.version != __version__]
    followers = [node for node in pending if node.node_id != leader.node_id]
    # Learners first, as no majority hangs on them; then who is furthest behind, as it will be so afterwards, too.
    followers.sort(key=lambda node: (node.node_id in leader.membership.voters, node.applied_index, node.node_id))
    steps = [
        f"node {node.node_id}: stop it, install the class, start it; wait until raftkv status shows no problem with it"
        for node in followers
    ]
    if any(node.node_id == leader.node_id for node in pending):
        others = [voter for voter in leader.membership.voters if voter != leader.node_id]
        if others:
            steps.append(f"raftkv transfer: leadership goes from node {leader.node_id} to another one")
        steps.append(f"node {leader.node_id}: likewise")
    return steps


def _then(view: ClusterView, machine: type[StateMachine], own: Schema, active: int) -> list[str]:
    if not active or machine.version <= active:
        return [f"version {active} stays active" if active else "the first leader says which version is active"]
    if machine._host_decides:
        begins = f"the program around the machine decides when version {machine.version} becomes active"
    elif all(_is_automatic(node) for node in view.nodes):
        begins = f"version {machine.version} becomes active by itself, as soon as the leader knows that all run it"
    else:
        begins = f"raftkv upgrade makes version {machine.version} active (auto_upgrade is off)"
    then = [begins]
    old = machine.schema(active)
    came = [name for name in (*own.parts, *own.methods) if name not in (*old.parts, *old.methods)]
    gone = [name for name in old.parts if name not in own.parts]
    if came:
        then.append(f"new with it: {', '.join(sorted(came))}")
    if gone:
        then.append(f"the rows of {', '.join(sorted(gone))} are deleted, piece by piece, while commands go on")
    indexes = [
        f"{table}.{field}"
        for table, fields in own.indexes.items()
        for field in fields
        if field not in old.indexes.get(table, {})
    ]
    if indexes:
        then.append(f"the indexes {', '.join(indexes)} are built, piece by piece, while commands go on")
    for each in machine.upgrades_between(active, machine.version):
        how = "piece by piece, while commands go on" if each.in_pieces else "at once, within one entry"
        then.append(f"{each.name} runs ({each.line}), {how}")
    return [*then, f"there is no way back to version {active}"]


def _is_automatic(node: NodeStatus) -> bool:
    return all(setting.value is not False for setting in node.settings if setting.name == "auto_upgrade")
