"""`raftkv replay`: a simulated world, or a saved failure of an application's test, once more and looked at."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.markup import escape

from raftkv.cli.common import Seconds
from raftkv.cli.output import errors_reported, make_console, print_json
from raftkv.cli.progress import bar, interruptible
from raftkv.errors import InvalidArgument

if TYPE_CHECKING:
    from raftkv.testing.trying.replay import Replay

PAGE_S = 10.0
"""Of virtual time before the failure, on a page that is not told what to show: a browser scrolls it with ease."""


VIRTUAL = Seconds(0, 1_000_000)


@click.command()
@click.argument("target", metavar="SEED|FILE")
@click.option("--html", type=click.Path(dir_okay=False), metavar="FILE", help="Write the diagram there, for a browser.")
@click.option("--rows", type=click.IntRange(1), default=60, show_default=True, help="Print so many rows of it.")
@click.option("--width", type=click.IntRange(60), default=120, show_default=True, help="Characters in a line.")
@click.option("--since", type=VIRTUAL, metavar="SECONDS", help="Show what happened from this virtual time on.")
@click.option("--until", type=VIRTUAL, metavar="SECONDS", help="Show what happened up to it.  [default: the failure]")
@click.option("--size", type=click.IntRange(1, 9), metavar="NODES", help="Of a seed's world.  [default: drawn]")
@click.option("--virtual", type=VIRTUAL, default=20.0, show_default=True, help="Seconds of faults in a seed's world.")
@click.option("--clients", type=click.IntRange(1), default=4, show_default=True, help="Clients in a seed's world.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, errors too.")
def replay(
    target: str,
    html: str | None,
    rows: int,
    width: int,
    since: float | None,
    until: float | None,
    size: int | None,
    virtual: float,
    clients: int,
    as_json: bool,
) -> None:
    """Run a simulated world again, and show what happened before it failed.

    SEED is a world of raftkv's own simulation (tools/simulate); with the same code and options it is the same world, to
    the byte. FILE is a failure that a test of an application has saved; it needs the application's code. Prints the
    verdict and a space-time diagram: time goes down, a column for each node, messages are arrows.

    Exit code 0 when all is well, 1 when the world fails.
    """
    # Only who replays pays for loading the simulator.
    from raftkv.testing.tracing.diagram import text_diagram
    from raftkv.testing.tracing.page import html_diagram
    from raftkv.testing.trying.replay import replay_file
    from raftkv.worlds.replay import replay_seed

    with errors_reported(as_json), interruptible("nothing was changed", as_json=as_json):
        with bar(f"replaying {target}"):
            if target.isdecimal():
                found = replay_seed(int(target), size=size, duration_s=virtual, clients=clients)
            else:
                found = replay_file(target)
        end = until if until is not None else found.at
        diagram = ""
        if found.trace.nodes:
            diagram = text_diagram(found.trace, since=since or 0.0, until=end, rows=rows, width=width)
        if html is not None:
            begin = since if since is not None else max(0.0, end - PAGE_S)
            page = html_diagram(
                found.trace, title=found.title, verdict=found.verdict, failed=found.failed, since=begin, until=end
            )
            _write(html, page)
    _print(found, diagram, html, as_json)
    sys.exit(1 if found.failed else 0)


def _write(path: str, page: str) -> None:
    try:
        Path(path).write_text(page, encoding="utf-8")
    except OSError as exc:
        raise InvalidArgument(f"can't write {path}: {exc.strerror}") from exc


def _print(found: Replay, diagram: str, html: str | None, as_json: bool) -> None:
    if as_json:
        counts = dict(sorted(found.trace.counts.items()))
        document = {"title": found.title, "failed": found.failed, "verdict": found.verdict, "at": found.at}
        print_json({**document, "happened": counts, "diagram": diagram, "html": html})
        return
    console = make_console()
    console.print(f"[{'bold red' if found.failed else 'green'}]{escape(found.verdict)}[/]", soft_wrap=True)
    if diagram:
        console.print(escape(diagram), soft_wrap=True)
    if html is not None:
        console.print(f"the diagram is in {escape(html)}", soft_wrap=True)
