"""Who reaches whom, where, and who refuses whom."""

from __future__ import annotations

from collections.abc import Iterator

from raftkv.doctor.evidence import Evidence, typed
from raftkv.doctor.finding import Sign
from raftkv.model import NodeId
from raftkv.node.status import NodeStatus, PeerStatus, by_secrets

REFUSALS = {
    "other-cluster": ("belongs to the cluster", "cluster called", "answers at"),
    "directory-replaced": ("with another data directory", "without entries that it had"),
    "directory-copied": ("copies of one data directory",),
    "directory-set-back": ("an older copy of its data directory",),
    "peer-removed": ("was removed from the cluster",),
    "not-added": ("is no member of the cluster yet", "has joined a cluster"),
    "other-code": (
        "runs the state machine",
        "is active, and node",
        "is active on node",
        "run different code",
        "declares otherwise",
        "of its state machine can't be read",
        "of the protocol",
    ),
    "other-settings": ("lease_reads",),
    "secret-differs": ("cluster secret",),
    "certificate-not-a-nodes": ("shows a certificate", "shows no certificate"),
    "peer-stopped": (" has stopped: ",),
    "id-taken": ("give each node an id of its own",),
}
"""How to tell from the text of a refusal, which says what to do, which condition it is."""


def kind_of(refusal: str) -> str:
    """The condition that a refusal's text belongs to; `peer-refused` for one that is not known."""
    found = [name for name, phrases in REFUSALS.items() if any(phrase in refusal for phrase in phrases)]
    return found[0] if found else "peer-refused"


def _refused(evidence: Evidence, kind: str) -> Iterator[tuple[NodeId, NodeId, str, tuple[str, ...], float | None]]:
    """Who refuses whom, the text, who says so, and for how long; each text once."""
    found: dict[tuple[NodeId, NodeId, str], tuple[list[str], float | None]] = {}
    for node in evidence.nodes:
        for peer in node.peers:
            if peer.refused is not None and kind_of(peer.refused) == kind:
                who, whom = (node, peer) if peer.refused_here else (peer, node)
                source = (
                    f"status of node {node.node_id}: node {who.node_id} refuses node {whom.node_id}: {peer.refused}"
                )
                sources, lasting = found.setdefault((who.node_id, whom.node_id, peer.refused), ([], peer.unreached_s))
                sources.append(source)
    for (who_id, whom_id, text), (sources, lasting) in sorted(found.items(), key=lambda each: each[0]):
        yield who_id, whom_id, text, tuple(dict.fromkeys(sources)), lasting


def other_cluster(evidence: Evidence) -> Iterator[Sign]:
    """They have different clusters, or another node answers (F23 F77)."""
    for who, whom, _, why, lasting in _refused(evidence, "other-cluster"):
        yield Sign(
            what=f"nodes {who} and {whom} are of different clusters, or one stands where another should be",
            why=why,
            do="start the right node at that address, or correct the membership's address",
            commands=(
                evidence.asking("member", "list"),
                evidence.asking("member", "update", f"{whom}=HOST:8001/HOST:7001"),
            ),
            dont="Don't copy files from one directory to the other.",
            lasting_s=lasting,
        )


def directory_replaced(evidence: Evidence) -> Iterator[Sign]:
    """It has forgotten what it acknowledged (F20)."""
    for who, whom, _, why, lasting in _refused(evidence, "directory-replaced"):
        yield Sign(
            what=f"node {whom} came back without what it had acknowledged: node {who} refuses it",
            why=why,
            do="give it its old directory back; if that is gone, replace it by a node with a new id",
            commands=evidence.replacing(whom),
            dont="Don't start it with an empty directory once more: nobody will take it for the old one.",
            lasting_s=lasting,
        )


def directory_copied(evidence: Evidence) -> Iterator[Sign]:
    """Two claim the same start of one directory (F22)."""
    for who, whom, _, why, lasting in _refused(evidence, "directory-copied"):
        yield Sign(
            what=f"two processes run as node {whom} on copies of one directory: node {who} refuses it",
            why=why,
            do="stop both, and replace the node by one with a new id and an empty directory",
            commands=evidence.replacing(whom),
            dont="Don't let one of them go on: neither has all that was acknowledged.",
            lasting_s=lasting,
        )


def directory_set_back(evidence: Evidence) -> Iterator[Sign]:
    """It lacks a start that others have met (F21)."""
    for who, whom, _, why, lasting in _refused(evidence, "directory-set-back"):
        yield Sign(
            what=f"node {whom} runs on an older copy of its directory: node {who} refuses it",
            why=why,
            do="give it the newest one back; if that is gone, replace it by a node with a new id",
            commands=evidence.replacing(whom),
            lasting_s=lasting,
        )


