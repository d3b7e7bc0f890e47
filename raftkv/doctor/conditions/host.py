"""What a node has from its machine: certificates, a clock, open files, somebody who takes its log."""

from __future__ import annotations

from collections.abc import Iterator

from raftkv.doctor.cluster import Silent
from raftkv.doctor.evidence import Evidence, typed
from raftkv.doctor.finding import Sign
from raftkv.node.status import NodeStatus, seconds_text
from raftkv.transport.tls import WARN_S, CertificateStatus

FILES_LOW = 0.9
"""Of the limit: with a tenth left, a node still has what its own data needs."""

NO_RESTART = "Don't restart nodes for that: new files are taken up by themselves."


def _certificates(node: NodeStatus, low_s: float, high_s: float) -> Iterator[CertificateStatus]:
    for each in node.certificates:
        if low_s <= each.expires_s < high_s:
            yield each


def _certificate_text(node: NodeStatus, each: CertificateStatus) -> str:
    return (
        f"status of node {node.node_id}: {each.name!r} ({each.role}), valid until {each.not_after:%Y-%m-%d %H:%M} UTC"
    )


def certificate_expired(evidence: Evidence) -> Iterator[Sign]:
    """Connections that stand go on; new ones are refused (F84). Where all have run out, it is who asks that sees it."""
    for node in evidence.nodes:
        for each in _certificates(node, float("-inf"), 0):
            yield Sign(
                what=f"the certificate {each.name!r} on which node {node.node_id} relies has run out: nodes part when "
                "they connect again",
                why=(_certificate_text(node, each),),
                do="replace its file (--tls-cert and --tls-key, or --tls-ca for an authority's), on all nodes that "
                "use it",
                commands=(evidence.asking("status"),),
                dont=NO_RESTART,
                lasting_s=-each.expires_s,
            )
    yield from _shown_expired(evidence)


def _shown_expired(evidence: Evidence) -> Iterator[Sign]:
    for each in _without_tls(evidence):
        if each.tls.startswith("certificate has expired"):
            yield Sign(
                what=f"the certificate that is shown at {each.address} has run out: neither clients nor nodes can "
                "connect there any more",
                why=(f"{each.address}: TLS: {each.tls}",),
                do="replace its file on that node (--tls-cert and --tls-key, or --tls-ca if it is the authority's), "
                "and on all that have one of the same date",
                commands=(evidence.asking("status"),),
                dont=NO_RESTART,
            )


def tls_not_agreed(evidence: Evidence) -> Iterator[Sign]:
    """Somebody answers there, and one of the two does not accept the other (F84)."""
    for each in _without_tls(evidence):
        if not each.tls.startswith("certificate has expired"):
            yield Sign(
                what=f"what answers at {each.address} does not agree on TLS with who asks",
                why=(f"{each.address}: TLS: {each.tls}",),
                do="ask with the certificate, key and authority that belong to the cluster (--tls-cert, --tls-key, "
                "--tls-ca), which have not run out, and at a node's port for clients, by a name that is in its "
                "certificate",
                commands=(typed("doctor", "-a", each.address, *TLS_FILES),),
                dont=NO_RESTART,
            )


TLS_FILES = ("--tls-ca", "CA.pem", "--tls-cert", "CERT.pem", "--tls-key", "KEY.pem")


def _without_tls(evidence: Evidence) -> list[Silent]:
    return [each for each in evidence.view.silent if each.tls] if evidence.view is not None else []


def certificate_expiring(evidence: Evidence) -> Iterator[Sign]:
    """Within thirty days (F84)."""
    for node in evidence.nodes:
        for each in _certificates(node, 0, WARN_S):
            yield Sign(
                what=f"the certificate {each.name!r} on which node {node.node_id} relies runs out in "
                f"{seconds_text(int(1000 * each.expires_s))}",
                why=(_certificate_text(node, each),),
                do="replace its file (--tls-cert and --tls-key, or --tls-ca for an authority's), on all nodes that "
                "use it",
                commands=(evidence.asking("status"),),
                dont=NO_RESTART,
            )


def certificate_not_taken(evidence: Evidence) -> Iterator[Sign]:
    """Files that do not fit together, or can't be read (F84)."""
    for node in evidence.nodes:
        for reason in sorted({each.not_taken for each in node.certificates if each.not_taken}):
            yield Sign(
                what=f"node {node.node_id} can't take up its TLS files, and its next start will fail",
                why=(f"status of node {node.node_id}: {reason}",),
                do="put right files in place, certificate and key of one pair; they are taken up within seconds",
                commands=(evidence.asking("status"),),
                dont="Don't restart the node before that.",
            )


