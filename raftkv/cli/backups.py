"""`raftkv backup`: makes, checks and shows backups."""

from __future__ import annotations

import asyncio
import datetime
import os
import signal
import sys
import tempfile
from collections.abc import Callable
from typing import Any

import click
import msgspec

from raftkv.cli.common import Target, WithDefault, cluster_command
from raftkv.cli.output import errors_reported, make_console, print_json, size_of
from raftkv.cli.progress import Stand, bar, interruptible, reading_shown
from raftkv.cli.regularly import Make, RegularBackups
from raftkv.cli.settings import parse_value
from raftkv.cli.snapshots import inspect_state, json_option
from raftkv.cli.watched import WatchedDisk, bytes_in
from raftkv.client.backups import Backup
from raftkv.disk import Disk, RealDisk
from raftkv.errors import InvalidArgument, SnapshotCorruption
from raftkv.model import Index, Membership, NodeId, Term
from raftkv.snapshot.backup import SealedHead, check_backup, read_head, unpack_backup
from raftkv.snapshot.verify import content_problems


@click.group(cls=WithDefault, default="make")
def backup() -> None:
    """Make a backup of a running cluster, check one, or show what it is.

    \b
      raftkv backup FILE -a 10.0.0.2:7001    makes one (short for `backup make FILE`)
      raftkv backup verify FILE              reads every byte again
      raftkv restore FILE …                  begins a new cluster with it
    """


class Size(click.ParamType):  # type: ignore[type-arg]
    """Bytes, such as 10MiB."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Raises `click.BadParameter`."""
        parsed = value if isinstance(value, int) else parse_value(str(value))
        if not isinstance(parsed, int) or isinstance(parsed, bool) or parsed < 0:
            self.fail(f"{value!r} is no size: give bytes, or such as 512KiB, 10MiB", param, ctx)
        return parsed


_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


class Span(click.ParamType):  # type: ignore[type-arg]
    """A time such as 30s, 15m, 1h or 7d, in seconds."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Raises `click.BadParameter`."""
        if isinstance(value, float | int):
            return float(value)
        text = str(value).strip().lower()
        number, unit = (text[:-1], text[-1]) if text[-1:] in _UNITS else (text, "s")
        try:
            seconds = float(number) * _UNITS[unit]
        except ValueError:
            seconds = -1.0
        if not 0 <= seconds <= 366 * 86_400:
            self.fail(f"{value!r} is no time: give such as 30s, 15m, 1h, 7d (a year at most)", param, ctx)
        return seconds


def making_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options of all that make backups."""
    for option in (
        click.option("--stale", is_flag=True, help="What the node has applied, when there is no leader to ask."),
        click.option(
            "--age",
            "age_s",
            type=Span(),
            default=0.0,
            metavar="TIME",
            help="A snapshot that the node took so long ago will do.  [default: all that is acknowledged is in it]",
        ),
        click.option(
            "--rate-limit", "rate", type=Size(), default=0, metavar="SIZE", help="Bytes a second.  [default: no limit]"
        ),
    ):
        command = option(command)
    return command


@backup.command()
@click.argument("file", type=click.Path(), metavar="FILE")
@click.option("--every", "every_s", type=Span(), metavar="TIME", help="Again and again, into the directory FILE.")
@click.option("--keep", type=click.IntRange(1), metavar="N", help="With --every: remove all whole ones but the last N.")
@making_options
@cluster_command(timeout_s=300.0)
def make(
    target: Target, file: str, every_s: float | None, keep: int | None, rate: int, age_s: float, stale: bool
) -> None:
    """Copy a consistent snapshot of everything into FILE, from the first node that answers; writers go on.

    FILE must not exist. When it is cut off, the same command goes on where it ended, if the node still has that
    snapshot, and says so if not. The cluster's secrets are in it: it can be read by its owner only.

    \b
      raftkv backup shop.backup -a 10.0.0.2:7001
      raftkv backup --every 1h --keep 24 DIR      until SIGINT or SIGTERM; failures are said, and tried again
    """
    if (every_s is None) != (keep is None):
        raise click.UsageError("--every and --keep go together")
    if every_s is not None and keep is not None:
        make_regularly(target, file, every_s, keep, lambda path: make_one(target, path, rate, age_s, stale))
        return
    left = f"what was copied is in {file}.part, and the same command goes on from there; the cluster is as it was"
    made = target.run(lambda: make_one(target, file, rate, age_s, stale), None, left)
    if target.as_json:
        print_json(value_of(made))
        return
    if made.begun_anew:
        click.echo("an earlier try was begun anew: the node does not have its snapshot any more", err=True)
    if made.resumed_bytes:
        click.echo(f"taken up where an earlier try had ended, at {size_of(made.resumed_bytes)}", err=True)
    click.echo(f"{file}: {made.snapshot.id} of the cluster {_cluster(made)}, {size_of(made.size)}")


def make_regularly(target: Target, directory: str, every_s: float, keep: int, make: Make) -> None:
    """Make backups until SIGINT or SIGTERM."""

    async def work() -> None:
        stop, loop = asyncio.Event(), asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, stop.set)
        await RegularBackups(directory, every_s, keep, make, click.echo).run(stop)

    target.run(work, None)


def _cluster(made: Backup) -> str:
    return made.head.cluster_name or made.head.cluster_id


async def make_one(target: Target, file: str, rate: int, age_s: float, stale: bool) -> Backup:
    """Make one backup, with a bar on stderr if that is a terminal. Raises as `Admin.backup`."""
    async with target.admin() as admin:
        with bar("taking a snapshot") as shown:

            def show(state: Backup) -> None:
                what = f"node {state.head.node_id}, entry {state.snapshot.id}"
                shown.show(Stand(what, state.done_bytes, state.total_bytes, True))

            return await admin.backup(
                file, deadline_s=target.timeout_s, rate_bytes_s=rate, age_s=age_s, stale=stale, progress=show
            )


class BackupShown(msgspec.Struct, frozen=True, kw_only=True):
    """What a backup is, for JSON."""

    cluster_id: str
    cluster_name: str
    node_id: NodeId
    index: Index
    term: Term
    digest: str
    """The state's, in hexadecimal."""
    log_time_ms: int
    made_ms: int
    machine: str
    version: int
    """The version of the application that is active in it; 0 when none is."""
    schema: str
    raftkv: str
    membership: Membership
    files: int
    content_bytes: int
    backup: str
    """Stands for this snapshot with all its files, in hexadecimal."""


