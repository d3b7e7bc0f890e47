"""How the command line speaks: tables for people, JSON for programs, exit codes for scripts."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

import click
import msgspec
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from raftkv.errors import (
    Indeterminate,
    InvalidArgument,
    NodeStopped,
    NotAccepted,
    RaftKVError,
    SessionExpired,
)
from raftkv.node.status import NodeStatus

EXIT_CODES = {
    0: "done",
    1: "no: not found, condition does not hold, rejected by the command itself, or a check failed",
    2: "wrong usage: an option, a setting or an argument",
    3: "not accepted, so safe to try again: no leader, no quorum, busy, refused for now",
    4: "outcome unknown: it may have been done",
    5: "data in doubt: a node stopped itself, or files are damaged, locked or of another node",
}
"""Every exit code, for the help text."""


def exit_code(error: RaftKVError) -> int:
    """The exit code that says who must act."""
    match error:
        case InvalidArgument():
            return 2
        case NotAccepted():
            return 3
        case Indeterminate() | SessionExpired():
            return 4
        case NodeStopped():
            return 5
        case _:
            return 1


def fail(error: RaftKVError, *, as_json: bool = False) -> NoReturn:
    """Print an error the way that was asked for, and exit with its code."""
    if as_json:
        print_json({"error": type(error).__name__, "message": str(error)})
    else:
        console = Console(stderr=True, highlight=False, soft_wrap=True)
        console.print(f"[bold red]{type(error).__name__}[/]: {escape(str(error))}")
    sys.exit(exit_code(error))


@contextmanager
def errors_reported(as_json: bool) -> Iterator[None]:
    """Turn raftkv's errors into a message and an exit code."""
    try:
        yield
    except RaftKVError as exc:
        fail(exc, as_json=as_json)


def print_json(value: Any) -> None:
    """One JSON document a line."""
    click.echo(msgspec.json.encode(value, enc_hook=_encode).decode())


def _encode(value: Any) -> Any:
    if isinstance(value, bytes):
        return text_of(value)
    raise TypeError(f"{type(value).__name__} has no JSON form")


def text_of(value: bytes) -> str:
    """Bytes as a person reads them: UTF-8 where they are, else escaped."""
    return value.decode("utf-8", "backslashreplace")


def status_table(statuses: list[NodeStatus | tuple[str, str]]) -> Table:
    """A row for each node; (address, why) for one that does not answer."""
    table = Table(title="cluster", title_justify="left", header_style="bold")
    for column in ("node", "role", "term", "commit", "applied", "lag", "snapshot", "log", "disk free", "reaches"):
        table.add_column(column, justify="left" if column in ("node", "role", "reaches") else "right")
    newest = max((s.commit_index for s in statuses if isinstance(s, NodeStatus)), default=0)
    for status in statuses:
        if not isinstance(status, NodeStatus):
            table.add_row(status[0], f"[red]{status[1]}[/]", *[""] * 8)
            continue
        reaches = " ".join(f"{peer.node_id}{'' if peer.connected else '✗'}" for peer in status.peers)
        colour = {"leader": "green", "stopped": "red"}.get(status.role, "default")
        table.add_row(
            str(status.node_id),
            f"[{colour}]{status.role}[/]",
            str(status.term),
            str(status.commit_index),
            str(status.applied_index),
            str(newest - status.applied_index),
            str(status.snapshot_index or "-"),
            size_of(status.log_bytes),
            size_of(status.disk_free_bytes) + (" [red]low[/]" if status.disk_low else ""),
            reaches,
        )
    return table


def size_of(count: int) -> str:
    """Bytes in the largest fitting unit."""
    value = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024 or unit == "GiB":
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return ""
