"""The application: its versions, what its methods raise and take, sessions, requests, scheduled commands."""

from __future__ import annotations

from collections.abc import Iterator

from raftkv.doctor.evidence import Evidence
from raftkv.doctor.finding import Sign
from raftkv.node.status import seconds_text

NEARLY = 0.9
"""Of a bound: what comes next is refused soon, or pushes something out."""

OVERDUE_MS = 5_000
"""A leader runs what is due within a tick, or within seconds after it was elected."""


def upgrade_failed(evidence: Evidence) -> Iterator[Sign]:
    """It raised, and had no effect (F85)."""
    for node in evidence.nodes:
        if node.versions is not None and node.versions.failed is not None:
            yield Sign(
                what="an upgrade of the application has failed",
                why=(f"status of node {node.node_id}: {node.versions.failed}",),
                do="mend the class, start all nodes with it, then let the upgrade be tried again",
                commands=(evidence.asking("upgrade"),),
                dont="Don't go back to an older class where a newer version is active: it would not start.",
            )
            return  # every node says the same


def upgrade_waits(evidence: Evidence) -> Iterator[Sign]:
    """Some member can't run it yet, or an order is awaited (F85)."""
    for node in evidence.nodes:
        if node.versions is not None and node.versions.waits_for is not None:
            yield Sign(
                what=f"version {node.versions.active + 1} of the application is not active yet",
                why=(f"status of node {node.node_id}, which leads: {node.versions.waits_for}",),
                do="start the nodes that are behind with the newer class; if it waits for an order, give it",
                commands=(evidence.asking("status"), evidence.asking("upgrade")),
            )


def raftkv_mixed(evidence: Evidence) -> Iterator[Sign]:
    """An upgrade of raftkv, or a way back, that is not finished (F24)."""
    found = sorted({node.version for node in evidence.nodes})
    if len(found) > 1:
        by = [
            f"version {each}: nodes {[node.node_id for node in evidence.nodes if node.version == each]}"
            for each in found
        ]
        yield Sign(
            what="nodes run different versions of raftkv",
            why=tuple(by),
            do="finish the upgrade, or the way back to the minor before, one node at a time, followers first",
            commands=(evidence.asking("transfer"),),
        )


def method_mistakes(evidence: Evidence) -> Iterator[Sign]:
    """Errors that no class declares (F75)."""
    counts: dict[str, int] = {}
    for node in evidence.nodes:
        for name, count in node.mistakes.items():
            counts[name] = max(count, counts.get(name, 0))
    for name, count in sorted(counts.items()):
        line = next((node.methods[name].line for node in evidence.nodes if name in node.methods), None)
        where = f" ({line})" if line else ""
        yield Sign(
            what=f"{name}{where} raises what looks like a mistake in it",
            why=(f"statuses: {count} times on one node since its start",),
            do="look for `method_raised` in a node's log, which has the traceback, and mend the method under a higher "
            "version",
            commands=(evidence.asking("status", "--json"),),
        )


def method_slow(evidence: Evidence) -> Iterator[Sign]:
    """Runs that took more than 100 ms (F79)."""
    found: dict[str, tuple[int, str, float, int]] = {}
    for node in evidence.nodes:
        for name, time in node.methods.items():
            if time.slow and time.slow > found.get(name, (0, "", 0.0, 0))[0]:
                found[name] = time.slow, time.line, time.seconds, time.runs
    for name, (slow, line, seconds, runs) in sorted(found.items()):
        yield Sign(
            what=f"{name} ({line}) holds nodes up",
            why=(f"statuses: {slow} of {runs} runs on one node took more than 100 ms, {seconds:.1f} s in all",),
            do="let it read and change less at once, or do its work in several commands",
            commands=(evidence.asking("status", "--json"),),
        )


def sessions_exhausted(evidence: Evidence) -> Iterator[Sign]:
    """Before the least used ones go (F74)."""
    for node in evidence.nodes:
        if node.sessions_max and node.sessions >= NEARLY * node.sessions_max:
            yield Sign(
                what="nearly as many sessions are open as there may be: soon the least used ones are forgotten, and "
                "their clients' retries end as SessionExpired",
                why=(f"status of node {node.node_id}: {node.sessions} of {node.sessions_max}",),
                do="let clients live longer than one command, and close them when they are done; or raise "
                "sessions_max, the same on all nodes",
                commands=(evidence.asking("status", "--json"),),
                dont="Don't set sessions_max differently on different nodes: their states would differ.",
            )
            return  # the table is the same on every node


def requests_wait(evidence: Evidence) -> Iterator[Sign]:
    """At both looks (F34)."""
    for node in evidence.nodes:
        earlier, bound = evidence.earlier(node.node_id), NEARLY * node.waiting_requests_max
        if earlier is not None and bound and min(node.waiting_requests, earlier.waiting_requests) >= bound:
            yield Sign(
                what=f"nearly as many requests wait on node {node.node_id} as may: further ones are refused (Busy)",
                why=(
                    f"status of node {node.node_id}: {node.waiting_requests} of {node.waiting_requests_max}, and "
                    f"{earlier.waiting_requests} {evidence.apart_s:.1f} s before",
                ),
                do="let clients send less at once; and see why answers take long: disks, slow methods, a missing "
                "majority",
                commands=(evidence.asking("status", "--json"),),
            )


def timers_overdue(evidence: Evidence) -> Iterator[Sign]:
    """The same one is due first at both looks (F73)."""
    leader = evidence.leader
    earlier = evidence.earlier(leader.node_id) if leader is not None else None
    if leader is None or earlier is None or leader.timers is None or earlier.timers is None or leader.clock is None:
        return
    due_ms = leader.timers.next_due_ms
    if due_ms is None or due_ms != earlier.timers.next_due_ms or leader.clock.wall_ms - due_ms <= OVERDUE_MS:
        return
    late_ms = leader.clock.wall_ms - due_ms
    yield Sign(
        what=f"scheduled commands are {seconds_text(late_ms)} late",
        why=(
            f"status of node {leader.node_id}, which leads: next_due_ms {due_ms}, wall_ms {leader.clock.wall_ms}, "
            f"{leader.timers.waiting} wait",
        ),
        do="they wait while writes are refused, replicas are in doubt, or log time stands still: see to that first",
        commands=(evidence.asking("clock", "status"),),
        lasting_s=late_ms / 1000,
    )
