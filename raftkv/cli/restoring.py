"""`raftkv restore`: begins a new cluster with a backup."""

from __future__ import annotations

import os
from typing import Any

import click
import msgspec

from raftkv.cli.admin import NODE_ID, members_given
from raftkv.cli.backups import show_head, time_text
from raftkv.cli.output import errors_reported, print_json
from raftkv.cli.progress import interruptible, reading_shown
from raftkv.cli.snapshots import json_option
from raftkv.cli.watched import WatchedDisk, bytes_in
from raftkv.disk import RealDisk
from raftkv.errors import InvalidArgument
from raftkv.machine import runs
from raftkv.model import Member, NodeId
from raftkv.node import World
from raftkv.node.restoring import Restored, RestorePlan, restore
from raftkv.node.status import seconds_text
from raftkv.server.process import find_machine
from raftkv.snapshot.backup import BackupHead, read_head


@click.command("restore")
@click.argument("file", type=click.Path(), metavar="FILE")
@click.option("--data-dir", type=click.Path(), required=True, metavar="DIR", help="What to make: not there, or empty.")
@click.option("--node-id", "--id", "node_id", type=NODE_ID, required=True, help="This founder's number.")
@click.option(
    "--member",
    "members",
    multiple=True,
    required=True,
    callback=members_given,
    metavar="ID=PEER/CLIENT",
    help="A founder of the new cluster; repeat it for each of them, the same on all.",
)
@click.option("--cluster-name", required=True, metavar="NAME", help="What the new cluster is called; the same on all.")
@click.option("--machine", metavar="MODULE:CLASS", help="Refuse a backup that this class can't run.")
@click.option("--auth-off", is_flag=True, help="Nobody has to sign in to the new cluster; its users stay.")
@json_option
def restore_command(
    file: str,
    data_dir: str,
    node_id: NodeId,
    members: tuple[Member, ...],
    cluster_name: str,
    machine: str | None,
    auth_off: bool,
    as_json: bool,
) -> None:
    """Begin a NEW cluster with a backup: make the data directory of one of its founders from FILE.

    Run it for each founder, with the same FILE, --member and --cluster-name; then start them. Or restore one founder
    alone, and add the others with `raftkv member add`. The new cluster has an id of its own: no node and no client of
    the old one gets in, and none of the new one gets into the old one. What was written after the backup is not in it.
    With --auth-off (said for all founders, or none) whoever reaches it may do everything, until raftkv auth on.

    \b
      raftkv restore a.backup --data-dir /var/lib/raftkv --id 1 --cluster-name shop-2 \\
        --member 1=10.0.0.1:8001/10.0.0.1:7001
      raftkv serve --node-id 1 --data-dir /var/lib/raftkv
    """
    with errors_reported(as_json), interruptible(lambda: _left(data_dir), as_json=as_json):
        found = read_head(RealDisk(), file)
        if machine is not None:
            check_machine(found.head, machine)
        plan = RestorePlan(
            node_id=node_id, data_dir=data_dir, members=members, cluster_name=cluster_name, auth_off=auth_off
        )
        with reading_shown("checking, then unpacking", 2 * bytes_in(file)) as on_read:
            made = restore(msgspec.structs.replace(World.real(), disk=WatchedDisk(on_read, file)), file, plan)
    if as_json:
        print_json(restored_value(made))
        return
    show_head(found)
    click.echo(f"{made.data_dir}: node {node_id} of the new cluster {cluster_name}, id {made.founding.cluster_id}")
    click.echo(said_of_time(made))
    click.echo(f"next: the same for each other founder, then raftkv serve --node-id {node_id} --data-dir {data_dir} …")


def _left(data_dir: str) -> str:
    """What Ctrl-C leaves behind: it is all or nothing."""
    if os.path.isdir(data_dir) and os.listdir(data_dir):
        return f"{data_dir} is complete already, and can be started"
    return f"there is nothing in {data_dir}; what was begun beside it is removed, by the next try at the latest"


def check_machine(head: BackupHead, machine: str) -> None:
    """Raises `InvalidArgument` when a class can't run what is in a backup."""
    own = find_machine(machine)
    if own.__name__ != head.machine:
        raise InvalidArgument(
            f"the backup is of the state machine {head.machine}, not of {own.__name__}, which would read it as "
            "something else: give the right class (--machine), or another backup"
        )
    if head.version and not own.oldest_version <= head.version <= own.version:
        raise InvalidArgument(
            f"version {head.version} of {head.machine} is active in the backup, and this class "
            f"{runs(own.oldest_version, own.version)}: restore it with a class that runs that one, then upgrade"
        )


def restored_value(made: Restored) -> dict[str, Any]:
    """What was made, for JSON."""
    return {
        "data_dir": made.data_dir,
        "cluster_id": made.founding.cluster_id,
        "cluster_name": made.founding.name,
        "lineage": made.founding.lineage,
        "index": made.snapshot.index,
        "term": made.snapshot.term,
        "digest": f"{made.snapshot.digest:016x}",
        "membership": made.snapshot.membership,
        "log_time_ms": made.snapshot.time_ms,
        "clock_behind_ms": made.clock_behind_ms,
    }


def said_of_time(made: Restored) -> str:
    """What becomes of timers and sessions, in words."""
    log_time = time_text(made.snapshot.time_ms)
    if made.clock_behind_ms > 0:
        return (
            f"log time goes on from {log_time}, which is {seconds_text(made.clock_behind_ms)} AHEAD of this machine's "
            "clock: it stands still until then, and so do timers and sessions. If that time was wrong: "
            "raftkv clock reset, once the cluster runs"
        )
    return (
        f"log time goes on from {log_time}: the {seconds_text(-made.clock_behind_ms)} since then pass at once with the "
        "first entry. Scheduled commands that were due meanwhile run then, and sessions that are too old end"
    )
