"""`raftkv watch`: the changes of a table, set, or stream of events, a line of JSON for each, as they are made."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Any

import click
import msgspec

from raftkv.cli.common import Target, cluster_command
from raftkv.cli.keys import key_codec, read_bounds
from raftkv.cli.output import json_line, write_unbuffered
from raftkv.cli.own import json_field, opened, schema_of
from raftkv.client.watching import Pages
from raftkv.errors import InvalidArgument
from raftkv.history import Asked, Compacted, Cursor, Recorded
from raftkv.machine import Change, StateMachine
from raftkv.machine.schema import PartSchema
from raftkv.transport.threads import DaemonThreads

LAST_LINE_S = 1.0
"""After Ctrl-C, what is being printed may come to its end within this time, so that no line is cut off."""


@click.command()
@click.argument("name")
@click.option("--prefix", metavar="KEY", help="Only rows whose keys begin with it; of a tuple, some leading parts.")
@click.option("--from", "start", metavar="KEY", help="From this key on.")
@click.option("--to", "end", metavar="KEY", help="Up to this key, without it.")
@click.option("--after", metavar="CURSOR", help="Go on behind this change; 0 begins with the oldest that is kept.")
@click.option("--old", is_flag=True, help="Print the values before as well.")
@click.option("--limit", "-n", type=click.IntRange(1), help="End after so many changes.  [default: never]")
@cluster_command()
def watch(
    target: Target,
    name: str,
    prefix: str | None,
    start: str | None,
    end: str | None,
    after: str | None,
    old: bool,
    limit: int | None,
) -> None:
    """Print what changes in the table NAME, or the events of that name, as it happens: a line of JSON for each change.

    It begins behind all that was acknowledged before, or behind --after. A line has the `cursor` to go on behind, the
    log's time, key and value, or `"deleted": true`. Bytes in a key or value are text where all of them are UTF-8; where
    they are not, the field is called `key_base64`, `value_base64` or `old_base64`, and has all of them in base64, as
    `raftkv export` does it. KEY is as for `raftkv tables`. It goes on through elections; exit code 1 when changes are
    not kept any more that were to be printed.
    """
    if prefix is not None and (start is not None or end is not None):
        raise click.UsageError("give --prefix, or --from and --to")
    cursor = None if after is None else Cursor.parse(after)
    printing: DaemonThreads[None] = DaemonThreads("raftkv-watch", 1)
    """Whoever reads a pipe may take nothing more: Ctrl-C must not wait for that."""

    async def work() -> None:
        left = limit
        async with opened(target, StateMachine) as client:
            part = (await schema_of(client, target)).parts.get(name)
            if part is None or part.kind == "value":
                raise InvalidArgument(f"the machine has no table, set or events {name!r}: see `raftkv tables`")
            rows = _rows(name, part, (prefix, start, end), old)
            async for pages in _behind(partial(client.pages, rows, read=_reader(part)), cursor):
                printed = await _print(pages, lambda change: json_line(_shown(part, change, old)), left, printing)
                left = None if left is None else left - printed
                if left == 0:
                    return

    target.run(work, None, "nothing was changed; --after with the last cursor goes on behind it")


async def _behind(
    source: Callable[[Cursor | None], Pages[Any, Any]], cursor: Cursor | None
) -> AsyncIterator[Pages[Any, Any]]:
    """Pages with the changes behind a cursor, to be taken out of them. Whoever names the beginning asks for the oldest
    that is kept, wherever that is by now; of all others nothing is left out. Raises as `Watch`."""
    pages, has_begun = source(cursor), cursor is None or cursor.index > 0
    while True:
        try:
            await pages.more()
        except Compacted as exc:
            if has_begun:
                raise
            pages = source(exc.oldest)  # which may be gone by now as well
            continue
        has_begun = True
        yield pages


async def _print(
    pages: Pages[Any, Any],
    line: Callable[[Change[Any, Any]], bytes],
    limit: int | None,
    printing: DaemonThreads[None],
) -> int:
    """Print the changes that are there, up to a limit; returns how many. Raises as `Pages.take`, once those before it
    are printed."""
    lines: list[bytes] = []
    try:
        while pages.left and len(lines) != limit:
            lines.append(line(pages.take()))
    finally:
        if lines:
            await _write(b"".join(lines), printing)
    return len(lines)


async def _write(data: bytes, printing: DaemonThreads[None]) -> None:
    written = printing.run(partial(write_unbuffered, sys.stdout.buffer, data))
    try:
        await asyncio.shield(written)
    except asyncio.CancelledError:
        await asyncio.wait([written], timeout=LAST_LINE_S)
        raise


def _rows(name: str, part: PartSchema, words: tuple[str | None, str | None, str | None], old: bool) -> Asked:
    if part.key is not None:
        low, high = read_bounds(part.key, *words)
        return Asked(name, start=low, end=high, old=old)
    if any(word is not None for word in words):
        raise InvalidArgument(f"{name} are events, which have no keys: leave out --prefix, --from and --to")
    return Asked(name, old=old)


def _reader(part: PartSchema) -> Callable[[Recorded], Change[Any, Any]]:
    codec = None if part.key is None else key_codec(part.key)

    def read(recorded: Recorded) -> Change[Any, Any]:
        value, old = (None if data is None else msgspec.msgpack.decode(data) for data in (recorded.value, recorded.old))
        return Change(
            cursor=recorded.cursor,
            time_ms=recorded.time_ms,
            key=None if codec is None else codec.decode(recorded.key),
            value=value,
            old=old,
            deleted=recorded.value is None,
        )

    return read


def _shown(part: PartSchema, change: Change[Any, Any], old: bool) -> dict[str, Any]:
    shown: dict[str, Any] = {"cursor": str(change.cursor), "time_ms": change.time_ms}
    if part.key is not None:
        shown |= json_field("key", change.key)
    if change.deleted:
        shown["deleted"] = True
    elif part.kind != "set":
        shown |= json_field("value", change.value)
    if old:
        shown |= json_field("old", change.old)
    return shown
