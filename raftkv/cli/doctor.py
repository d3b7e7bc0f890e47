"""`raftkv doctor`: what is wrong with a cluster, with data directories, or with both, and what to type."""

from __future__ import annotations

import asyncio
import os
import sys
from datetime import UTC, datetime

import click
import msgspec
from rich.console import Console
from rich.markup import escape

from raftkv.cli.common import Target, cluster_command
from raftkv.cli.output import make_console, print_json
from raftkv.cli.progress import bar, interruptible
from raftkv.cli.view import ask_cluster, view_of
from raftkv.doctor import Evidence, Finding, Heard, Severity, diagnose, exit_code_of
from raftkv.doctor.directories import examine
from raftkv.doctor.logfiles import read_log_file
from raftkv.node.status import NodeStatus

APART_S = 1.0
"""Between the two looks: long enough for a follower that lives to get something."""

COLOURS = {Severity.CRITICAL: "bold red", Severity.WARNING: "yellow", Severity.NOTE: "cyan"}

ASKING_OPTIONS = ("tls_ca", "tls_cert", "tls_key", "user", "password_file", "token_file", "insecure")


class Diagnosis(msgspec.Struct, frozen=True):
    """What was found, worst first, and what that rests on."""

    findings: list[Finding]
    looked_at: list[str]


@click.command()
@click.argument("directories", type=click.Path(), nargs=-1, metavar="[DIR]…")
@click.option(
    "--log",
    "log_files",
    type=click.Path(dir_okay=False),
    multiple=True,
    metavar="FILE",
    help="A log that `raftkv serve --log-json` has written; repeat it.",
)
@cluster_command(timeout_s=5.0)
def doctor(target: Target, directories: tuple[str, ...], log_files: tuple[str, ...]) -> None:
    """Find out what is wrong, and what to do about it; the worst comes first.

    Asks all nodes of the cluster, twice, a second apart; without DIR those at the default address, with DIR only if
    addresses are given (-a, or RAFTKV_ADDRESS). A DIR is a data directory on this machine: it is tried whether its node
    would start, on a copy in memory, and nothing is changed, but no node can be started there meanwhile. While its node
    runs, it is only looked at from outside.

    Exit code 5 when data is in doubt (a node has stopped itself, or could not start), 3 when clients are not served, 1
    when there is a warning, 0 when all is well, or there are notes only.
    """
    context = click.get_current_context()
    source = context.get_parameter_source("addresses")
    is_online = not (directories or log_files) or source is not click.core.ParameterSource.DEFAULT
    with interruptible("nothing was changed", as_json=target.as_json), bar("looking"):
        seen = tuple(examine(each) for each in directories)
        logs = tuple(read_log_file(each) for each in log_files)
    evidence = Evidence(directories=seen, logs=logs, options=_options(context, target) if is_online else ())
    if is_online:
        evidence = target.run(lambda: _asked(target, evidence), "asking the nodes", "nothing was changed")
    findings = diagnose(evidence, datetime.now(UTC))
    if target.as_json:
        print_json(Diagnosis(findings, looked_at(evidence)))
    else:
        _print(make_console(), findings, looked_at(evidence))
    sys.exit(exit_code_of(findings))


def _options(context: click.Context, target: Target) -> tuple[str, ...]:
    """What a command needs to talk to the same cluster; what comes from the environment is there for others, too."""
    options = ["-a", ",".join(target.addresses)]
    for name in ASKING_OPTIONS:
        if context.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE:
            value = context.params[name]
            options += ["--" + name.replace("_", "-"), *([] if value is True else [os.fspath(value)])]
    return tuple(options)


async def _asked(target: Target, evidence: Evidence) -> Evidence:
    """With the cluster's answers, at two times."""
    loop = asyncio.get_running_loop()
    answers = await ask_cluster(target)
    before, began = view_of(answers), loop.time()
    if before.nodes:
        await asyncio.sleep(APART_S)
        answers = await ask_cluster(target)
    heard = [
        Heard(address, answer.node_id, answer.cluster_id)
        for address, answer in answers.items()
        if address in target.addresses and isinstance(answer, NodeStatus)
    ]
    return Evidence(
        view=view_of(answers),
        before=before,
        apart_s=loop.time() - began,
        heard=tuple(heard),
        directories=evidence.directories,
        logs=evidence.logs,
        options=evidence.options,
    )


def looked_at(evidence: Evidence) -> list[str]:
    """What the findings rest on, in words."""
    found = []
    if evidence.view is not None:
        nodes = ", ".join(str(node.node_id) for node in evidence.nodes) or "none"
        silent = ", ".join(each.address for each in evidence.view.silent)
        found.append(f"nodes that answer: {nodes}" + (f"; that do not: {silent}" if silent else ""))
    ways = {True: "only from outside, as a node runs on it", False: "as a start of its node would"}
    found += [f"{seen.path}: {ways[seen.in_use]}" for seen in evidence.directories]
    found += [f"{log.path}: {len(log.events)} events since the last start" for log in evidence.logs]
    return found


def _print(console: Console, findings: list[Finding], sources: list[str]) -> None:
    for source in sources:
        console.print(f"[dim]looked at {escape(source)}[/]")
    for each in findings:
        colour = COLOURS[each.severity]
        since = f" (since {each.since})" if each.since is not None else ""
        console.print()
        console.print(f"[{colour}]{each.severity}[/] [bold]{each.condition}[/]{since}: {escape(each.what)}")
        lines = [("why", text) for text in each.why] + [("do", each.do)] + [("type", text) for text in each.commands]
        lines += [("don't", each.dont)] if each.dont else []
        for name, text in lines:
            console.print(f"  {name:6} {escape(text)}")
    if not findings:
        console.print("[green]nothing is found wrong[/]")
