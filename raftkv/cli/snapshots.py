"""`raftkv snapshot`: taken by a running node, listed and verified on disk."""

from __future__ import annotations

import os
import posixpath
import sys

import click
import msgspec
from rich.table import Table

from raftkv.cli.common import Target, cluster_command
from raftkv.cli.output import errors_reported, make_console, print_json, size_of
from raftkv.cli.progress import interruptible, reading_shown
from raftkv.cli.view import look
from raftkv.cli.watched import WatchedDisk, bytes_in
from raftkv.disk import Disk, RealDisk
from raftkv.errors import InvalidArgument, RaftKVError
from raftkv.extras import needs
from raftkv.model import Index, Membership, NodeId, Term
from raftkv.snapshot import Content, DirectoryReport, SnapshotReport, verify_directory
from raftkv.snapshot.manifest import read_manifest
from raftkv.snapshot.verify import SNAPSHOT_NAME

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON, errors too.")


@click.group()
def snapshot() -> None:
    """Take, list and verify snapshots."""


class Taken(msgspec.Struct, frozen=True):
    """A snapshot that a node has taken, or why it has not."""

    node_id: NodeId
    index: Index | None
    error: str | None = None


@snapshot.command()
@click.option("--all", "everywhere", is_flag=True, help="On every node, one after the other.")
@cluster_command(timeout_s=300.0)
def take(target: Target, everywhere: bool) -> None:
    """Make a node take a snapshot now, so that its log can be cut; the first node that answers, or --all."""
    taken: list[Taken] = []

    def left() -> str:
        done = ", ".join(f"node {each.node_id}" for each in taken if each.error is None) or "none"
        return f"a node that has begun takes its snapshot all the same, others are not asked; done before: {done}"

    target.run(lambda: _take(target, everywhere, taken), "taking the snapshot", left)
    if target.as_json:
        print_json(taken)
    for each in () if target.as_json else taken:
        click.echo(f"node {each.node_id}: {each.error or f'snapshot at index {each.index}'}", err=bool(each.error))
    if any(each.error for each in taken):
        sys.exit(1)


async def _take(target: Target, everywhere: bool, taken: list[Taken]) -> None:
    """Adds to `taken` one by one."""
    if not everywhere:
        async with target.admin() as admin:
            index = await admin.take_snapshot(target.timeout_s)
            status = await admin.status(target.timeout_s)
            taken.append(Taken(int(status["node_id"]), index))
            return
    for member in (await look(target)).newest.membership.members:
        try:
            async with target.admin(member.client_address) as admin:
                taken.append(Taken(member.node_id, await admin.take_snapshot(target.timeout_s)))
        except RaftKVError as exc:
            taken.append(Taken(member.node_id, None, str(exc)))


def find_directory(given: str) -> str:
    """The directory of snapshots in a data directory; anything else is taken as it is. Raises `InvalidArgument`."""
    path = given.rstrip("/") or "/"
    if not os.path.isdir(path):
        raise InvalidArgument(f"{given!r}: there is no such directory")
    inside = os.path.join(path, "snapshots")
    return inside if os.path.isdir(inside) else path


@snapshot.command("list")
@click.argument("directory", type=click.Path(), default="raftkv-data", metavar="[DIR]")
@json_option
def list_snapshots(directory: str, as_json: bool) -> None:
    """Print the snapshots in a data directory (default: ./raftkv-data); reads their manifests only."""
    with errors_reported(as_json):
        path = find_directory(directory)
        disk = RealDisk()
        reports = [
            _read(disk, posixpath.join(path, name)) for name in disk.listdir(path) if SNAPSHOT_NAME.fullmatch(name)
        ]
    if as_json:
        print_json([_value(report) for report in reports])
    else:
        make_console().print(_table(reports, "not checked"))


def _read(disk: Disk, path: str) -> SnapshotReport:
    try:
        manifest = read_manifest(disk, path).manifest
    except RaftKVError as exc:
        return SnapshotReport(path=path, problems=[str(exc)])
    return SnapshotReport(
        path=path,
        snapshot=manifest.snapshot,
        cluster_id=manifest.cluster_id,
        key_count=manifest.key_count,
        files=len(manifest.files),
        total_bytes=manifest.total_bytes,
    )