def peer_removed(evidence: Evidence) -> Iterator[Sign]:
    """It has not heard of its removal, or does not believe it yet (F37)."""
    for who, whom, _, why, lasting in _refused(evidence, "peer-removed"):
        yield Sign(
            what=f"node {whom} was removed, and still dials node {who}",
            why=why,
            do="stop its process; to have a node there again, add one under a new id with an empty directory",
            commands=(evidence.asking("member", "list"),),
            lasting_s=lasting,
        )


def not_added(evidence: Evidence) -> Iterator[Sign]:
    """It waits for `member add` (F83)."""
    for who, whom, _, why, lasting in _refused(evidence, "not-added"):
        yield Sign(
            what=f"node {whom} waits to be added to the cluster of node {who}",
            why=why,
            do="add it, with the addresses at which it listens",
            commands=(evidence.asking("member", "add", f"{whom}=HOST:8001/HOST:7001"),),
            lasting_s=lasting,
        )


def other_code(evidence: Evidence) -> Iterator[Sign]:
    """Versions of raftkv or of the application, or two classes under one version (F24 F85)."""
    for who, whom, _, why, lasting in _refused(evidence, "other-code"):
        yield Sign(
            what=f"nodes {who} and {whom} run programs that don't go together",
            why=why,
            do="install the same version of the application and of raftkv on both, and start the one that was wrong "
            "anew",
            commands=(evidence.asking("status"),),
            dont="Don't change the class under the version that it has: a change needs a higher version.",
            lasting_s=lasting,
        )


def other_settings(evidence: Evidence) -> Iterator[Sign]:
    """Leases hold only if all agree on them (F73)."""
    for who, whom, _, why, lasting in _refused(evidence, "other-settings"):
        yield Sign(
            what=f"nodes {who} and {whom} have settings that must be the same on all nodes",
            why=why,
            do="give all nodes the same value, then start those that had another one",
            commands=(typed("serve", "--node-id", whom, "--data-dir", "DIR", "--set", "lease_reads=false"),),
            lasting_s=lasting,
        )


def peer_stopped(evidence: Evidence) -> Iterator[Sign]:
    """A node that has stopped, and is not asked itself (F15)."""
    seen = {node.node_id for node in evidence.nodes}
    for who, whom, _, why, lasting in _refused(evidence, "peer-stopped"):
        if who not in seen:  # else its own status says it, and better
            yield Sign(
                what=f"node {who} has stopped, and says so to node {whom}",
                why=why,
                do="do what its text says, on its machine",
                commands=(typed("doctor", "DIR"),),
                lasting_s=lasting,
            )


def id_taken(evidence: Evidence) -> Iterator[Sign]:
    """Another node has this id (F57)."""
    for _, whom, _, why, lasting in _refused(evidence, "id-taken"):
        yield Sign(
            what=f"two nodes have the id {whom}",
            why=why,
            do="stop the one that came later, and start it with an id of its own and an empty directory",
            commands=(typed("serve", "--node-id", evidence.new_id(), "--join"),),
            lasting_s=lasting,
        )


def secret_differs(evidence: Evidence) -> Iterator[Sign]:
    """They have different cluster secrets, or one has none (F23, F91)."""
    for who, whom, _, why, lasting in _refused(evidence, "secret-differs"):
        yield Sign(
            what=f"nodes {who} and {whom} don't have the same cluster secret, so they don't talk",
            why=why,
            do="give both the same file for --peer-secret-file; a node that has one already takes up a new one within "
            "seconds, one without has to be started with it",
            commands=(typed("serve", "--node-id", whom, "--data-dir", "DIR", "--peer-secret-file", "FILE"),),
            dont="Don't send the secret by mail or put it on a command line.",
            lasting_s=lasting,
        )


def _marked(files: dict[tuple[str, ...], list[NodeId]]) -> Iterator[str]:
    for (proven, *others), nodes in files.items():
        also = "".join(f", and accepts {each} too" for each in others)
        yield from (f"status of node {node}: it proves the cluster secret {proven}{also}" for node in nodes)


def _unaccepted(evidence: Evidence) -> Iterator[tuple[list[NodeId], list[NodeId]]]:
    """Nodes that would refuse others for their secret, and these others, where nobody was refused yet."""
    known = {frozenset((who, whom)) for who, whom, *_ in _refused(evidence, "secret-differs")}
    files = by_secrets(evidence.nodes)
    for marks, nodes in files.items():
        for (proven, *_), others in files.items():
            if proven not in marks and not any(frozenset((a, b)) in known for a in nodes for b in others):
                yield nodes, others


