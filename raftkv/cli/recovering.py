"""`raftkv recover`: what a survivor of a lost majority has, which one has most, and how it goes on alone."""

from __future__ import annotations

import contextlib
import posixpath
import shlex
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import click
import msgspec
from rich.markup import escape
from rich.table import Table

from raftkv.cli.backups import time_text
from raftkv.cli.offline import ReadOnlyDisk
from raftkv.cli.output import errors_reported, make_console, print_json
from raftkv.cli.progress import bar, interruptible, reading_shown
from raftkv.cli.snapshots import json_option
from raftkv.cli.watched import WatchedDisk, bytes_in
from raftkv.disk import Disk, RealDisk
from raftkv.errors import InvalidArgument
from raftkv.node import World
from raftkv.node.paths import Paths
from raftkv.node.recovering import Regained, begun, regain
from raftkv.node.survivors import Comparison, Survivor, compare, has_all, is_majority, look_at


@click.command()
@click.argument("directories", type=click.Path(), nargs=-1, required=True, metavar="DIR…")
@click.option(
    "--compare", "is_comparing", is_flag=True, help="Say which of several survivors has most; change nothing."
)
@click.option("--i-accept-loss", "accepts", is_flag=True, help="Go on alone, without what only lost nodes had.")
@click.option("--cluster-name", metavar="NAME", help="The cluster's name (or id), typed, to show that it is this one.")
@click.option("--auth-off", is_flag=True, help="Nobody has to sign in to the new cluster; its users stay.")
@json_option
def recover(
    directories: tuple[str, ...],
    is_comparing: bool,
    accepts: bool,
    cluster_name: str | None,
    auth_off: bool,
    as_json: bool,
) -> None:
    """For when the majority is lost FOR GOOD: let the node whose data is in DIR go on alone, as a new cluster.

    As long as a majority of the disks can be had, start those nodes instead: then nothing is lost. Without
    --i-accept-loss this only shows what the node has, what may be missing, and who else might be alive.

    \b
      raftkv recover --compare DIR DIR …                            which survivor has most
      raftkv recover DIR                                            what it has
      raftkv recover DIR --i-accept-loss --cluster-name NAME        do it
      raftkv serve --node-id N --data-dir DIR                       then start it, without --member,
      raftkv member add …                                           and add new nodes, under new ids

    With --auth-off also for when nobody can sign in any more: whoever reaches the new cluster may do everything, until
    raftkv auth on. Then stop all nodes, and recover the one that --compare calls best.

    The new cluster has another id: old nodes and old clients are refused for ever. The directory's old content is kept
    in it, under a name that is printed.
    """
    with errors_reported(as_json), interruptible(_left(directories), as_json=as_json):
        disk = RealDisk()
        if is_comparing:
            _show_comparison(compare(_looked_at_all(directories)), as_json)
            return
        if len(directories) > 1:
            raise InvalidArgument("recover one directory; to see which: raftkv recover --compare DIR DIR …")
        directory = directories[0].rstrip("/") or "/"
        if (unfinished := begun(disk, directory)) is not None:
            _check_accepted(unfinished.cluster_name, unfinished.old_cluster_id, accepts, cluster_name, must=True)
            if auth_off and not unfinished.auth_off:
                raise InvalidArgument("this recovery was begun without --auth-off: go on without, then recover it anew")
            _show_done(regain(World.real(), directory, nothing_lost=unfinished.nothing_lost), directory, as_json)
            return
        (survivor,) = _looked_at_all([directory])
        if not (accepts or as_json):
            _show(survivor)
        if _check_accepted(survivor.cluster_name, survivor.cluster_id, accepts, cluster_name, must=False):
            if not auth_off and is_majority(survivor.membership, [survivor.node_id]):
                raise InvalidArgument("this node is a majority by itself, so nothing needs to be given up: start it")
            nothing_lost = has_all(survivor.membership, [survivor.node_id])
            with bar("building the new cluster beside the old content"):
                done = regain(World.real(), directory, nothing_lost=nothing_lost, auth_off=auth_off)
            _show_done(done, directory, as_json)
        elif as_json:
            print_json(survivor_value(survivor))