def value_of(made: Backup) -> dict[str, Any]:
    """A backup that was made, for JSON."""
    extra = {"path": made.path, "bytes": made.size, "resumed_bytes": made.resumed_bytes, "begun_anew": made.begun_anew}
    return extra | msgspec.structs.asdict(head_value(SealedHead.seal(made.head)))


def head_value(found: SealedHead) -> BackupShown:
    """The same of the file's head."""
    head, snapshot = found.head, found.snapshot
    return BackupShown(
        cluster_id=head.cluster_id,
        cluster_name=head.cluster_name,
        node_id=head.node_id,
        index=snapshot.index,
        term=snapshot.term,
        digest=f"{snapshot.digest:016x}",
        log_time_ms=snapshot.time_ms,
        made_ms=head.made_ms,
        machine=head.machine,
        version=head.version,
        schema=head.schema,
        raftkv=head.raftkv,
        membership=snapshot.membership,
        files=len(found.manifest.files),
        content_bytes=found.manifest.total_bytes,
        backup=found.digest.hex(),
    )


@backup.command()
@click.argument("file", type=click.Path(), metavar="FILE")
@json_option
def show(file: str, as_json: bool) -> None:
    """Print what a backup is: its cluster, entry, time and machine. Reads its head only."""
    with errors_reported(as_json):
        found = read_head(RealDisk(), file)
    if as_json:
        print_json(head_value(found))
    else:
        show_head(found)


def show_head(found: SealedHead) -> None:
    """Print what a backup is, for people."""
    head, snapshot = found.head, found.snapshot
    version = f"version {head.version} of {head.machine}" if head.version else head.machine
    lines = {
        "cluster": f"{head.cluster_name or '(name not known)'}, id {head.cluster_id}",
        "entry": f"{snapshot.id}, digest {snapshot.digest:016x}",
        "members": snapshot.membership.describe(),
        "log time": time_text(snapshot.time_ms),
        "made": f"{time_text(head.made_ms)} by node {head.node_id}, raftkv {head.raftkv}",
        "machine": version + (f", schema {head.schema}" if head.schema else ""),
        "content": f"{len(found.manifest.files)} files, {size_of(found.manifest.total_bytes)}",
        "backup": found.digest.hex(),
    }
    console = make_console()
    for name, text in lines.items():
        console.print(f"{name:9}{text}", markup=False)


def time_text(time_ms: int) -> str:
    """A time for people, in UTC."""
    try:
        return datetime.datetime.fromtimestamp(time_ms / 1000, datetime.UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    except (OverflowError, ValueError, OSError):
        return f"{time_ms} ms after 1970"


@backup.command()
@click.argument("file", type=click.Path(), metavar="FILE")
@click.option("--deep", is_flag=True, help="Also unpack the database into a scratch directory, and read every key.")
@json_option
def verify(file: str, deep: bool, as_json: bool) -> None:
    """Check a backup: every byte against its checksums. Exit code 1 when it is damaged or cut short."""
    left = f"{file} is as it was, and nothing is known of what was not read"
    with errors_reported(as_json), interruptible(left, as_json=as_json):
        try:
            with reading_shown(f"reading {file}", bytes_in(file)) as on_read:
                disk = WatchedDisk(on_read, file)
                found = verify_deeply(file, disk) if deep else check_backup(disk, file)
        except SnapshotCorruption as exc:
            if as_json:
                print_json({"path": file, "sound": False, "problems": [str(exc)]})
            else:
                click.echo(str(exc), err=True)
            sys.exit(1)
    if as_json:
        print_json({"path": file, "sound": True, "problems": []} | msgspec.structs.asdict(head_value(found)))
    else:
        click.echo(f"sound: {found.snapshot.id} of the cluster {found.head.cluster_name or found.head.cluster_id}")


def verify_deeply(file: str, disk: Disk) -> SealedHead:
    """Check every byte, open the database in a copy, and compare it with what the backup says that it is.

    The copy takes as much space as the backup, beside it. Raises `SnapshotCorruption`, and what `check_backup` raises.
    """
    parent = os.path.dirname(os.path.abspath(file))
    if not os.path.isdir(parent):
        raise InvalidArgument(f"{file}: there is no such file")
    with tempfile.TemporaryDirectory(prefix=".raftkv-verify-", dir=parent) as scratch:
        inside = os.path.join(scratch, "state")
        found = unpack_backup(disk, file, inside)
        if problems := content_problems(file, found.manifest, inspect_state(inside)):
            raise SnapshotCorruption("; ".join(problems))
    return found
