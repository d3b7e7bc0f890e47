"""`raftkv log inspect`: what a log on disk holds, read while no node runs, and never changed."""

from __future__ import annotations

import contextlib
import os
import posixpath
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import click
import msgspec
from rich.markup import escape
from rich.table import Table

from raftkv.cli.common import stderr
from raftkv.cli.offline import ReadOnlyDisk
from raftkv.cli.output import errors_reported, make_console, print_json, size_of
from raftkv.entry import Entry
from raftkv.errors import Corruption, DataDirLocked, FormatError, InvalidArgument
from raftkv.log import VoteFile
from raftkv.log.manifest import read_manifest
from raftkv.log.recovery import MANIFEST, segment_path
from raftkv.log.segment import Segment
from raftkv.machine.payloads import decode_command
from raftkv.model import EntryKind, Index, LogStart, decode_membership

_READ_BYTES = 4 << 20


class SegmentReport(msgspec.Struct, kw_only=True):
    """One segment file, as far as it can be read."""

    path: str
    bytes: int = 0
    first_index: Index | None = None
    last_index: Index | None = None
    entries: int = 0
    problem: str | None = None


class LogReport(msgspec.Struct, kw_only=True):
    """A log's directory, and the vote file beside it."""

    path: str
    segments: list[SegmentReport] = []
    entries: list[dict[str, Any]] = []
    """Those that were asked for."""
    first_index: Index = 1
    last_index: Index = 0
    vote: dict[str, Any] | None = None
    repairs: list[str] = []
    """What the next start of the node would mend."""
    problems: list[str] = []


@click.group()
def log() -> None:
    """Look into a node's log."""


@log.command()
@click.argument("directory", type=click.Path(), default="raftkv-data", metavar="[DIR]")
@click.option("--first", type=click.IntRange(1), metavar="INDEX", help="Print entries from this one on.")
@click.option("--last", type=click.IntRange(1), metavar="INDEX", help="Print entries up to this one.")
@click.option("--tail", "-n", type=click.IntRange(0), default=20, show_default=True, help="Print the last so many.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, errors too.")
def inspect(directory: str, first: int | None, last: int | None, tail: int, as_json: bool) -> None:
    """Check a data directory's log and vote file, and print its entries; the node must not run.

    Reads every byte and changes nothing: what the next start would mend is only said. Exit code 5 when something
    that was written is not there any more.
    """
    with errors_reported(as_json), stderr.status("reading every byte …"):
        report = inspect_log(directory, first, last, tail)
    if as_json:
        print_json(report)
    else:
        _print(report)
    if report.problems:
        sys.exit(5)


def inspect_log(directory: str, first: int | None, last: int | None, tail: int) -> LogReport:
    """Read a data directory's log, or the log directory itself. Raises `InvalidArgument`, `DataDirLocked`."""
    root = directory.rstrip("/")
    if not os.path.isdir(root):
        raise InvalidArgument(f"{directory!r}: there is no such directory")
    is_root = os.path.isdir(os.path.join(root, "log"))
    path = posixpath.join(root, "log") if is_root else root
    disk = ReadOnlyDisk()
    with _unused(disk, posixpath.join(root, "LOCK")):
        report = LogReport(path=path)
        if is_root:
            _read_vote(disk, posixpath.join(root, "vote"), report)
        _read_segments(disk, report, first, last, None if first or last else tail)
        report.repairs = disk.repairs
    durable = report.vote["durable_index"] if report.vote is not None else 0
    if report.last_index < durable:
        report.problems.append(f"the log ends at entry {report.last_index}, but {durable} had been durable")
    return report


@contextlib.contextmanager
def _unused(disk: ReadOnlyDisk, path: str) -> Iterator[None]:
    """Hold the directory's lock: what a running node is just writing would look damaged."""
    if not disk.exists(path):
        yield
        return
    try:
        lock = disk.lock(path)
    except DataDirLocked as exc:
        raise DataDirLocked(f"{exc} (or look at a copy of it)") from exc
    try:
        yield
    finally:
        lock.release()


def _read_vote(disk: ReadOnlyDisk, path: str, report: LogReport) -> None:
    try:
        vote = VoteFile.open(disk, path)
    except FileNotFoundError:
        report.problems.append(f"{path} is missing")
        return
    except (Corruption, FormatError) as exc:
        report.problems.append(str(exc))
        return
    report.vote = {
        "cluster_id": vote.identity.cluster_id,
        "node_id": vote.identity.node_id,
        "incarnation": vote.identity.incarnation,
        "starts": vote.boot,
        "term": vote.hard_state.term,
        "vote": vote.hard_state.vote,
        "durable_index": vote.durable_index,
    }
    vote.close()