def _check_accepted(name: str, cluster_id: str, accepts: bool, typed: str | None, *, must: bool) -> bool:
    """Whether the operator has accepted the loss, of this cluster. Raises `InvalidArgument` for half a consent."""
    if not accepts and typed is None and not must:
        return False
    if not accepts or typed is None:
        raise InvalidArgument(
            "both are needed: --i-accept-loss, and --cluster-name with the cluster's name. Nothing was changed"
        )
    if typed not in (name, cluster_id) or not typed:
        raise InvalidArgument(
            f"{typed!r} is not this cluster's name: it is the cluster {name or cluster_id}. Nothing was changed"
        )
    return True


def _left(directories: Sequence[str]) -> Callable[[], str]:
    """What Ctrl-C leaves behind: all as it was, or an exchange of the content that goes on with the next call."""

    def left() -> str:
        for directory in directories:
            if begun(RealDisk(), directory.rstrip("/") or "/") is not None:
                return f"the content of {directory} is being exchanged: the same command goes on with it"
        return "no node's data was changed"

    return left


def _looked_at_all(directories: Sequence[str]) -> list[Survivor]:
    """What each has. Nothing is opened to be written."""
    with reading_shown("reading the logs", sum(bytes_in(f"{each}/log") for each in directories)) as on_read:
        return [_looked_at(ReadOnlyDisk(WatchedDisk(on_read)), each) for each in directories]


def _looked_at(disk: Disk, directory: str) -> Survivor:
    with _unused(disk, directory.rstrip("/") or "/"):
        return look_at(disk, directory)


@contextlib.contextmanager
def _unused(disk: Disk, directory: str) -> Iterator[None]:
    """Hold the directory's lock: a node that runs is no survivor to be looked at like this."""
    path = Paths(directory).lock
    if not disk.exists(path):
        yield
        return
    lock = disk.lock(path)
    try:
        yield
    finally:
        lock.release()


def survivor_value(survivor: Survivor) -> dict[str, Any]:
    """What a survivor has, for JSON."""
    value: dict[str, Any] = msgspec.to_builtins(survivor)
    return value | {
        "has_all": has_all(survivor.membership, [survivor.node_id]),
        "is_majority": is_majority(survivor.membership, [survivor.node_id]),
        "others": survivor.others,
    }


def _show(survivor: Survivor) -> None:
    console = make_console()

    def say(name: str, text: str) -> None:
        console.print(f"{name:12}{text}", markup=False)

    say("node", f"{survivor.node_id} of the cluster {survivor.cluster_name or '(name not known)'}")
    say("cluster id", survivor.cluster_id)
    say("machine", survivor.machine or "(not known)")
    if survivor.lineage is not None:
        say("lineage", survivor.lineage.describe())
    end = f"last {survivor.last_index}@{survivor.last_term}, of {time_text(survivor.last_time_ms)}"
    say("log", f"entries {survivor.first_index} to {survivor.last_index}, {end}")
    say("committed", f"certainly up to entry {survivor.committed_index}, perhaps more")
    say("members", survivor.membership.describe())
    for each in survivor.others:
        known = (
            f"met here (its start number {survivor.met[each.node_id]})"
            if each.node_id in survivor.met
            else ("never met here")
        )
        say("", f"node {each.node_id} at {each.peer_address}: {known}; is it gone FOR GOOD?")
    if survivor.torn_at is not None:
        say("torn", "the last write to its log was cut off by a crash; nobody was told of what was in it")
    for problem in survivor.problems:
        say("PROBLEM", problem)
    for line in missing_lines(survivor):
        console.print(line, markup=False)
    name = survivor.cluster_name or survivor.cluster_id
    command = shlex.join(["raftkv", "recover", survivor.path, "--i-accept-loss", "--cluster-name", name])
    console.print(f"Nothing was changed. To go on alone: {command}", markup=False, soft_wrap=True)


