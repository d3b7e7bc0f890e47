"""`raftkv log inspect`: what a log on disk holds, read while no node runs, and never changed."""

from __future__ import annotations

import contextlib
import os
import posixpath
import sys
from collections.abc import Iterator
from datetime import UTC, datetime

import click
import msgspec
from rich.markup import escape
from rich.table import Table

from raftkv.access import decode_access_change
from raftkv.cli.offline import ReadOnlyDisk
from raftkv.cli.output import errors_reported, make_console, print_json, size_of
from raftkv.cli.progress import interruptible, reading_shown
from raftkv.cli.watched import WatchedDisk, bytes_in
from raftkv.disk import Disk, RealDisk
from raftkv.entry import Entry
from raftkv.errors import UNREADABLE, Corruption, DataDirLocked, FormatError, InvalidArgument
from raftkv.log import VoteFile
from raftkv.log.reader import SegmentSeen, read_log
from raftkv.machine import BEGIN_LINEAGE, CHANGE_ACCESS, Activation, Founding, Step, decode_change
from raftkv.machine.payloads import decode_command
from raftkv.model import EntryKind, Index, NodeId, Term, decode_membership


class VoteShown(msgspec.Struct, frozen=True, kw_only=True):
    """What a vote file says."""

    cluster_id: str
    node_id: NodeId
    incarnation: str
    starts: int
    term: Term
    vote: NodeId | None
    durable_index: Index


class EntryShown(msgspec.Struct, frozen=True, kw_only=True):
    """An entry of a log, with what it says in words."""

    index: Index
    term: Term
    time: str
    kind: str
    bytes: int
    chain: str
    content: str


class LogReport(msgspec.Struct, kw_only=True):
    """A log's directory, and the vote file beside it."""

    path: str
    segments: list[SegmentSeen] = []
    entries: list[EntryShown] = []
    """Those that were asked for."""
    first_index: Index = 1
    last_index: Index = 0
    vote: VoteShown | None = None
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
    left = f"{directory} is as it was, and nothing is known of what was not read"
    size = bytes_in(os.path.join(directory, "log"))
    with (
        errors_reported(as_json),
        interruptible(left, as_json=as_json),
        reading_shown(f"reading {directory}", size) as on_read,
    ):
        report = inspect_log(directory, first, last, tail, WatchedDisk(on_read))
    if as_json:
        print_json(report)
    else:
        _print(report)
    if report.problems:
        sys.exit(5)


def inspect_log(directory: str, first: int | None, last: int | None, tail: int, source: Disk = RealDisk()) -> LogReport:
    """Read a data directory's log, or the log directory itself. Raises `InvalidArgument`, `DataDirLocked`."""
    root = directory.rstrip("/")
    if not os.path.isdir(root):
        raise InvalidArgument(f"{directory!r}: there is no such directory")
    is_root = os.path.isdir(os.path.join(root, "log"))
    path = posixpath.join(root, "log") if is_root else root
    disk, wanted = ReadOnlyDisk(source), _Wanted(first, last, tail)
    report = LogReport(path=path)
    with _unused(disk, posixpath.join(root, "LOCK")):
        if is_root:
            _read_vote(disk, posixpath.join(root, "vote"), report)
        seen = read_log(disk, path, wanted.take)
    report.segments, report.entries = seen.segments, wanted.entries
    report.first_index, report.last_index = seen.first_index, seen.last_index
    report.problems += seen.problems
    report.repairs = disk.repairs
    if seen.torn_at is not None:
        report.repairs.append(f"cut off a torn write at byte {seen.torn_at} of {seen.segments[-1].path}")
    durable = report.vote.durable_index if report.vote is not None else 0
    if report.last_index < durable:
        report.problems.append(f"the log ends at entry {report.last_index}, but {durable} had been durable")
    return report


class _Wanted:
    """The entries from `first` to `last` as they are shown; the last `tail` ones when neither is said."""

    def __init__(self, first: int | None, last: int | None, tail: int) -> None:
        self.entries: list[EntryShown] = []
        self._first = first or 0
        self._last = last or sys.maxsize
        self._most = sys.maxsize if first or last else tail

    def take(self, behind: Index, entries: list[Entry]) -> None:
        """Keep those that are asked for, and none from behind that index that was kept before."""
        while self.entries and self.entries[-1].index > behind:
            self.entries.pop()
        self.entries += [entry_value(entry) for entry in entries if self._first <= entry.index <= self._last]
        del self.entries[: max(0, len(self.entries) - self._most)]


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
    report.vote = VoteShown(
        cluster_id=vote.identity.cluster_id,
        node_id=vote.identity.node_id,
        incarnation=vote.identity.incarnation,
        starts=vote.boot,
        term=vote.hard_state.term,
        vote=vote.hard_state.vote,
        durable_index=vote.durable_index,
    )
    vote.close()


def entry_value(entry: Entry) -> EntryShown:
    """An entry as it is printed."""
    return EntryShown(
        index=entry.index,
        term=entry.term,
        time=datetime.fromtimestamp(entry.time_ms / 1000, UTC).isoformat(timespec="milliseconds"),
        kind=EntryKind(entry.kind).name.lower(),
        bytes=len(entry.payload),
        chain=f"{entry.chain:016x}",
        content=_content(entry),
    )


def _content(entry: Entry) -> str:
    if entry.kind in (EntryKind.NOOP, EntryKind.UPGRADE):
        return _version_content(entry.payload) if entry.payload else ""
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
    if command.name == CHANGE_ACCESS:
        return _access_content(command.args)
    if command.name == BEGIN_LINEAGE:
        return "the first entry of its own of a cluster that was restored or recovered"
    session = f", session {command.session_id} number {command.sequence}" if command.session_id else ""
    return command.name + session


def _access_content(args: msgspec.Raw) -> str:
    """A change of users and roles, without hashes: its `repr` has none."""
    try:
        return repr(decode_access_change(args))
    except InvalidArgument as exc:
        return f"unreadable: {exc}"


def _version_content(payload: bytes) -> str:
    try:
        change = decode_change(payload)
    except UNREADABLE as exc:
        return f"unreadable: {exc}"
    match change:
        case Founding():
            return f"a new state begins with version {change.version} of the application"
        case Activation():
            return f"version {change.version} of the application becomes active"
        case Step():
            return f"piece {change.number + 1} of the upgrade to version {change.version}"


def _print(report: LogReport) -> None:
    console = make_console()
    if report.vote is not None:
        vote = report.vote
        click.echo(
            f"node {vote.node_id} of cluster {vote.cluster_id or '(not joined)'}: term {vote.term}, "
            f"vote {vote.vote or 'for nobody'}, durable at least to {vote.durable_index}, "
            f"started {vote.starts} times"
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


def _entries_table(entries: list[EntryShown]) -> Table:
    table = Table(header_style="bold")
    for column in ("index", "term", "time", "kind", "bytes", "content"):
        table.add_column(column, justify="right" if column in ("index", "term", "bytes") else "left", no_wrap=True)
    for entry in entries:
        columns = ("index", "term", "time", "kind", "bytes", "content")
        table.add_row(*[escape(str(getattr(entry, column))) for column in columns])
    return table