def _read_segments(
    disk: ReadOnlyDisk, report: LogReport, first: int | None, last: int | None, tail: int | None
) -> None:
    manifest = posixpath.join(report.path, MANIFEST)
    try:
        numbers = read_manifest(disk, manifest).numbers
    except FileNotFoundError:
        raise InvalidArgument(f"{report.path} holds no log: {manifest} is missing") from None
    except (Corruption, FormatError) as exc:
        report.problems.append(str(exc))
        return
    at: LogStart | None = None
    for number in numbers:
        found = SegmentReport(path=segment_path(report.path, number))
        report.segments.append(found)
        try:
            segment = Segment.open(disk, found.path, number, 0)
            found.bytes = disk.size(found.path)
            segment.scan(is_last=number == numbers[-1])
            at = _read_entries(segment, found, report, at, (first, last, tail))
            if number == numbers[-1]:
                segment.settle()  # which this disk only notes
            segment.close()
        except (Corruption, FormatError) as exc:
            found.problem, at = str(exc), None
            report.problems.append(found.problem)


def _read_entries(
    segment: Segment,
    found: SegmentReport,
    report: LogReport,
    at: LogStart | None,
    wanted: tuple[int | None, int | None, int | None],
) -> LogStart:
    """Read a segment through; `at` is where the one before ended, None when that is not known."""
    first, last, tail = wanted
    prev = segment.prev
    if not report.segments[:-1]:
        report.first_index = prev.index + 1
    elif at is not None and (prev.index > at.index or (prev.index == at.index and prev != at)):
        raise Corruption(f"{found.path} does not continue the segment before it, which ends at entry {at.index}")
    found.first_index, found.last_index = prev.index + 1, segment.last_index
    found.entries = segment.last_index - prev.index
    # A later segment may replace the end of the one before.
    report.entries = [entry for entry in report.entries if entry["index"] <= prev.index]
    at = prev
    while at.index < segment.last_index:
        entries = segment.read(at.index + 1, segment.last_index, _READ_BYTES, at.chain)
        report.entries += [
            entry_value(entry) for entry in entries if (first or 0) <= entry.index <= (last or sys.maxsize)
        ]
        if tail is not None:
            report.entries = report.entries[len(report.entries) - min(tail, len(report.entries)) :]
        newest = entries[-1]
        at = LogStart(newest.index, newest.term, newest.chain, newest.time_ms)
    report.last_index = at.index
    return at


def entry_value(entry: Entry) -> dict[str, Any]:
    """An entry for JSON, with what it says in words."""
    return {
        "index": entry.index,
        "term": entry.term,
        "time": datetime.fromtimestamp(entry.time_ms / 1000, UTC).isoformat(timespec="milliseconds"),
        "kind": EntryKind(entry.kind).name.lower(),
        "bytes": len(entry.payload),
        "chain": f"{entry.chain:016x}",
        "content": _content(entry),
    }


def _content(entry: Entry) -> str:
    if entry.kind == EntryKind.NOOP:
        return ""
    if entry.kind == EntryKind.CLOCK:
        return "log time begins anew here"
    if entry.kind == EntryKind.MEMBERSHIP:
        try:
            return decode_membership(entry.payload).describe()
        except msgspec.MsgspecError as exc:
            return f"unreadable: {exc}"
    try:
        command = decode_command(entry.payload)
    except InvalidArgument as exc:
        return f"unreadable: {exc}"
    session = f", session {command.session_id} number {command.sequence}" if command.session_id else ""
    return command.name + session


def _print(report: LogReport) -> None:
    console = make_console()
    if report.vote is not None:
        vote = report.vote
        click.echo(
            f"node {vote['node_id']} of cluster {vote['cluster_id'] or '(not joined)'}: term {vote['term']}, "
            f"vote {vote['vote'] or 'for nobody'}, durable at least to {vote['durable_index']}, "
            f"started {vote['starts']} times"
        )
    click.echo(f"entries {report.first_index} to {report.last_index} in {report.path}")
    segments = Table(header_style="bold")
    for column in ("segment", "entries", "first", "last", "size"):
        segments.add_column(column, justify="left" if column == "segment" else "right", no_wrap=True)
    for found in report.segments:
        name = posixpath.basename(found.path) + (" [red]damaged[/]" if found.problem is not None else "")
        ends = ["-" if index is None else str(index) for index in (found.first_index, found.last_index)]
        segments.add_row(name, str(found.entries), *ends, size_of(found.bytes))
    console.print(segments)
    if report.entries:
        console.print(_entries_table(report.entries))
    for repair in report.repairs:
        click.echo(f"the next start would {repair}")
    for problem in report.problems:
        click.echo(problem, err=True)


def _entries_table(entries: list[dict[str, Any]]) -> Table:
    table = Table(header_style="bold")
    for column in ("index", "term", "time", "kind", "bytes", "content"):
        table.add_column(column, justify="right" if column in ("index", "term", "bytes") else "left", no_wrap=True)
    for entry in entries:
        columns = ("index", "term", "time", "kind", "bytes", "content")
        table.add_row(*[escape(str(entry[column])) for column in columns])
    return table