def secret_not_taken(evidence: Evidence) -> Iterator[Sign]:
    """A file that can't be read, that others may read, or in which there is no secret (F84)."""
    for node in evidence.nodes:
        if node.secret_not_taken:
            yield Sign(
                what=f"node {node.node_id} can't take up its file of the cluster secret, and its next start will fail",
                why=(f"status of node {node.node_id}: {node.secret_not_taken}",),
                do="put the right file in place, for its owner alone (mode 0600); it is taken up within seconds",
                commands=(evidence.asking("status"),),
                dont="Don't restart the node before that.",
            )


def clock_doubted(evidence: Evidence) -> Iterator[Sign]:
    """The leader's, which does not stamp entries by it (F73 F82)."""
    for node in evidence.nodes:
        if node.clock is not None and node.clock.doubt is not None:
            yield Sign(
                what=f"the clock of node {node.node_id}, which leads, is not trusted",
                why=(f"status of node {node.node_id}: {node.clock.doubt}",),
                do="set its clock right, and have it kept right (NTP)",
                commands=(evidence.asking("clock", "status"),),
                dont="Don't reset log time while a clock is wrong.",
                lasting_s=node.lasting_s.get("clock_doubt"),
            )


def clock_off(evidence: Evidence) -> Iterator[Sign]:
    """A follower's, against the leader's time (F73 F82)."""
    leader = evidence.leader
    if leader is None or leader.clock is None:
        return
    for peer in leader.peers:
        offset = peer.clock_offset_ms or 0
        if abs(offset) > leader.clock.bound_ms:
            side = "ahead of" if offset > 0 else "behind"
            yield Sign(
                what=f"the clock of node {peer.node_id} is {seconds_text(abs(offset))} {side} the others'",
                why=(
                    f"status of node {leader.node_id}, which leads: clock_offset_ms {offset}, the bound is "
                    f"{leader.clock.bound_ms}",
                ),
                do="set it right, and have it kept right (NTP), before that node leads",
                commands=(evidence.asking("clock", "status"),),
            )


def log_time_ahead(evidence: Evidence) -> Iterator[Sign]:
    """Entries were stamped by a wrong clock (F82)."""
    leader = evidence.leader
    if leader is None or leader.clock is None:
        return
    ahead = leader.clock.ahead_ms or 0
    if ahead > leader.clock.bound_ms:
        yield Sign(
            what=f"log time is {seconds_text(ahead)} ahead of the clocks, and stands still until they reach it",
            why=(f"status of node {leader.node_id}, which leads: log_time_ms {leader.clock.log_time_ms}",),
            do="when all clocks are right, take it back; until then sessions and scheduled commands wait",
            commands=(evidence.asking("clock", "status"), evidence.asking("clock", "reset")),
            dont="Don't reset it while a clock is wrong: look at `raftkv clock status` first.",
        )


def log_dropping(evidence: Evidence) -> Iterator[Sign]:
    """Lines are lost now (F78)."""
    for node in evidence.nodes:
        if node.log_problem is not None:
            yield Sign(
                what=f"node {node.node_id} can't say what happens: nobody takes its log",
                why=(f"status of node {node.node_id}: {node.log_lines_lost} lines lost; {node.log_problem}",),
                do="see to who reads its stderr, or to the disk that its log is on; the node itself goes on",
                commands=(evidence.asking("status"),),
                dont="Don't kill the node for it.",
                lasting_s=node.lasting_s.get("log_problem"),
            )


def log_dropped(evidence: Evidence) -> Iterator[Sign]:
    """Lines were lost, and come through again (F78)."""
    for node in evidence.nodes:
        if node.log_problem is None and node.log_lines_lost:
            yield Sign(
                what=f"lines are missing in the log of node {node.node_id}",
                why=(f"status of node {node.node_id}: {node.log_lines_lost} lines lost since its start",),
                do="remember it when you read that log",
                commands=(evidence.asking("status", "--json"),),
            )


def files_run_out(evidence: Evidence) -> Iterator[Sign]:
    """By the status, or by the last word of a log on it (F34)."""
    for node in evidence.nodes:
        if node.open_files_max and node.open_files >= FILES_LOW * node.open_files_max:
            yield _files_sign(
                evidence,
                f"node {node.node_id}",
                f"status of node {node.node_id}: {node.open_files} of {node.open_files_max} files are open",
            )
    answering = {node.node_id for node in evidence.nodes if node.open_files_max}
    for log in evidence.logs:
        said = [event for event in log.events if event.name in ("files_run_out", "files_enough")]
        if said and said[-1].name == "files_run_out" and log.node_id not in answering:
            yield _files_sign(evidence, f"the node of {log.path}", f"{log.path}: {said[-1].describe()}")


def _files_sign(evidence: Evidence, node: str, why: str) -> Sign:
    return Sign(
        what=f"{node} has nearly as many files open as the system lets it have",
        why=(why,),
        do="raise its limit (LimitNOFILE=, ulimit -n) at its next start, and see who opens so many connections",
        commands=(evidence.asking("status", "--json"),),
    )
