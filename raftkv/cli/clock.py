"""`raftkv clock`: what the nodes' clocks show, and log time's reset."""

from __future__ import annotations

import sys
from datetime import UTC, datetime

import click
import msgspec
from rich import box
from rich.table import Table

from raftkv.cli.common import Target, cluster_command
from raftkv.cli.output import make_console, print_json
from raftkv.cli.view import look
from raftkv.model import NodeId
from raftkv.node.status import ClockReset, NodeStatus, seconds_text


class NodeClock(msgspec.Struct, frozen=True):
    """One node's clock as the leader knows it; fields are None when it does not."""

    node_id: NodeId
    role: str
    offset_ms: int | None


@click.group()
def clock() -> None:
    """Show what the nodes' clocks say, and let log time begin anew after one was wrong.

    Entries carry the leader's time, which is what commands see and what sessions end by. It never goes back, and is
    bounded by what the voters' clocks say.
    """


@clock.command("status")
@cluster_command(timeout_s=5.0)
def clock_status(target: Target) -> None:
    """Show how far each node's clock is from what the leader goes by, and log time.

    Exit code 3 when there is no leader, 1 when a clock or log time is wrong.
    """
    view = target.run(lambda: look(target), "asking the nodes")
    leader = view.leader
    if leader is None or leader.clock is None:
        if target.as_json:
            print_json({"leader": None, "clock": None, "nodes": [], "problems": view.problems()})
        else:
            click.echo("there is no leader, which compares the clocks", err=True)
        sys.exit(3)
    clocks = _clocks(leader)
    problems = leader.clock_problems()
    if target.as_json:
        print_json({"leader": leader.node_id, "clock": leader.clock, "nodes": clocks, "problems": problems})
    else:
        _print(leader, clocks, problems)
    if problems:
        sys.exit(1)


def _clocks(leader: NodeStatus) -> list[NodeClock]:
    assert leader.clock is not None, "a leader of this version tells of its clock"
    others = [NodeClock(peer.node_id, "follower", peer.clock_offset_ms) for peer in leader.peers]
    own = NodeClock(leader.node_id, "leader", leader.clock.offset_ms)
    return sorted([own, *others], key=lambda each: each.node_id)


def _print(leader: NodeStatus, clocks: list[NodeClock], problems: list[str]) -> None:
    assert leader.clock is not None, "a leader of this version tells of its clock"
    table = Table(header_style="bold", box=box.SIMPLE_HEAD, padding=0, pad_edge=False)
    for column in ("node", "role", "clock is"):
        table.add_column(column)
    for each in clocks:
        table.add_row(str(each.node_id), each.role, _side(each.offset_ms))
    console = make_console()
    console.print(table)
    console.print(f"log time {_time_text(leader.clock.log_time_ms)}", highlight=False)
    for problem in problems:
        console.print(f"! {problem}", highlight=False, markup=False)


def _side(offset_ms: int | None) -> str:
    if offset_ms is None:
        return "not known"
    return f"{seconds_text(abs(offset_ms))} {'behind' if offset_ms < 0 else 'ahead'}"


def _time_text(ms: int) -> str:
    try:
        return datetime.fromtimestamp(ms / 1000, UTC).isoformat(timespec="milliseconds")
    except (OverflowError, ValueError, OSError):
        return f"{ms} ms since the epoch"


@clock.command("reset")
@cluster_command(timeout_s=10.0)
def clock_reset(target: Target) -> None:
    """Declare that the clocks are right now: log time begins anew at what they say, even where that is earlier.

    For when a clock was wrong and log time is ahead. Commands see time step back at this one entry; no session is
    forgotten by it. Where no majority of the clocks agrees (one node, or two that differ) the leader's is taken.
    """

    async def work() -> ClockReset:
        async with target.admin() as admin:
            return msgspec.convert(await admin.reset_clock(target.timeout_s), ClockReset)

    done = target.run(work, "resetting log time")
    if target.as_json:
        print_json(done)
        return
    step = done.before_ms - done.log_time_ms
    moved = f"{seconds_text(step)} back" if step > 0 else "no step back"
    click.echo(f"log time is {_time_text(done.log_time_ms)} at index {done.index}: {moved}")