@snapshot.command()
@click.argument("directory", type=click.Path(), metavar="DIR")
@click.option("--deep", is_flag=True, help="Also open each database, in a copy of hard links, and read every key.")
@json_option
def verify(directory: str, deep: bool, as_json: bool) -> None:
    """Check a snapshot, or all in a data directory: every byte against the checksums in the manifest.

    Changes nothing. Exit code 1 when something is damaged or there is no snapshot.
    """
    left = f"{directory} is as it was, and nothing is known of what was not read"
    with errors_reported(as_json), interruptible(left, as_json=as_json):
        path = find_directory(directory)
        with reading_shown(f"reading {path}", bytes_in(path)) as on_read:
            report = verify_directory(WatchedDisk(on_read), path, inspect_state if deep else None)
    _print_report(report, as_json)
    if not report.is_sound:
        sys.exit(1)


def inspect_state(directory: str) -> Content:
    """What the database in a directory holds; every key is read, and some of its files are rewritten."""
    with needs("server", "a look into a snapshot"):
        from raftkv.state.rocks import RocksStates

    store = RocksStates().open(directory)
    try:
        applied, keys = store.applied, store.verify()
    finally:
        store.close()
    return Content(index=applied.index, term=applied.term, digest=applied.digest, key_count=keys)


def _print_report(report: DirectoryReport, as_json: bool) -> None:
    if as_json:
        print_json(
            DirectoryShown(
                path=report.path,
                sound=report.is_sound,
                snapshots=[_value(found) for found in report.snapshots],
                unfinished=report.unfinished,
                problems=report.problems,
            )
        )
        return
    make_console().print(_table(report.snapshots))
    for name in report.unfinished:
        click.echo(f"{name}: being made or received, or left over; the next start removes what is left over")
    for problem in report.problems:
        click.echo(problem, err=True)
    if report.is_sound:
        click.echo(f"sound: {len(report.snapshots)} of {len(report.snapshots)}")


class SnapshotShown(msgspec.Struct, frozen=True, kw_only=True):
    """A snapshot in a directory, for JSON."""

    path: str
    index: Index | None
    """This and the next three are None when its manifest can't be read."""
    term: Term | None
    digest: str | None
    membership: Membership | None
    cluster_id: str
    keys: int | None
    """None when nobody has counted them."""
    files: int
    bytes: int
    problems: list[str]


class DirectoryShown(msgspec.Struct, frozen=True, kw_only=True):
    """A directory of snapshots that was verified, for JSON."""

    path: str
    sound: bool
    snapshots: list[SnapshotShown]
    unfinished: list[str]
    """Being made or received, or left over."""
    problems: list[str]


def _value(report: SnapshotReport) -> SnapshotShown:
    meta = report.snapshot
    return SnapshotShown(
        path=report.path,
        index=meta.index if meta is not None else None,
        term=meta.term if meta is not None else None,
        digest=f"{meta.digest:016x}" if meta is not None else None,
        membership=meta.membership if meta is not None else None,
        cluster_id=report.cluster_id,
        keys=report.key_count,
        files=report.files,
        bytes=report.total_bytes,
        problems=report.problems,
    )


def _table(reports: list[SnapshotReport], good: str = "sound") -> Table:
    table = Table(header_style="bold")
    for column in ("index", "term", "digest", "members", "keys", "files", "size", "verdict"):
        table.add_column(column, no_wrap=True)
    for report in reports:
        meta = report.snapshot
        verdict = "[red]damaged[/]" if report.problems else good
        if meta is None:
            table.add_row(posixpath.basename(report.path), *["-"] * 6, verdict)
            continue
        keys = "-" if report.key_count is None else str(report.key_count)
        table.add_row(
            str(meta.index),
            str(meta.term),
            f"{meta.digest:016x}",
            meta.membership.describe(),
            keys,
            str(report.files),
            size_of(report.total_bytes),
            verdict,
        )
    return table