def missing_lines(survivor: Survivor) -> list[str]:
    """What going on with this survivor alone may lose, in words."""
    if is_majority(survivor.membership, [survivor.node_id]):
        return ["It is a majority by itself: nothing needs to be recovered. Start it."]
    if has_all(survivor.membership, [survivor.node_id]):
        return [
            "Nothing that was acknowledged can be missing: the other voters are no majority without this one.",
            "Entries at the end that nobody was told of become part of the state.",
        ]
    return [
        "What may be missing: whatever the other voters have acknowledged without this one. It certainly has "
        f"everything up to entry {survivor.committed_index}; what it has behind that, up to {survivor.last_index}, "
        f"may be all or not, and of what came after {time_text(survivor.last_time_ms)} it has nothing.",
        "If the disk of any other member can be read, compare first: raftkv recover --compare DIR DIR …",
    ]


def _show_comparison(found: Comparison, as_json: bool) -> None:
    if as_json:
        print_json(
            {
                "survivors": [survivor_value(each) for each in found.survivors],
                "best": found.best.path if found.best is not None else None,
                "is_majority": found.is_majority,
                "has_all": found.has_all,
                "advice": advice(found),
            }
        )
        return
    table = Table(header_style="bold")
    for column in ("directory", "node", "last entry", "of", "committed", "verdict"):
        table.add_column(column, no_wrap=True)
    for each in found.survivors:
        verdict = "[red]damaged[/]" if each.problems else "" if each.is_member else "[red]no member[/]"
        if each is found.best:
            verdict = "[bold]best[/]"
        if each.torn_at is not None:
            verdict += " (torn end)"
        last = f"{each.last_index}@{each.last_term}"
        table.add_row(
            escape(each.path),
            str(each.node_id),
            last,
            time_text(each.last_time_ms),
            str(each.committed_index),
            verdict.strip(),
        )
    make_console().print(table)
    for each in found.survivors:
        for problem in each.problems:
            click.echo(f"node {each.node_id}: {problem}", err=True)
    click.echo(advice(found))


def advice(found: Comparison) -> str:
    """Which survivor to choose, and why."""
    best = found.best
    if best is None:
        return "none of them is sound: a damaged one may still start with --rebuild once others run; keep all files"
    if found.is_majority:
        return "do not recover: these nodes are a majority. Start them, and nothing is lost"
    why = "the highest last term, and of those the longest log" if len(found.survivors) > 1 else "the only one"
    lost = (
        "nothing that was acknowledged is missing in it, as the lost voters are no majority without these"
        if found.has_all
        else "what only lost nodes have is missing in it"
    )
    return f"choose node {best.node_id} ({best.path}): it has {why}; {lost}"


def _show_done(done: Regained, directory: str, as_json: bool) -> None:
    if as_json:
        print_json(done)
        return
    number = posixpath.basename(done.kept_in).rpartition("-")[2]
    gone = ", ".join(map(str, done.new_members.removed))
    lines = [
        f"{directory}: node {done.node_id} is a cluster of its own now, id {done.new_cluster_id}",
        f"it has every entry up to {done.last_index}@{done.last_term}, of {time_text(done.last_time_ms)}",
        "nothing that was acknowledged is missing"
        if done.nothing_lost
        else f"what was acknowledged behind entry {done.applied_index} without this node is lost",
        f"the old content is in {done.kept_in}; a report in {posixpath.join(directory, f'recovery-{number}.json')}",
        f"to undo it before the node was started: remove everything in {directory} but {done.kept_in}, and move what "
        "is in that back",
        f"next: raftkv serve --node-id {done.node_id} --data-dir {directory}, without --member; then add nodes"
        + (f" under new ids (those of {gone} never come back)" if gone else ""),
    ]
    if done.auth_off:
        lines.append("whoever reaches it may do everything: give passwords (raftkv user passwd), then raftkv auth on")
    for line in lines:
        click.echo(line)
