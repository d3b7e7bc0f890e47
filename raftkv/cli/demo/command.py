"""The command `raftkv demo`: sets the stage, plays the story, prints the verdict."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import tempfile
from collections.abc import Iterator
from typing import Any

import click
import msgspec
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from raftkv.cli.demo.load import Ledger, Writers
from raftkv.cli.demo.narrator import Narrator
from raftkv.cli.demo.stage import DemoFailed, DemoStage
from raftkv.cli.demo.story import Figures, Story
from raftkv.cli.output import make_console, print_json
from raftkv.errors import RaftKVError
from raftkv.processes.cluster import ProcessCluster
from raftkv.server.process import loop_factory

WRITE_DEADLINE_S = 20.0
"""Longer than any fault here lasts: a writer waits it out instead of reporting it."""

NODE_SETTINGS = {
    # Small, so that a log of half a minute is cut like one of a week.
    "segment_bytes": 256 * 1024,
    "keep_entries": 500,
    "snapshot_interval_s": 0,
}


@click.command()
@click.option(
    "--kills", type=click.IntRange(1, 100), default=5, show_default=True, help="How often the leader is killed."
)
@click.option("--writers", type=click.IntRange(1, 99), default=8, show_default=True, help="Writers at the same time.")
@click.option(
    "--value-bytes", type=click.IntRange(1, 65536), default=256, show_default=True, help="Size of each value."
)
@click.option(
    "--act-seconds",
    type=click.FloatRange(0.0, 3600.0),
    default=1.5,
    show_default=True,
    help="How long the writers go on undisturbed between two faults.",
)
@click.option(
    "--directory",
    type=click.Path(file_okay=False),
    metavar="DIR",
    help="Keep data and logs here, in a new or empty directory.  [default: a temporary one, removed]",
)
@click.option("--json", "as_json", is_flag=True, help="Print the figures as JSON; the story goes to stderr.")
def demo(kills: int, writers: int, value_bytes: int, act_seconds: float, directory: str | None, as_json: bool) -> None:
    """Watch real node processes survive real faults, in about half a minute.

    Three nodes on this machine, writers that record every acknowledged write. The leader is killed (SIGKILL), and
    comes back; all nodes are killed at once, and come back; the log is compacted; a fourth, brand-new node joins by
    snapshot. Then every acknowledged write is read back from every node and the states are compared. The exit code
    is 1 when anything is missing, differs, was applied twice, or did not happen in time.
    """
    console = make_console(stderr=as_json)
    ledger = Ledger(writers)
    try:
        with _directory(directory) as place, ProcessCluster(place, 3, arguments=_node_arguments()) as cluster:
            stage = DemoStage(cluster)
            with asyncio.Runner(loop_factory=loop_factory()) as runner:
                figures = runner.run(_play(stage, ledger, Narrator(console, ledger), value_bytes, kills, act_seconds))
    except asyncio.CancelledError:
        sys.exit(128 + signal.SIGTERM)
    except (DemoFailed, RaftKVError) as exc:
        console.print(f"[bold red]failed[/]: {escape(str(exc))}")
        sys.exit(1)
    print_verdict(console, figures)
    if as_json:
        print_json(_value(figures))
    if not figures.is_kept:
        sys.exit(1)


def _node_arguments() -> list[str]:
    return [word for name, value in NODE_SETTINGS.items() for word in ("--set", f"{name}={value}")]


@contextlib.contextmanager
def _directory(given: str | None) -> Iterator[str]:
    if given is not None:
        if os.path.isdir(given) and os.listdir(given):
            raise click.BadParameter(f"{given!r} is not empty", param_hint="--directory")
        yield given
        return
    with tempfile.TemporaryDirectory(prefix="raftkv-demo-") as place:
        yield place


async def _play(
    stage: DemoStage, ledger: Ledger, narrator: Narrator, value_bytes: int, kills: int, act_s: float
) -> Figures:
    task = asyncio.current_task()
    assert task is not None, "a coroutine that runs is a task"
    # Whoever ends the demo must not be left with its nodes, which have sessions of their own.
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    writers = Writers(stage.cluster.addresses, ledger, value_bytes=value_bytes, deadline_s=WRITE_DEADLINE_S)
    try:
        return await Story(stage, ledger, writers, narrator, act_s=act_s).play(kills)
    finally:
        await writers.cancel()


def print_verdict(console: Console, figures: Figures) -> None:
    """What every node has, and whether that is all; with an example of each thing that is wrong."""
    table = Table(header_style="bold")
    for column in ("node", "read", "missing", "wrong", "unwritten", "counts", "state's digest"):
        table.add_column(column, justify="left" if column.endswith("digest") else "right", no_wrap=True)
    for node in figures.nodes:
        wrong = [_count(found) for found in (node.missing, node.different, node.invented, node.miscounted)]
        table.add_row(str(node.node_id), f"{node.read:,}", *wrong, node.digest)
    console.print(table)
    failovers = sorted(figures.failovers_s)
    console.print(
        f"{figures.acknowledged:,} writes acknowledged, {figures.writes_per_s:,.0f}/s over all faults; "
        f"{figures.unknown} with unknown outcome, {figures.refused} refused\n"
        f"without a leader: {failovers[len(failovers) // 2] * 1000:.0f} ms (median of {len(failovers)}), "
        f"{failovers[-1] * 1000:.0f} ms (longest)"
    )
    if figures.is_kept:
        console.print(
            f"[bold green]kept[/]: every acknowledged write is on all {len(figures.nodes)} nodes, once, "
            f"and their states are equal at entry {figures.nodes[0].applied_index:,}; {figures.seconds:.0f} s"
        )
    else:
        console.print(f"[bold red]NOT kept[/]: {escape('; '.join(_wrong(figures)))}")


def _count(found: list[str]) -> str:
    return str(len(found)) if not found else f"[red]{len(found)}[/]"


def _wrong(figures: Figures) -> list[str]:
    """What is wrong, with an example of each kind."""
    found = [] if figures.same_state else ["the states differ"]
    for node in figures.nodes:
        for name, examples in (
            ("missing", node.missing),
            ("different", node.different),
            ("not written by anybody", node.invented),
            ("miscounted", node.miscounted),
        ):
            if examples:
                found.append(f"node {node.node_id}: {len(examples)} {name}, such as {examples[0]}")
    return found


def _value(figures: Figures) -> dict[str, Any]:
    return {"kept": figures.is_kept, **msgspec.structs.asdict(figures)}
