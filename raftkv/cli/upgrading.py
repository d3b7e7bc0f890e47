"""`raftkv upgrade`: makes a version of the application active, and says before what would come of a new class."""

from __future__ import annotations

import sys
from contextlib import AbstractAsyncContextManager

import click

from raftkv.cli.common import Target, WithDefault, cluster_command
from raftkv.cli.following import followed
from raftkv.cli.output import make_console, print_json
from raftkv.cli.own import opened
from raftkv.cli.progress import Bar, Stand
from raftkv.cli.upgradecheck import UpgradeCheck, check_upgrade
from raftkv.cli.view import informed, look
from raftkv.doctor import ClusterView
from raftkv.machine import SCHEMA, StateMachine, runs
from raftkv.server.process import find_machine

LOOK_S = 0.5


@click.group(cls=WithDefault, default="now")
def upgrade() -> None:
    """Make a newer version of the application active, or see before what would come of it.

    \b
      raftkv upgrade check MODULE:CLASS      what would be refused, and what happens in which order
      raftkv upgrade [--to VERSION]          makes a version active (short for `upgrade now`)
    """


@upgrade.command()
@click.option(
    "--to",
    "version",
    type=click.IntRange(1),
    metavar="VERSION",
    help="The version to make active.  [default: the newest that the leader's class runs]",
)
@cluster_command(timeout_s=300.0)
def now(target: Target, version: int | None) -> None:
    """Make a newer version of the application active, and wait until its upgrades are done.

    For nodes that were started with auto_upgrade=false, which wait for this; and for trying again an upgrade that has
    failed. All members must run a class of that version and be connected. There is no way back to an older version.
    Exit code 3 while it is refused, with the node that is behind, or what the upgrade has raised.
    """

    async def work() -> int:
        async with target.admin() as admin, _pieces_shown(target):
            return await admin.upgrade(version, target.timeout_s)

    left = "once it has begun, the upgrade goes on to its end, and can't be taken back: see raftkv status"
    active = target.run(work, None, left)
    if target.as_json:
        print_json({"active": active})
    else:
        click.echo(f"version {active} is active")


def _pieces_shown(target: Target) -> AbstractAsyncContextManager[None]:
    """Show on a terminal how many pieces of an upgrade are done."""

    def show(shown: Bar, view: ClusterView) -> None:
        if (stand := pieces_done(view)) is not None:
            shown.show(stand)

    return followed(target, "upgrading the application", show, LOOK_S)


def pieces_done(view: ClusterView) -> Stand | None:
    """How far an upgrade is; nobody knows how many pieces it will be. None when none is under way."""
    versions = view.leader.versions if view.leader is not None else None
    if versions is None or not versions.left:
        return None
    return Stand(f"upgrading to version {versions.active} ({versions.left[0]})", versions.steps, None, unit="pieces")


@upgrade.command()
@click.argument("machine", metavar="MODULE:CLASS")
@cluster_command(timeout_s=10.0)
def check(target: Target, machine: str) -> None:
    """Say what would come of running MODULE:CLASS on the nodes, before any is stopped; nothing is changed.

    Compares what the class declares with the version that is active, and the formats and protocol of this raftkv with
    those of all nodes. Run it where the new class and the new raftkv are installed. Exit code 0 when the upgrade can
    begin, 1 when something would be refused.
    """
    own = find_machine(machine)

    async def work() -> UpgradeCheck:
        view = await look(target)
        is_same = all(node.machine.partition("/")[0] == own.__name__ for node in view.nodes)
        is_active = view.newest.versions is not None and view.newest.versions.active > 0
        declared = None
        if is_same and is_active and view.leader is not None:
            async with opened(informed(target, view), StateMachine) as client:
                declared = await client.invoke(SCHEMA, (), {}, target.timeout_s)
        return check_upgrade(view, own, declared)

    found = target.run(work, "comparing the class with the cluster", "nothing was changed")
    if target.as_json:
        print_json(found)
    else:
        _print(found)
    if not found.is_fit:
        sys.exit(1)


def _print(found: UpgradeCheck) -> None:
    console = make_console()

    def say(text: str) -> None:
        console.print(text, markup=False, soft_wrap=True)

    active = f"version {found.active} is active" if found.active else "no version is active yet"
    say(f"this class of {found.machine} runs {runs(found.oldest, found.newest)}; {active}")
    for node in found.nodes:
        formats = ", ".join(f"{name} {version}" for name, version in node.formats.items()) or "formats not told"
        versions = runs(node.oldest, node.newest) if node.newest else "versions not told"
        say(f"node {node.node_id} ({node.role}): {versions}, raftkv {node.raftkv}, {formats}")
    for text in found.notes:
        say(f"note: {text}")
    for text in found.refused:
        say(f"REFUSED: {text}")
    for number, text in enumerate(found.order, 1):
        say(f"{number}. {text}")
    for text in found.then:
        say(f"then: {text}")
    if found.is_fit:
        say("nothing is in the way")
