"""What `raftkv status` makes of the nodes' answers: in which order it asks, how it ends, how it looks."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import msgspec
import pytest
from rich.console import Console

from raftkv.cli import admin
from raftkv.cli import view as module
from raftkv.cli.common import Target
from raftkv.cli.view import informed, look, status_display
from raftkv.doctor import ClusterView, Silent
from raftkv.errors import Unauthenticated, Unavailable
from raftkv.model import Member, Membership
from raftkv.node.status import NodeStatus, PeerStatus
from raftkv.transport.tls import CertificateStatus
from tests.cli.commands import invoke

MEMBERS = tuple(Member(node, f"10.0.0.{node}:8001", f"10.0.0.{node}:7001") for node in (1, 2, 3))


def status_of(node_id: int, commit: int = 7, *, leader: int | None = 1, **more: object) -> NodeStatus:
    """A node that is well."""
    return NodeStatus(
        node_id=node_id,
        cluster_id="0123456789abcdef0123456789abcdef",
        machine="KeyValue/1",
        version="0",
        role="leader" if node_id == leader else "follower",
        term=3,
        leader=leader,
        first_index=1,
        last_index=commit,
        durable_index=commit,
        commit_index=commit,
        applied_index=commit,
        digest="00",
        membership=Membership(voters=(1, 2, 3), members=MEMBERS),
        membership_index=1,
        disk_free_bytes=20 << 30,
        peers=[PeerStatus(node_id=peer, connected=True) for peer in (1, 2, 3) if peer != node_id],
        **more,  # type: ignore[arg-type]
    )


def seen(monkeypatch, answer: Callable[[str], NodeStatus | Silent], addresses: list[str]) -> ClusterView:
    """The view of a cluster whose nodes answer like this."""

    async def ask(_: Target, address: str, within_s: float = 1.0) -> NodeStatus | Silent:
        return answer(address)

    monkeypatch.setattr(module, "ask", ask)
    return asyncio.run(look(Target(addresses=addresses, timeout_s=5.0, as_json=False, ssl=None)))


def test_a_leader_is_never_shown_behind_its_followers(monkeypatch):
    """Writes go on while the nodes are asked, one after the other: the leader, asked first, must not look old."""
    asked: list[str] = []

    def answer(address: str) -> NodeStatus:
        asked.append(address)
        return status_of(int(address.split(":")[0].rsplit(".", 1)[1]), commit=100 * len(asked))

    found = seen(monkeypatch, answer, [MEMBERS[0].client_address])
    assert found.leader is not None
    assert found.leader.commit_index == found.newest.commit_index == max(n.commit_index for n in found.nodes)
    assert min(n.commit_index for n in found.nodes) > 300, "nobody is shown as it was in the first round"


def test_the_exit_code_tells_a_silent_voter_from_none(monkeypatch):
    """0 when all is well, 1 when somebody who votes is missing or has stopped, 3 without a leader."""
    well = [status_of(1), status_of(2)]
    assert ClusterView([*well, status_of(3)], []).exit_code == 0
    assert ClusterView(well, [Silent("10.0.0.3:7001", "no answer", 3)]).exit_code == 1
    assert ClusterView(well, [Silent("10.0.0.4:7001", "no answer", 4)]).exit_code == 0, "it is no voter"
    assert ClusterView(well, [Silent("10.0.0.4:7001", "no answer")]).exit_code == 1, "nobody knows who that is"
    assert ClusterView([*well, status_of(3, stopped="damaged")], []).exit_code == 1
    assert ClusterView([status_of(1, doubt="replicas differ"), status_of(2)], []).exit_code == 1
    assert ClusterView([status_of(node, leader=None) for node in (1, 2, 3)], []).exit_code == 3


def test_whoever_takes_long_to_answer_is_waited_for_when_nobody_else_does(monkeypatch):
    """A node that has just been started, on a busy machine: `--timeout` is what counts."""
    answers = iter([Silent("10.0.0.1:7001", "no answer in time"), *[status_of(each) for each in (1, 2, 3, 2, 3, 1)]])
    assert len(seen(monkeypatch, lambda _: next(answers), [MEMBERS[0].client_address]).nodes) == 3


OTHER = "fedcba9876543210fedcba9876543210"


def elsewhere(node_id: int) -> NodeStatus:
    """A node of another cluster, which is as far as ours, with another state."""
    members = tuple(Member(each, f"10.0.1.{each}:8001", f"10.0.1.{each}:7001") for each in (1, 2, 3))
    membership = Membership(voters=(1, 2, 3), members=members)
    return msgspec.structs.replace(status_of(node_id), cluster_id=OTHER, digest="ff", membership=membership)


def two_clusters(address: str) -> NodeStatus:
    """Ours is in the network 10.0.0, another one in 10.0.1."""
    node_id = int(address.split(":")[0].rsplit(".", 1)[1])
    return elsewhere(node_id) if address.startswith("10.0.1.") else status_of(node_id)


def test_nodes_of_two_clusters_are_not_compared(monkeypatch):
    """Given one address of each, one cluster is shown, the first; its nodes differ from no stranger, as these are no
    nodes of it, and a script learns by the exit code that not all addresses were of use."""
    found = seen(monkeypatch, two_clusters, ["10.0.0.1:7001", "10.0.1.1:7001"])
    assert [(each.node_id, each.cluster_id) for each in found.nodes] == [
        (each, found.newest.cluster_id) for each in (1, 2, 3)
    ]
    assert found.newest.cluster_id != OTHER and found.exit_code == 1
    assert found.problems() == [f"10.0.1.1:7001 does not answer: node 1 of another cluster ({OTHER}) answers there"]
    found = seen(monkeypatch, two_clusters, ["10.0.1.1:7001", "10.0.0.1:7001"])
    assert {each.cluster_id for each in found.nodes} == {OTHER} and len(found.nodes) == 3


def test_a_stranger_in_a_members_place_is_not_taken_for_it(monkeypatch):
    """Data directories were exchanged: where our node 1 should be is one of another cluster, which has no majority
    among the answers; and a node that waits to be added is of no cluster yet, so of none that is another."""

    def answer(address: str) -> NodeStatus:
        return elsewhere(1) if address == "10.0.0.1:7001" else two_clusters(address)

    found = seen(monkeypatch, answer, ["10.0.0.1:7001", "10.0.0.2:7001", "10.0.0.3:7001"])
    assert [each.node_id for each in found.nodes] == [2, 3]
    (problem,) = found.problems()
    assert problem == f"node 1 (10.0.0.1:7001) does not answer: node 1 of another cluster ({OTHER}) answers there"
    waits = msgspec.structs.replace(status_of(4), cluster_id="", membership=Membership())
    found = seen(
        monkeypatch, lambda each: waits if each == "new:7001" else two_clusters(each), ["10.0.0.1:7001", "new:7001"]
    )
    assert [each.node_id for each in found.nodes] == [1, 2, 3, 4]


def shown(found: ClusterView, width: int) -> str:
    """What a terminal of that width gets."""
    out = io.StringIO()
    Console(file=out, width=width, highlight=False).print(status_display(found, width))
    return out.getvalue()


def test_nodes_that_ask_for_a_sign_in_are_not_said_to_be_unavailable(monkeypatch):
    """Exit code 7 and not 3: trying again later is of no use. Each reason is said once."""
    silent = [Silent("10.0.0.1:7001", "sign in", is_refusal=True), Silent("10.0.0.2:7001", "no answer")]
    with pytest.raises(Unauthenticated, match=r"^sign in$"):
        seen(monkeypatch, lambda address: silent[0], ["10.0.0.1:7001", "10.0.0.2:7001"])
    with pytest.raises(Unauthenticated, match=r"^sign in$"):
        seen(monkeypatch, lambda address: silent["2:" in address], ["10.0.0.1:7001", "10.0.0.2:7001"])
    with pytest.raises(Unavailable, match=r"^no answer$"):
        seen(monkeypatch, lambda address: silent[1], ["10.0.0.2:7001"])


def test_sixty_columns_are_enough():
    """Every number is there, with its name, on one line; where there is more space, a table."""
    big = msgspec.structs.replace(status_of(1, commit=123_456_789), log_bytes=1 << 29, state_bytes=1 << 33)
    found = ClusterView([big, status_of(2)], [Silent("10.0.0.3:7001", "no answer", 3)])
    narrow = shown(found, 60)
    assert "node 1  leader  term 3  reaches 2 3\n" in narrow
    assert "  commit 123456789  applied 123456789  lag 0\n" in narrow
    assert "  snap -  log 512.0 MiB  state 8.0 GiB\n" in narrow and "  free 20.0 GiB\n" in narrow
    assert "node 3  silent\n" in narrow
    wide = shown(found, 160)
    assert "applied" in wide and "node 1  leader" not in wide


def test_who_goes_on_looking_asks_the_members_of_today():
    """F80: `--watch` was given one node, which may be gone tomorrow; nothing is kept of members that have left."""
    given = Target(addresses=["db:7001"], timeout_s=5.0)
    nowhere = Membership(voters=(1, 2), members=(MEMBERS[0], Member(2, "10.0.0.2:8001", "")))
    for membership, members in ((status_of(1).membership, MEMBERS), (nowhere, MEMBERS[:1])):
        view = ClusterView([msgspec.structs.replace(status_of(1), membership=membership)], [])
        assert informed(given, view).addresses == ["db:7001", *(member.client_address for member in members)]


def test_watching_in_a_pipe_shows_each_view_at_once(monkeypatch):
    """`raftkv status --watch | tee file`: one view after the other, not only the last one when it is ended."""
    steps: list[ClusterView | Unavailable] = [
        ClusterView([status_of(1, commit=111)], []),
        ClusterView([status_of(1, commit=222)], []),
        Unavailable("nobody listens at [fe80::1]:7001"),
    ]

    async def next_view(_: Target) -> ClusterView:
        if not steps:
            raise SystemExit(130)  # as killed: nothing is shown at the end
        step = steps.pop(0)
        if isinstance(step, Unavailable):
            raise step
        return step

    monkeypatch.setattr(admin, "look", next_view)
    printed = invoke("status", "--watch", "--interval", "0.1").stdout
    assert printed.index("111") < printed.index("222") < printed.index("nobody listens at [fe80::1]:7001")


def test_who_refuses_whom_is_said_the_right_way_round():
    """A node that dials one with an older copy refuses it itself, and must not be taken for the one in question."""
    theirs = PeerStatus(node_id=2, connected=False, refused="why")
    ours = PeerStatus(node_id=3, connected=False, refused="why", refused_here=True)
    found = status_of(1)
    found.peers = [theirs, ours]
    assert found.problems() == ["node 2 refuses node 1: why", "node 1 refuses node 3: why"]


def test_certificates_that_cannot_be_taken_up_are_a_problem():
    """A node goes on with what it has read, so nobody would notice before its next start (F84)."""
    soon = datetime.now(UTC) + timedelta(days=300)
    certificate = CertificateStatus(
        role="node", name="n1", not_after=soon, expires_s=26e6, not_taken="tls_key = 'k.pem': no such file"
    )
    (problem,) = status_of(1, certificates=[certificate]).problems()
    assert problem.startswith("node 1 can't take up its TLS files, and its next start will fail: tls_key = 'k.pem'")
    assert status_of(1, certificates=[msgspec.structs.replace(certificate, not_taken="")]).problems() == []