def _listed(nodes: list[NodeId]) -> str:
    return f"node {nodes[0]}" if len(nodes) == 1 else f"nodes {', '.join(map(str, nodes))}"


def secret_not_accepted(evidence: Evidence) -> Iterator[Sign]:
    """They may talk yet, over connections that stand (F23, F91)."""
    for nodes, others in _unaccepted(evidence):
        prove = "proves" if len(others) == 1 else "prove"
        yield Sign(
            what=f"{_listed(nodes)} would not accept the cluster secret that {_listed(others)} {prove}",
            why=tuple(_marked(by_secrets(evidence.nodes))),
            do=f"put both secrets into the --peer-secret-file of {_listed(nodes)}, a line each, the present one first; "
            "they are taken up within seconds. Connections that stand go on, and no new one is made until then",
            commands=(evidence.asking("status"),),
            dont="Don't restart a node before that.",
        )


def secret_being_replaced(evidence: Evidence) -> Iterator[Sign]:
    """Nodes have different files of it, with which they talk all the same (F91)."""
    files = by_secrets(evidence.nodes)
    if len(files) > 1 and all(proven in marks for marks in files for proven, *_ in files):
        yield Sign(
            what="the cluster secret is being replaced: not all nodes have the same file yet",
            why=tuple(_marked(files)),
            do="change the file of the other nodes too, until all say the same, before you go on to the next step",
            commands=(evidence.asking("status"),),
            dont="Don't leave the old secret out of a file before every node proves the new one.",
        )


RECENT_S = 60.0
"""A node that is refused dials again well within this time."""


def secret_refused(evidence: Evidence) -> Iterator[Sign]:
    """No node that is met says so: it may be none (F23, F91)."""
    known = {who for who, *_ in _refused(evidence, "secret-differs")}
    for node in evidence.nodes:
        since_s = node.secret_refused_s
        if since_s is not None and since_s < RECENT_S and node.node_id not in known:
            yield Sign(
                what=f"somebody dials node {node.node_id} as a node, and does not know the cluster secret",
                why=(
                    f"status of node {node.node_id}: {node.secrets_refused} were refused, the last {since_s:.0f} s ago",
                ),
                do="look for `stranger_refused` in the node's log, which says from where: give a node of yours the "
                "same file for --peer-secret-file, and keep anybody else from that port",
                commands=(evidence.asking("member", "list"),),
                dont="Don't send the secret by mail or put it on a command line.",
            )


def certificate_not_a_nodes(evidence: Evidence) -> Iterator[Sign]:
    """It is of the authority, but not for where the node should be (F84)."""
    for who, whom, _, why, lasting in _refused(evidence, "certificate-not-a-nodes"):
        yield Sign(
            what=f"node {who} does not take the certificate of node {whom} for one of a node",
            why=why,
            do="give it a certificate for its host in the membership, correct the membership, or say which names "
            "nodes have (--tls-peer-names); new files are taken up within seconds",
            commands=(
                evidence.asking("member", "list"),
                evidence.asking("member", "update", f"{whom}=HOST:8001/HOST:7001"),
            ),
            lasting_s=lasting,
        )


def peer_refused(evidence: Evidence) -> Iterator[Sign]:
    """A refusal with a text that is not known here (F23)."""
    for who, whom, text, why, lasting in _refused(evidence, "peer-refused"):
        yield Sign(
            what=f"node {who} refuses node {whom}: {text}",
            why=why,
            do="do what the text says",
            commands=(evidence.asking("status"),),
            lasting_s=lasting,
        )


def _unreached(evidence: Evidence, *reasons: str | None) -> Iterator[tuple[NodeStatus, PeerStatus, tuple[str, ...]]]:
    """Who does not reach whom for these reasons, and what shows it. Peers that don't answer us either are no news."""
    silent = evidence.silent
    for node in evidence.nodes:
        for peer in node.peers:
            is_news = peer.node_id not in silent or peer.unreached_reason in ("name", "lookup", "tls")
            if not peer.connected and peer.refused is None and peer.unreached_reason in reasons and is_news:
                text = peer.unreached or "no reason known"
                yield node, peer, (f"status of node {node.node_id}, at {peer.address or 'its address'}: {text}",)


