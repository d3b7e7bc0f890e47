"""The commands of the key-value service: put, get, delete, cas, range, prefix, increment, txn."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable
from typing import Any, BinaryIO

import click

from raftkv.cli.bulk import bounds_options, delete_many, read_bounds
from raftkv.cli.common import Target, cluster_command, page_by_page
from raftkv.cli.keys import to_bytes
from raftkv.cli.output import print_json
from raftkv.cli.standard import check_open
from raftkv.cli.txn import parse_transaction, result_value, show_result
from raftkv.errors import InvalidArgument
from raftkv.kv import Item, Page
from raftkv.kv.model import PAGE_ITEMS_MAX
from raftkv.machine import prefix_end

hex_option = click.option("--hex", "as_hex", is_flag=True, help="Keys and values are given and printed in hexadecimal.")


def to_text(value: bytes, as_hex: bool) -> str:
    """Bytes as text for people; bytes that are no UTF-8 are escaped."""
    return value.hex() if as_hex else value.decode("utf-8", "backslashreplace")


def to_line(value: bytes, as_hex: bool) -> str:
    """Bytes as part of a line. Tabs, line ends, control characters and backslashes are escaped, so that a script can
    tell where a key ends, and no value can look like another line."""
    text = to_text(value.replace(b"\\", b"\\\\"), as_hex)
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)


def item_value(item: Item, as_hex: bool) -> dict[str, Any]:
    """An item for JSON; `encoding` says how key and value are to be read."""
    try:
        key, value, encoding = item.key.decode(), item.value.decode(), "utf-8"
    except UnicodeDecodeError:
        as_hex = True
    if as_hex:
        key, value, encoding = item.key.hex(), item.value.hex(), "hex"
    stamp = item.stamp
    return {
        "key": key,
        "value": value,
        "encoding": encoding,
        "created_index": stamp.created_index,
        "changed_index": stamp.changed_index,
        "version": stamp.version,
    }


def read_value(value: str | None, file: Any, as_hex: bool) -> bytes:
    """A value from the argument, else from `--file`, else from stdin."""
    if value is not None and file is not None:
        raise InvalidArgument("a value was given twice: as an argument, and with --file")
    if value is not None:
        return to_bytes(value, as_hex)
    if file is None and sys.stdin.isatty():
        raise InvalidArgument("no value: give it as an argument, with --file, or on stdin")
    if file is None:
        check_open(0, "the value comes from stdin, as there is none in the command and no --file")
    source: BinaryIO = file if file is not None else sys.stdin.buffer
    data = source.read()
    return to_bytes(data.decode("ascii", "replace"), True) if as_hex else data


def print_answer(target: Target, good: bool, value: Any, text: str) -> None:
    """Print the result of a command, and exit with 1 when it is negative, such as a missing key."""
    if target.as_json:
        print_json(value)
    elif text:
        click.echo(text, err=not good)
    if not good:
        sys.exit(1)


@click.command()
@click.argument("key")
@click.argument("value", required=False)
@click.option("--file", "-f", type=click.File("rb"), help="Read the value from this file (- for stdin).")
@hex_option
@cluster_command()
def put(target: Target, key: str, value: str | None, file: Any, as_hex: bool) -> None:
    """Set KEY to VALUE (or to what comes from --file or stdin).

    When it returns, the value is on the disks of a majority of the nodes. A value that begins with a dash goes
    behind two of them: raftkv put KEY -- -5
    """
    name, content = to_bytes(key, as_hex), read_value(value, file, as_hex)

    async def work() -> Any:
        async with target.key_value() as kv:
            return await kv.put(name, content)

    stamp = target.run(work, f"putting {key}")
    value_of = {"created_index": stamp.created_index, "changed_index": stamp.changed_index, "version": stamp.version}
    print_answer(target, True, value_of, f"ok, at index {stamp.changed_index}, version {stamp.version}")


@click.command()
@click.argument("key")
@click.option("--stale", is_flag=True, help="Ask any node, which may be behind, at the index that --json shows.")
@click.option("--output", "-o", type=click.File("wb"), help="Write the exact bytes into this file (- for stdout).")
@hex_option
@cluster_command()
def get(target: Target, key: str, stale: bool, output: Any, as_hex: bool) -> None:
    """Print the value of KEY; exit with 1 when there is none."""
    name = to_bytes(key, as_hex)

    async def work() -> tuple[Item | None, int | None]:
        async with target.key_value() as kv:
            if stale:
                read = await kv.get_stale(name)
                return read.value, read.index
            return await kv.get(name), None

    item, index = target.run(work, f"getting {key}")
    read_at = {} if index is None else {"read_index": index}
    if item is None:
        return print_answer(target, False, {"key": key, "value": None, **read_at}, f"no key {key}")
    if output is not None:
        try:
            output.write(item.value)
            output.close()
        except OSError as exc:
            raise InvalidArgument(f"can't write {output.name}: {exc.strerror}") from exc
        return None
    return print_answer(target, True, {**item_value(item, as_hex), **read_at}, to_text(item.value, as_hex))


@click.command()
@click.argument("key", required=False)
@bounds_options
@cluster_command()
def delete(target: Target, key: str | None, prefix: str | None, range_: tuple[str, str] | None, as_hex: bool) -> None:
    """Delete KEY, and exit with 1 when there was none; or all keys with a prefix or in a range.

    Of many keys, up to 128 at a time are deleted together, all or none; what is written meanwhile may stay. When it is
    cut off, the same command goes on.
    """
    many = prefix is not None or range_ is not None
    if (key is None) != many:
        raise click.UsageError("give a KEY, or one of --prefix and --range")
    if prefix == "":
        raise click.UsageError('an empty prefix would mean every key; if you do mean that: --range "" ""')
    if key is None:
        deleted_count = delete_many(target, *read_bounds(prefix, range_, as_hex))
        print_answer(target, True, {"deleted": deleted_count}, f"{deleted_count} keys deleted")
        return
    name = to_bytes(key, as_hex)

    async def work() -> bool:
        async with target.key_value() as kv:
            return await kv.delete(name)

    deleted = target.run(work, f"deleting {key}")
    print_answer(target, deleted, {"deleted": deleted}, "ok" if deleted else f"no key {key}")


@click.command()
@click.argument("key")
@click.argument("value", required=False)
@click.option("--if-value", metavar="OLD", help="Only if KEY has exactly this value.")
@click.option("--if-absent", is_flag=True, help="Only if there is no KEY.")
@click.option("--delete", "deletes", is_flag=True, help="Delete KEY instead of setting it.")
@click.option("--file", "-f", type=click.File("rb"), help="Read the new value from this file (- for stdin).")
@hex_option
@cluster_command()
def cas(
    target: Target,
    key: str,
    value: str | None,
    if_value: str | None,
    if_absent: bool,
    deletes: bool,
    file: Any,
    as_hex: bool,
) -> None:
    """Compare and set: set KEY to VALUE only if it is what you think; exit with 1 when it was not.

    \b
      raftkv cas lock me --if-absent
      raftkv cas lock --if-value me --delete
    """
    if (if_value is None) != if_absent:
        raise click.UsageError("give one of --if-value and --if-absent")
    if deletes and (value is not None or file is not None):
        raise click.UsageError("give a new value, or --delete")
    expected = None if if_value is None else to_bytes(if_value, as_hex)
    name, content = to_bytes(key, as_hex), None if deletes else read_value(value, file, as_hex)

    async def work() -> bool:
        async with target.key_value() as kv:
            return await kv.compare_and_set(name, expected, content)

    done = target.run(work, f"comparing {key}")
    print_answer(target, done, {"done": done}, "ok" if done else f"{key} is not what was expected; nothing was done")


@click.command(context_settings={"ignore_unknown_options": True})
@click.argument("key")
@click.argument("by", type=int, default=1)
@hex_option
@cluster_command()
def increment(target: Target, key: str, by: int, as_hex: bool) -> None:
    """Add BY (1, may be negative) to the counter at KEY, which starts at 0, and print its new value."""
    name = to_bytes(key, as_hex)

    async def work() -> int:
        async with target.key_value() as kv:
            return await kv.increment(name, by)

    counter = target.run(work, f"incrementing {key}")
    print_answer(target, True, {"counter": counter}, str(counter))


page_options = (
    click.option(
        "--limit", "-n", type=click.IntRange(1), default=100, show_default=True, help="Print at most so many."
    ),
    click.option("--keys-only", is_flag=True, help="Print no values."),
    click.option("--stale", is_flag=True, help="Ask any node, which may be behind; --json shows each page's index."),
    click.option(
        "--one-index", is_flag=True, help="Read all pages of the state at one index; fails when it is gone meanwhile."
    ),
    hex_option,
)


@click.command("range")
@click.argument("start", default="")
@click.argument("end", required=False)
@click.option("--reverse", is_flag=True, help="From the end backwards.")
@page_options[0]
@page_options[1]
@page_options[2]
@page_options[3]
@page_options[4]
@cluster_command()
def range_(
    target: Target,
    start: str,
    end: str | None,
    reverse: bool,
    limit: int,
    keys_only: bool,
    stale: bool,
    one_index: bool,
    as_hex: bool,
) -> None:
    """Print what lies from START (included; default: the first key) to END (excluded; default: behind the last).

    A line each, key and value separated by a tab; tabs, line ends, backslashes and the like in them are escaped.
    Exit code 0 even when there is none.
    """
    bound = None if end is None else to_bytes(end, as_hex)
    _print_range(target, to_bytes(start, as_hex), bound, reverse, limit, keys_only, stale, one_index, as_hex)


@click.command()
@click.argument("prefix")
@page_options[0]
@page_options[1]
@page_options[2]
@page_options[3]
@page_options[4]
@cluster_command()
def prefix(
    target: Target, prefix: str, limit: int, keys_only: bool, stale: bool, one_index: bool, as_hex: bool
) -> None:
    """Print all keys that begin with PREFIX, with their values, as `range` does."""
    start = to_bytes(prefix, as_hex)
    _print_range(target, start, prefix_end(start), False, limit, keys_only, stale, one_index, as_hex)


def _print_range(
    target: Target,
    start: bytes,
    end: bytes | None,
    reverse: bool,
    limit: int,
    keys_only: bool,
    stale: bool,
    one_index: bool,
    as_hex: bool,
) -> None:
    if stale and one_index:
        raise click.UsageError("give one of --stale and --one-index")
    fetch = _fetch_at_one_index if one_index else _fetch_stale if stale else _fetch
    page, indexes = target.run(lambda: fetch(target, start, end, reverse, limit), "reading the range")
    if target.as_json:
        values = [item_value(item, as_hex) for item in page.items]
        for value in values if keys_only else []:
            del value["value"]
        read_at = {"indexes": indexes} if stale or one_index else {}
        print_json({"items": values, "next": None if page.next is None else page.next.hex(), **read_at})
        return
    for item in page.items:
        shown = "" if keys_only else "\t" + to_line(item.value, as_hex)
        click.echo(to_line(item.key, as_hex) + shown)
    if page.next is not None:
        click.echo(f"(more {'below' if reverse else 'from'} {to_line(page.next, as_hex)}; see --limit)", err=True)


async def _fetch(target: Target, start: bytes, end: bytes | None, reverse: bool, limit: int) -> tuple[Page, list[int]]:
    """Read pages until there are `limit` items. Each page is read at its own index."""
    async with target.key_value() as kv:

        async def read(start: bytes, end: bytes | None, count: int) -> Page:
            return await kv.range(start, end, limit=count, reverse=reverse)

        return await _pages(read, start, end, reverse, limit), []


async def _fetch_stale(
    target: Target, start: bytes, end: bytes | None, reverse: bool, limit: int
) -> tuple[Page, list[int]]:
    """As `_fetch`, but stale, from any node; also returns the indexes of the pages."""
    indexes: list[int] = []
    async with target.key_value() as kv:

        async def read(start: bytes, end: bytes | None, count: int) -> Page:
            found = await kv.range_stale(start, end, limit=count, reverse=reverse)
            indexes.append(found.index)
            return found.value

        return await _pages(read, start, end, reverse, limit), indexes


async def _fetch_at_one_index(
    target: Target, start: bytes, end: bytes | None, reverse: bool, limit: int
) -> tuple[Page, list[int]]:
    """As `_fetch`, but all pages are of the state at one index, which is returned as well."""
    async with target.key_value() as kv, kv.at_one_index() as view:

        async def read(start: bytes, end: bytes | None, count: int) -> Page:
            return await view.range(start, end, limit=count, reverse=reverse)

        return await _pages(read, start, end, reverse, limit), [view.index]


async def _pages(
    read: Callable[[bytes, bytes | None, int], Awaitable[Page]],
    start: bytes,
    end: bytes | None,
    reverse: bool,
    limit: int,
) -> Page:
    async def some(start: bytes, end: bytes | None, count: int) -> tuple[list[Item], bytes | None]:
        page = await read(start, end, min(PAGE_ITEMS_MAX, count))
        return page.items, page.next

    return Page(*await page_by_page(some, start, end, reverse, limit))


@click.command()
@click.argument("lines", nargs=-1, metavar="[LINE]...")
@click.option("--file", "-f", type=click.File("r"), help="Read the lines from this file (- for stdin).")
@hex_option
@cluster_command()
def txn(target: Target, lines: tuple[str, ...], file: Any, as_hex: bool) -> None:
    """A transaction: if all conditions hold the operations are done, else those behind "else"; all or nothing.

    Each LINE is a condition or an operation, with words quoted as in a shell; exit with 1 when a condition
    did not hold.

    \b
      if exists KEY            put KEY VALUE           else put KEY VALUE
      if missing KEY           delete KEY              else delete KEY
      if value KEY VALUE       increment KEY [BY]      else increment KEY [BY]
      if version KEY N         get KEY                 else get KEY
      if changed KEY INDEX

    \b
      raftkv txn 'if value stock/apple 3' 'put stock/apple 2' 'increment sold' 'else get stock/apple'
    """
    given = list(lines) + (file.read().splitlines() if file is not None else [])
    plan = parse_transaction(given, lambda text: to_bytes(text, as_hex))

    async def work() -> Any:
        async with target.key_value() as kv:
            return await kv.transact(plan.conditions, plan.then, plan.otherwise)

    done = target.run(work, "committing the transaction")
    operations = plan.then if done.succeeded else plan.otherwise
    results = list(zip(operations, done.results, strict=True))
    if target.as_json:
        values = [result_value(result, lambda item: item_value(item, as_hex)) for _, result in results]
        print_json({"succeeded": done.succeeded, "results": values})
    else:
        click.echo("the conditions hold" if done.succeeded else "a condition does not hold", err=not done.succeeded)
        for operation, result in results:
            click.echo(show_result(operation, result, lambda value: to_line(value, as_hex)))
    if not done.succeeded:
        sys.exit(1)
