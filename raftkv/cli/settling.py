"""`raftkv config`: settings of nodes that run."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

import click
import msgspec
from rich.markup import escape
from rich.table import Table

from raftkv.cli.common import Target, cluster_command
from raftkv.cli.output import make_console, print_json
from raftkv.cli.settings import parse_setting
from raftkv.cli.view import look
from raftkv.errors import RaftKVError
from raftkv.model import NodeId
from raftkv.node.live import Setting, Value
from raftkv.spelling import meant

Values = Mapping[str, Value | None]

everywhere_option = click.option("--all", "everywhere", is_flag=True, help="On every member, one after the other.")


class Settings(msgspec.Struct, frozen=True):
    """What a node has, or why it does not say."""

    node_id: NodeId
    settings: list[Setting]
    error: str | None = None


@click.group()
def config() -> None:
    """Look at settings of nodes that run, and change them.

    Each node has settings of its own: the first node that answers is meant, or --all. What is set here counts at once,
    is kept in the node's data directory, and counts at its next starts too, but not over what these say themselves
    (flags, environment, file). The other settings of raftkv.config.Config are read at a start only.
    """


@config.command("set")
@click.argument("given", nargs=-1, required=True, metavar="NAME=VALUE…")
@everywhere_option
@cluster_command(timeout_s=10.0)
def set_values(target: Target, given: tuple[str, ...], everywhere: bool) -> None:
    """Change settings, such as snapshot_rate_bytes_s=8MiB; NAME=default: back to what the node's start says.

    All of one call are changed, or none. Exit code 2 for a value that is not allowed, 1 when a node of --all has not
    answered.
    """
    values: dict[str, Value | None] = {}
    for item in given:
        name, equals, text = item.partition("=")
        name = name.strip().replace("-", "_")
        value = None if text == "default" else parse_setting(name, text)
        if not equals or isinstance(value, str):
            raise click.UsageError(f"{item!r}: must be NAME=VALUE, with a number, a size such as 8MiB, true or false")
        values[name] = value
    _show(target, target.run(lambda: _ask(target, values, everywhere), "changing the settings"), set(values))


@config.command("get")
@click.argument("name", metavar="NAME")
@everywhere_option
@cluster_command(timeout_s=5.0)
def get_value(target: Target, name: str, everywhere: bool) -> None:
    """Show one setting, and where its value comes from."""
    found = target.run(lambda: _ask(target, {}, everywhere), "asking the nodes")
    name = name.replace("-", "_")
    known = {each.name for node in found for each in node.settings}
    if known and name not in known:
        there = f"those that may change are {', '.join(sorted(known))}"
        raise click.UsageError(f"{name}: no such setting; {there}{meant(name, known)}")
    _show(target, found, {name})


@config.command("list")
@everywhere_option
@cluster_command(timeout_s=5.0)
def list_values(target: Target, everywhere: bool) -> None:
    """Show all settings that may change while a node runs, and where each value comes from."""
    _show(target, target.run(lambda: _ask(target, {}, everywhere), "asking the nodes"), None)


async def _ask(target: Target, values: Values, everywhere: bool) -> list[Settings]:
    view = await look(target)
    if not everywhere:
        return [await _ask_one(target, target.addresses, values)]
    found = []
    for member in view.newest.membership.members:
        try:
            found.append(await _ask_one(target, [member.client_address], values))
        except RaftKVError as exc:
            if not any(node.node_id == member.node_id for node in view.nodes):
                found.append(Settings(member.node_id, [], str(exc)))
                continue
            raise  # it is there, and refuses
    return found


async def _ask_one(target: Target, addresses: list[str], values: Values) -> Settings:
    """The node at the first of these addresses that answers."""
    error: RaftKVError | None = None
    for address in addresses:
        async with target.admin(address) as admin:
            try:
                node_id = int((await admin.status(target.timeout_s / len(addresses)))["node_id"])
            except RaftKVError as exc:
                error = exc
                continue
            answer: list[dict[str, Any]] = await admin.settings(values, target.timeout_s)
            return Settings(node_id, msgspec.convert(answer, list[Setting]))
    assert error is not None
    raise error


def _show(target: Target, found: list[Settings], names: set[str] | None) -> None:
    found = [
        msgspec.structs.replace(node, settings=[each for each in node.settings if names is None or each.name in names])
        for node in found
    ]
    if target.as_json:
        print_json(found)
    else:
        table = Table(header_style="bold")
        for column in ("node", "setting", "value", "from", "at the next start"):
            table.add_column(column, no_wrap=True)
        for node in found:
            for each in node.settings:
                row = (each.name, _text(each.value), each.source, _text(_next(each)))
                table.add_row(str(node.node_id), *map(escape, row))
        make_console().print(table)
    for node in found:
        if node.error is not None:
            click.echo(f"node {node.node_id}: {node.error}", err=True)
    if any(node.error for node in found):
        sys.exit(1)


def _next(setting: Setting) -> Value:
    return setting.at_start if setting.wins_at_start else setting.value


def _text(value: Value) -> str:
    return str(value).lower() if isinstance(value, bool) else f"{value}"
