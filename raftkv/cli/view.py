"""The status of the whole cluster: of all nodes that are asked, and of those that these name; and what is wrong."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeAlias

import msgspec

from raftkv.cli.clustersecret import secret_lines
from raftkv.cli.common import Target
from raftkv.cli.output import size_of
from raftkv.cli.versions import version_lines
from raftkv.client.book import is_usable
from raftkv.doctor import ClusterView, Silent, stranger
from raftkv.errors import Forbidden, RaftKVError, Unauthenticated, Unavailable
from raftkv.model import Member, NodeId
from raftkv.node.status import NodeStatus

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

ANSWER_S = 1.5
"""How long one node may take to say how it is; the others should be shown then."""


Answers: TypeAlias = dict[str, NodeStatus | Silent]
"""By the addresses that were asked."""


async def look(target: Target) -> ClusterView:
    """Ask the nodes at the target's addresses, then those that they name.

    Raises `Unavailable` when none answers, and `Unauthenticated` when those that do want to know first who asks, or say
    that whoever has signed in may not know.
    """
    view = view_of(await ask_cluster(target))
    if not view.nodes:
        refusals = [each.reason for each in view.silent if each.is_refusal]
        reasons = "; ".join(dict.fromkeys(refusals or [each.reason for each in view.silent]))
        raise Unauthenticated(reasons) if refusals else Unavailable(reasons)
    return view


async def ask_cluster(target: Target) -> Answers:
    """Ask the nodes at the target's addresses, then those that they name; the answers of the given ones come first.

    All statuses are of one round, and the leader is asked last; otherwise it might seem to be behind its followers.
    """
    answers = await _ask_all(target, target.addresses)
    if not any(isinstance(answer, NodeStatus) for answer in answers.values()) and target.timeout_s > ANSWER_S:
        answers = await _ask_all(target, target.addresses, target.timeout_s - ANSWER_S)
    ours = _of_one_cluster(answers).values()
    known = _members(ours)
    seen = {answer.node_id for answer in ours if isinstance(answer, NodeStatus)}
    more = [member.client_address for member in known if member.node_id not in seen and member.client_address]
    answers |= await _ask_all(target, [address for address in more if address not in answers])
    if sum(isinstance(answer, NodeStatus) for answer in answers.values()) > 1:
        answers |= await _ask_anew(target, answers)
    return answers


def view_of(answers: Answers) -> ClusterView:
    """The nodes that have answered, by id, and those that have not; without any node, all addresses are silent.

    Where nodes of several clusters have answered it is of one of them.
    """
    answers = _of_one_cluster(answers)
    nodes = {answer.node_id: answer for answer in answers.values() if isinstance(answer, NodeStatus)}
    names = {member.client_address: member.node_id for member in _members(answers.values())}
    lacking = {address: node_id for address, node_id in names.items() if node_id not in nodes}
    silent = [
        msgspec.structs.replace(answer, node_id=lacking.get(answer.address))
        for answer in answers.values()
        if isinstance(answer, Silent) and (answer.is_stranger or names.get(answer.address) not in nodes)
    ]
    return ClusterView([nodes[node_id] for node_id in sorted(nodes)], silent)


def _of_one_cluster(answers: Answers) -> Answers:
    """The answers with those from other clusters turned into silence: of that with most nodes among them one is told,
    of as many that which answered first."""
    found = Counter(each.cluster_id for each in answers.values() if isinstance(each, NodeStatus) and each.cluster_id)
    if len(found) < 2:
        return answers
    ((ours, _),) = found.most_common(1)
    return {
        address: stranger(address, each) if isinstance(each, NodeStatus) and each.cluster_id not in ("", ours) else each
        for address, each in answers.items()
    }


def informed(target: Target, view: ClusterView) -> Target:
    """The target with the addresses of all present members, for asking again when the given nodes are gone."""
    members = [member.client_address for member in view.newest.membership.members if is_usable(member.client_address)]
    return msgspec.structs.replace(target, addresses=list(dict.fromkeys((*target.addresses, *members))))


async def _ask_all(target: Target, addresses: Sequence[str], within_s: float = ANSWER_S) -> Answers:
    distinct = list(dict.fromkeys(addresses))
    answers = await asyncio.gather(*[ask(target, address, within_s) for address in distinct])
    return dict(zip(distinct, answers, strict=True))


async def _ask_anew(target: Target, answers: Answers) -> Answers:
    """Ask all nodes that have answered again at the same time, then the leaders."""
    answered = {address: answer for address, answer in answers.items() if isinstance(answer, NodeStatus)}
    leaders = [address for address, answer in answered.items() if answer.role == "leader"]
    found = await _ask_all(target, [address for address in answered if address not in leaders])
    return found | await _ask_all(target, leaders)


async def ask(target: Target, address: str, within_s: float = ANSWER_S) -> NodeStatus | Silent:
    """Ask the node at `address` for its status; a `Silent` says why there is none."""
    try:
        async with target.admin(address) as admin:
            return msgspec.convert(await admin.status(min(within_s, target.timeout_s)), NodeStatus)
    except RaftKVError as exc:
        return Silent(address, str(exc), is_refusal=isinstance(exc, Unauthenticated | Forbidden))


def _members(answers: object) -> tuple[Member, ...]:
    """The members, by the newest membership that a node knows."""
    nodes = [answer for answer in answers if isinstance(answer, NodeStatus)]  # type: ignore[attr-defined]
    newest = max(nodes, key=lambda node: (node.commit_index, node.term), default=None)
    return newest.membership.members if newest is not None else ()


COLUMNS = ("node", "role", "term", "commit", "applied", "lag", "snap", "log", "state", "free", "reaches")


COLUMNS_WIDTH = 96
"""What the table needs; where there is less, each node has some short lines of its own."""


def status_display(view: ClusterView, width: int) -> RenderableType:
    """A table with a row for each node, or a few lines for each, as fits into `width` columns; then the versions of the
    application, the cluster secrets, and the problems."""
    from rich.console import Group
    from rich.markup import escape

    problems = [f"[yellow]![/] {escape(problem)}" for problem in view.problems()] or ["[green]no problems[/]"]
    versions = [escape(line) for line in (*version_lines(view.nodes), *secret_lines(view.nodes))]
    if width < COLUMNS_WIDTH:
        return Group(*_lines(view), "", *versions, *problems)
    return Group(_table(view), *versions, *problems)


def _lines(view: ClusterView) -> list[str]:
    """A few lines for each node, none wider than sixty columns."""
    from rich.markup import escape

    lines = [f"[bold]cluster {view.newest.cluster_id or '(not joined)'}[/]"]
    for node in view.nodes:
        row = dict(zip(COLUMNS, _row(node, view.newest.commit_index), strict=True))
        lines.append(f"node {row['node']}  {row['role']}  term {row['term']}  reaches {row['reaches']}")
        groups = (("commit", "applied", "lag"), ("snap", "log", "state"), ("free",))
        lines += ["  " + "  ".join(f"{name} {row[name]}" for name in names) for names in groups]
    return lines + [f"node {silent.node_id or escape(silent.address)}  [red]silent[/]" for silent in view.silent]


def _table(view: ClusterView) -> Table:
    from rich import box
    from rich.markup import escape
    from rich.table import Table

    newest = view.newest
    table = Table(
        title=f"cluster {newest.cluster_id or '(not joined)'}",
        title_justify="left",
        header_style="bold",
        highlight=False,
        box=box.SIMPLE_HEAD,
        padding=0,
        pad_edge=False,
    )
    for column in COLUMNS:
        table.add_column(column, justify="left" if column in ("node", "role", "reaches") else "right", overflow="fold")
    for node in view.nodes:
        table.add_row(*_row(node, newest.commit_index))
    for silent in view.silent:
        name = str(silent.node_id) if silent.node_id is not None else escape(silent.address)
        table.add_row(name, "[red]silent[/]", *["-"] * (len(COLUMNS) - 2))
    return table


def _row(node: NodeStatus, newest: int) -> list[str]:
    colour = {"leader": "green", "stopped": "red"}.get(node.role, "default")
    role = "learner" if node.node_id in node.membership.learners and node.role == "follower" else node.role
    reaches = [f"{peer.node_id}" if peer.connected else f"[red]{peer.node_id}✗[/]" for peer in node.peers]
    return [
        str(node.node_id),
        f"[{colour}]{role}[/]",
        str(node.term),
        str(node.commit_index),
        str(node.applied_index),
        str(newest - node.applied_index),
        str(node.snapshot_index or "-"),
        size_of(node.log_bytes),
        size_of(node.state_bytes),
        size_of(node.disk_free_bytes) + (" [red]low[/]" if node.disk_low else ""),
        " ".join(reaches) or "-",
    ]


class ClusterStatus(msgspec.Struct, frozen=True):
    """The cluster's status for JSON."""

    leader: NodeId | None
    """Of the newest term; None when no node that answers leads."""
    nodes: list[NodeStatus]
    silent: list[Silent]
    problems: list[str]


def status_value(view: ClusterView) -> ClusterStatus:
    """What the view tells, for programs."""
    leader = view.leader.node_id if view.leader is not None else None
    return ClusterStatus(leader, view.nodes, view.silent, view.problems())