def name_unknown(evidence: Evidence) -> Iterator[Sign]:
    """Its name is not found, or is looked up for long (F81)."""
    for node, peer, why in _unreached(evidence, "name", "lookup"):
        yield Sign(
            what=f"node {node.node_id} can't look up the name of node {peer.node_id}",
            why=why,
            do="see to the name service on that machine; if the name in the membership is wrong, correct it",
            commands=(
                evidence.asking("member", "list"),
                evidence.asking("member", "update", f"{peer.node_id}=HOST:8001/HOST:7001"),
            ),
            dont="Don't restart nodes: they look the name up anew at each try.",
            lasting_s=peer.unreached_s,
        )


def tls_refused(evidence: Evidence) -> Iterator[Sign]:
    """One side does not take the other's certificate (F84)."""
    for node, peer, why in _unreached(evidence, "tls"):
        yield Sign(
            what=f"the TLS handshake between nodes {node.node_id} and {peer.node_id} fails",
            why=why,
            do="the certificate must be of the authority that the other has (--tls-ca, --tls-peer-ca), be valid now, "
            "and name the address of the membership: put right files in place, they are taken up within seconds",
            commands=(evidence.asking("member", "list"),),
            dont="Don't turn TLS off on one of them: they would not talk at all.",
            lasting_s=peer.unreached_s,
        )


def peer_unreached(evidence: Evidence) -> Iterator[Sign]:
    """Both answer here, and one does not reach the other at both looks (F38 F39 F40 F43)."""
    for node, peer, why in _unreached(evidence, "refused", "timeout", "network", "closed", "handshake", None):
        earlier = evidence.earlier(node.node_id)
        was = [each for each in earlier.peers if each.node_id == peer.node_id] if earlier is not None else []
        if earlier is not None and not any(not each.connected for each in was):
            continue  # it broke between the two looks, and may come back at once
        yield Sign(
            what=f"node {node.node_id} does not reach node {peer.node_id}, which answers here",
            why=why,
            do="see to the network and firewalls between the two, at the port for nodes",
            commands=(evidence.asking("member", "list"),),
            lasting_s=peer.unreached_s,
        )


def misplaced(evidence: Evidence) -> Iterator[Sign]:
    """By its own word (F83)."""
    for node in evidence.nodes:
        if node.misplaced:
            yield Sign(
                what=f"node {node.node_id} listens elsewhere than the membership says",
                why=(f"status of node {node.node_id}: it {node.misplaced}",),
                do="unless something there passes them on, start it at the address of the membership, or correct that",
                commands=(evidence.asking("member", "update", f"{node.node_id}=HOST:8001/HOST:7001"),),
                lasting_s=node.lasting_s.get("misplaced"),
            )


def elsewhere(evidence: Evidence) -> Iterator[Sign]:
    """By the others', who have found it where it says that it is (F83)."""
    said = {node.node_id for node in evidence.nodes if node.misplaced}
    found: dict[tuple[NodeId, str], list[NodeId]] = {}
    for node in evidence.nodes:
        for peer in node.peers:
            member = evidence.membership.member(peer.node_id)
            is_where = member is None or peer.address in ("", member.peer_address) or not member.peer_address
            if peer.connected and peer.node_id not in said and not is_where:
                found.setdefault((peer.node_id, peer.address), []).append(node.node_id)
    for (moved, address), by in sorted(found.items()):
        # Nodes tell each other only where nodes dial them: a client address that is silent may have moved, too.
        is_silent = moved in evidence.silent
        client = "HOST:7001" if is_silent else evidence.address(moved)
        member = evidence.membership.member(moved)
        written = f"node {moved} is {member.peer_address}/{member.client_address}" if member is not None else "nothing"
        unknown = "; where it listens for clients, its own log says (`serving`)" if is_silent else ""
        yield Sign(
            what=f"node {moved} is met at {address}, where the membership does not have it",
            why=(f"status of nodes {by}: connected to node {moved} at {address}", f"membership: {written}"),
            do=f"tell everybody for good where it is{unknown}",
            commands=(evidence.asking("member", "update", f"{moved}={address}/{client}"),),
        )


def addresses_unwritten(evidence: Evidence) -> Iterator[Sign]:
    """An operator's addresses count until the log has them (F83)."""
    for node in evidence.nodes:
        if node.addresses_unwritten:
            yield Sign(
                what=f"node {node.node_id} goes by addresses that are not in the log yet",
                why=(f"status of node {node.node_id}: addresses_unwritten",),
                do="a leader writes them into the log by itself, as soon as there is one",
                commands=(evidence.asking("member", "list"),),
            )
