"""The operator's commands: status, member, transfer."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from typing import TYPE_CHECKING

import click

from raftkv.cli.common import Seconds, Target, cluster_command
from raftkv.cli.output import errors_reported, make_console, print_json
from raftkv.cli.progress import stderr
from raftkv.cli.settings import parse_member
from raftkv.cli.transfer import transfer_shown
from raftkv.cli.view import informed, look, status_display, status_value
from raftkv.errors import InvalidArgument, RaftKVError
from raftkv.model import NODE_ID_MAX, Member, Membership, NodeId

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.live import Live

NODE_ID = click.IntRange(1, NODE_ID_MAX)

ADD_S = 30.0
"""For the change that adds a node; what it has to wait for after that may take longer."""


def members_given(context: click.Context, parameter: click.Parameter, given: tuple[str, ...]) -> tuple[Member, ...]:
    """An option's or argument's members; raises `click.BadParameter`."""
    return tuple(_member(context, parameter, each) for each in given)


def _member(_: click.Context, __: click.Parameter, given: str) -> Member:
    try:
        return parse_member(given)
    except ValueError as exc:
        raise click.BadParameter(f"{given!r}: {exc}") from None


@click.command()
@click.option("--watch", "-w", is_flag=True, help="Go on showing it until Ctrl-C.")
@click.option(
    "--interval", type=Seconds(0.1, 86_400), default=1.0, show_default=True, metavar="SECONDS", help="For --watch."
)
@cluster_command(timeout_s=5.0)
def status(target: Target, watch: bool, interval: float) -> None:
    """Show all nodes of the cluster: the leader, how far each is, who reaches whom, and what is wrong.

    Asks the nodes at the given addresses, and then those that they name. Exit code 3 when there is no leader,
    1 when a voter is silent or has stopped.
    """
    if watch:
        try:
            asyncio.run(_watch(target, interval))
        except KeyboardInterrupt:
            return
    view = target.run(lambda: look(target), "asking the nodes")
    if target.as_json:
        print_json(status_value(view))
    else:
        console = make_console()
        console.print(status_display(view, console.width))
    if view.exit_code:
        sys.exit(view.exit_code)


async def _watch(target: Target, interval: float) -> None:
    from rich.live import Live
    from rich.markup import escape

    live, asked = Live(console=make_console(), auto_refresh=False), target
    with live if _is_redrawn(target, live) else contextlib.nullcontext():
        while True:
            try:
                view = await look(asked)
            except RaftKVError as exc:
                _show(
                    target,
                    live,
                    {"error": type(exc).__name__, "message": str(exc)},
                    f"nobody answers: {escape(str(exc))}",
                )
            else:
                asked = informed(target, view)
                _show(target, live, status_value(view), status_display(view, live.console.width))
            await asyncio.sleep(interval)


def _show(target: Target, live: Live, value: object, display: RenderableType) -> None:
    if target.as_json:
        print_json(value)
    elif _is_redrawn(target, live):
        live.update(display, refresh=True)
    else:
        live.console.print(display)


def _is_redrawn(target: Target, live: Live) -> bool:
    """Whether each view replaces the one before; in a pipe they follow each other, as nothing can be replaced there."""
    return live.console.is_terminal and not target.as_json


@click.group()
def member() -> None:
    """Add, promote, remove and list the cluster's nodes.

    \b
    A new node joins in three steps:
      raftkv member add 4=10.0.0.4:8001/10.0.0.4:7001       anywhere
      raftkv serve --node-id 4 --join --listen … --peer-listen …   on its machine
      raftkv member promote 4                               waits until it has caught up
    or in two, as `raftkv member add … --promote` waits for it as well.
    """


def _left(what: str, node_id: NodeId | None = None) -> str:
    """What Ctrl-C leaves behind: the leader does what it was asked for, whether anybody waits or not."""
    back = f"; raftkv member remove {node_id} takes it back" if node_id is not None else ""
    return f"{what}, if the leader was asked: see raftkv member list{back}"


@member.command("add")
@click.argument("member", callback=_member, metavar="ID=PEER/CLIENT")
@click.option("--promote", "promotes", is_flag=True, help="Then wait until it has everything, and give it a vote.")
@cluster_command(timeout_s=600.0)
def add_member(target: Target, member: Member, promotes: bool) -> None:
    """Add a node that gets the log but has no vote yet. Its id must never have been used before.

    PEER and CLIENT are the HOST:PORT where other nodes, and clients, reach it. So a typing error costs no quorum:
    it gets a vote by `member promote`, when it answers and has caught up; or by --promote in the same command, which
    waits for that.
    """

    async def add() -> Membership:
        async with target.admin() as admin:
            return await admin.add_learner(member, min(ADD_S, target.timeout_s))

    left = _left(f"node {member.node_id} may still be added", member.node_id)
    added = target.run(add, f"adding node {member.node_id}", left)
    if promotes:
        said = f"node {member.node_id} is added, and gets its vote when it has caught up"
        stderr().print(f"{said} (if this is interrupted: raftkv member promote {member.node_id})", soft_wrap=True)
    _print_membership(target, _promoted(target, member.node_id) if promotes else added)


@member.command("update")
@click.argument("member", callback=_member, metavar="ID=PEER/CLIENT")
@click.option("--force", is_flag=True, help="Also when nobody answers there yet; a wrong address costs a node.")
@cluster_command(timeout_s=30.0)
def update_member(target: Target, member: Member, force: bool) -> None:
    """Change the addresses of a node that moves; one node at a time.

    Start it at its new addresses first (--listen, --peer-listen): the others hear of it from the node itself, and it
    says that the membership sends others elsewhere. This is what tells everybody, for good. When the addresses of all
    nodes have changed at once, so that none finds another: raftkv member rewrite.
    """

    async def work() -> Membership:
        async with target.admin() as admin:
            return await admin.update_member(member, target.timeout_s, force=force)

    left = _left("its addresses may still be changed")
    _print_membership(target, target.run(work, f"changing the addresses of node {member.node_id}", left))


@member.command("rewrite")
@click.argument("directory", type=click.Path(), metavar="DIR")
@click.argument("members", callback=members_given, nargs=-1, required=True, metavar="ID=PEER/CLIENT…")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, errors too.")
def rewrite_members(directory: str, members: tuple[Member, ...], as_json: bool) -> None:
    """Write into a data directory where nodes are now, for when all have moved and none finds another.

    The node must not run. Do it in the directory of each, with the same addresses, then start them: the leader writes
    the addresses into the log, and what was written here ends. Only addresses change: members, votes and data stay, so
    this can't make a second cluster.
    """
    from raftkv.disk import RealDisk  # no other command here needs what a node is made of
    from raftkv.node import Options, Paths, World
    from raftkv.node.directory import rewrite_addresses
    from raftkv.node.identity import load_founding

    with errors_reported(as_json):
        founding = load_founding(RealDisk(), Paths(directory).founding)
        if founding is None:
            raise InvalidArgument(f"{directory} is no data directory of a node")
        options = Options(node_id=founding.owner.node_id, data_dir=directory)
        membership = rewrite_addresses(options, World.real(), members)
    print_membership(membership, as_json)


@member.command("promote")
@click.argument("node_id", type=NODE_ID, metavar="ID")
@cluster_command(timeout_s=600.0)
def promote_member(target: Target, node_id: NodeId) -> None:
    """Give a node a vote, as soon as it has caught up; shows the snapshot on its way."""
    _print_membership(target, _promoted(target, node_id))


def _promoted(target: Target, node_id: NodeId) -> Membership:
    async def work() -> Membership:
        async with target.admin() as admin, transfer_shown(target, node_id):
            return await admin.promote(node_id, target.timeout_s)

    left = _left(f"node {node_id} still gets its vote if it catches up within {target.timeout_s:g} s", node_id)
    return target.run(work, None, left)


@member.command("remove")
@click.argument("node_id", type=NODE_ID, metavar="ID")
@cluster_command(timeout_s=30.0)
def remove_member(target: Target, node_id: NodeId) -> None:
    """Remove a node for good: its id never comes back. Stop its process after that."""

    async def work() -> Membership:
        async with target.admin() as admin:
            return await admin.remove(node_id, target.timeout_s)

    left = _left(f"node {node_id} may still be removed, for good")
    _print_membership(target, target.run(work, f"removing node {node_id}", left))


@member.command("list")
@cluster_command(timeout_s=5.0)
def list_members(target: Target) -> None:
    """Print the members, as the node knows them that knows most of the log."""
    view = target.run(lambda: look(target), "asking the nodes")
    _print_membership(target, view.newest.membership, view.leader.node_id if view.leader is not None else None)


def _print_membership(target: Target, membership: Membership, leader: NodeId | None = None) -> None:
    print_membership(membership, target.as_json, leader)


def print_membership(membership: Membership, as_json: bool, leader: NodeId | None = None) -> None:
    """A table for people, JSON for programs."""
    if as_json:
        print_json(membership)
        return
    from rich.markup import escape
    from rich.table import Table

    table = Table(header_style="bold")
    for column in ("node", "part", "peer address", "client address"):
        table.add_column(column, no_wrap=True)
    for each in membership.members:
        part = "voter" if each.node_id in membership.voters else "learner"
        if each.node_id in membership.outgoing and part == "learner":
            part = "voter, leaving"
        suffix = ", leader" if each.node_id == leader else ""
        addresses = [escape(address) for address in (each.peer_address, each.client_address)]  # [::1] is no markup
        table.add_row(str(each.node_id), part + suffix, *addresses)
    make_console().print(table)


@click.command()
@click.argument("node_id", type=NODE_ID, required=False, metavar="[ID]")
@cluster_command(timeout_s=10.0)
def transfer(target: Target, node_id: NodeId | None) -> None:
    """Hand leadership over to node ID, or to the voter that holds most of the log."""

    async def work() -> NodeId:
        async with target.admin() as admin:
            return await admin.transfer_leadership(node_id, target.timeout_s)

    leader = target.run(work, "handing leadership over", "leadership may still go over: see raftkv status")
    if target.as_json:
        print_json({"leader": leader})
    else:
        click.echo(f"node {leader} leads")
