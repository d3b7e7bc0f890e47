"""One's own machine from the command line: `call` its commands and queries, look into its `tables`."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Annotated, Any, get_args, get_origin

import click
import msgspec

from raftkv.cli.common import Target, cluster_command, page_by_page
from raftkv.cli.data import to_line, to_text
from raftkv.cli.keys import Bounds, key_codec, key_text, read_bounds
from raftkv.cli.output import print_json
from raftkv.client import Client, UnknownMethod
from raftkv.client.view import View
from raftkv.errors import InvalidArgument
from raftkv.machine import ROWS, SCHEMA, Method, Rows, StateMachine, decode_schema, mirrored
from raftkv.machine.schema import PartSchema, Schema
from raftkv.server.process import find_machine


@click.command(context_settings={"ignore_unknown_options": True})
@click.argument("method")
@click.argument("arguments", nargs=-1)
@click.option(
    "--machine",
    metavar="MODULE:CLASS",
    help="Take types and errors from this class.  [default: from the nodes]",
)
@click.option("--stale", is_flag=True, help="Ask any node, which may be behind, at the index that --json shows.")
@cluster_command()
def call(target: Target, method: str, arguments: tuple[str, ...], machine: str | None, stale: bool) -> None:
    """Call METHOD, a command or query of the state machine that the nodes run, and print what it returns.

    ARGUMENTS are in its order; the last ones may be left out where they have defaults. Texts and bytes are given as
    they are, all else as JSON (bytes in it in base64): raftkv call receive apple 3. One that begins with a dash goes
    behind two of them: raftkv call adjust apple -- -5

    A result is printed as text if it is one, or bytes alone; all else is JSON, as all of it is with --json. Bytes in
    JSON are in base64, and nothing there tells them from text: the type of the method's result does.

    Exit code 1 when the method itself rejects the call.
    """
    own = find_machine(machine) if machine is not None else StateMachine

    async def work() -> tuple[Any, int | None]:
        async with opened(target, own) as client:
            known = own.methods or mirrored(await schema_of(client, target))
            found = _find(known, method)
            if stale and not found.is_query:
                raise InvalidArgument(f"{method} is a command, which only the leader takes: leave out --stale")
            args = read_arguments(found, arguments)
            if not stale:
                return await client.invoke(found, args, {}, target.timeout_s), None
            read = await client.invoke_stale(found, args, {}, target.timeout_s)
            return read.value, read.index

    result, index = target.run(work, f"calling {method}")
    if target.as_json:
        print_json({"result": json_value(result), **({} if index is None else {"read_index": index})})
    else:
        click.echo(result_text(result))


def _find(known: dict[str, Method], name: str) -> Method:
    if (found := known.get(name)) is None:
        raise UnknownMethod(f"the machine has no command or query {name!r}; it has {', '.join(known) or 'none'}")
    return found


@contextlib.asynccontextmanager
async def opened(target: Target, machine: type[StateMachine]) -> AsyncIterator[Client[Any]]:
    """A client, until the end of the block."""
    client = Client(machine, target.addresses, options=target.options, ssl=target.ssl)
    async with client:
        yield client


async def schema_of(through: Client[Any] | View, target: Target) -> Schema:
    """What the active version declares. Raises as a call does."""
    try:
        data = await through.invoke(SCHEMA, (), {}, target.timeout_s)
    except InvalidArgument as exc:
        raise InvalidArgument(
            f"the nodes can't tell what their machine declares, as their raftkv is older ({exc}): install this one "
            "there; `raftkv call` can do without, with --machine MODULE:CLASS"
        ) from exc
    return decode_schema(data)


def read_arguments(method: Method, texts: tuple[str, ...]) -> tuple[Any, ...]:
    """Arguments as they are typed: texts and bytes as they are, all else as JSON. Raises `InvalidArgument`."""
    types = method.types
    if len(texts) > len(types):
        raise InvalidArgument(f"{method.describe()}: {len(texts)} arguments were given, it takes {len(types)}")
    given = zip(types.items(), texts, strict=False)
    return tuple(_argument(f"{method.describe()}: {name}", kind, text) for (name, kind), text in given)


def _argument(where: str, kind: Any, text: str) -> Any:
    plain = get_args(kind)[0] if get_origin(kind) is Annotated else kind
    if plain is str:
        return text
    if plain is bytes:
        return text.encode("utf-8", "surrogateescape")
    try:
        return msgspec.json.decode(text.encode("utf-8", "surrogateescape"), type=kind)
    except msgspec.MsgspecError as exc:
        try:
            return msgspec.convert(text, kind, strict=False)  # a date, or a text where something else may stand
        except msgspec.ValidationError:
            raise InvalidArgument(f"{where} = {text!r} must be JSON of its type: {exc}") from None


def json_value(value: Any) -> Any:
    """A result for JSON: records as objects, bytes in base64; what JSON has no form for, as Python shows it."""
    try:
        return msgspec.json.decode(msgspec.json.encode(value))
    except (TypeError, ValueError):
        return repr(value)


def json_field(name: str, value: Any) -> dict[str, Any]:
    """A key or value as a field of a JSON object: bytes in it as text if all of them are UTF-8, or else all of them in
    base64, in a field that has `_base64` behind its name."""
    try:
        return {name: json_value(_as_text(value))}
    except UnicodeDecodeError:
        return {f"{name}_base64": json_value(value)}


def _as_text(value: Any) -> Any:
    """The same with text for bytes. Raises `UnicodeDecodeError` when some are no UTF-8.

    One call for each value within another, so that all that a row may hold fits on the stack: comprehensions are calls
    too before Python 3.12.
    """
    match value:
        case bytes():
            return value.decode()
        case list() | tuple():
            items = list(value)
            for place, each in enumerate(items):
                items[place] = _as_text(each)
            return items
        case dict():
            made = {}
            for key, each in value.items():
                made[_as_text(key)] = _as_text(each)
            return made
        case _:
            return value


def result_text(result: Any) -> str:
    """A result for people: text as it is, all else as JSON."""
    match result:
        case None:
            return "ok"
        case str():
            return result
        case bytes():
            return to_text(result, False)
    return msgspec.json.encode(json_value(result)).decode()


@click.command()
@click.argument("name", required=False)
@click.option("--prefix", metavar="KEY", help="Only rows whose keys begin with it; of a tuple, some leading parts.")
@click.option("--from", "start", metavar="KEY", help="From this key on.")
@click.option("--to", "end", metavar="KEY", help="Up to this key, without it.")
@click.option("--limit", "-n", type=click.IntRange(1), default=100, show_default=True, help="Print at most so many.")
@click.option("--reverse", is_flag=True, help="From the end backwards.")
@click.option("--keys-only", is_flag=True, help="Print no values.")
@cluster_command()
def tables(
    target: Target,
    name: str | None,
    prefix: str | None,
    start: str | None,
    end: str | None,
    limit: int,
    reverse: bool,
    keys_only: bool,
) -> None:
    """Print the tables and single values of the state machine that the nodes run, or the rows of table NAME.

    A line for each row: key and value, as JSON, separated by a tab. All are of the state at one index, which --json
    shows, and are read page by page. KEY is text, a number, or of a tuple a JSON array such as '["a", 3]'. Bytes in
    keys and values are in base64, also with --json, and nothing in a row tells them from text: the types do, which
    `raftkv tables` prints.
    """
    given = {"--prefix": prefix, "--from": start, "--to": end}
    if name is None and any(value is not None for value in given.values()):
        raise click.UsageError("name the table to which --prefix, --from or --to belong")
    if prefix is not None and (start is not None or end is not None):
        raise click.UsageError("give --prefix, or --from and --to")
    if name is None:
        _print_tables(target)
    else:
        _print_rows(target, name, (prefix, start, end), limit, reverse, keys_only)


@contextlib.asynccontextmanager
async def _viewed(target: Target) -> AsyncIterator[View]:
    """The state at one index."""
    async with opened(target, StateMachine) as client:
        view = await client.open_view(target.timeout_s)
        try:
            yield view
        finally:
            await view.close()


def _print_tables(target: Target) -> None:
    async def work() -> tuple[int, Schema, dict[str, Any]]:
        async with _viewed(target) as view:
            schema = await schema_of(view, target)
            values = {}
            for name, part in schema.parts.items():
                if part.kind == "value":
                    values[name] = (await _page(view, target, name, (b"", None), 1, False)).rows[0][1]
            return view.index, schema, values

    index, schema, values = target.run(work, "reading what the machine declares")
    if target.as_json:
        parts = [_described(name, part, values) for name, part in schema.parts.items()]
        print_json({"machine": schema.machine, "version": schema.version, "index": index, "tables": parts})
        return
    for name, part in schema.parts.items():
        if part.kind == "events":
            click.echo(f"{name}: events of {part.value}")
        elif part.key is None:
            click.echo(f"{name}: {part.value} = {result_line(values[name])}")
        else:
            click.echo(f"{name}: {part.key}" + ("" if part.kind == "set" else f" → {part.value}"))


def _described(name: str, part: PartSchema, values: dict[str, Any]) -> dict[str, Any]:
    if part.kind == "events":
        return {"name": name, "kind": part.kind, "type": str(part.value)}
    if part.key is None:
        return {"name": name, "kind": part.kind, "type": str(part.value), "value": json_value(values[name])}
    return {"name": name, "kind": part.kind, "key": str(part.key), "type": str(part.value)}


def _print_rows(
    target: Target,
    name: str,
    words: tuple[str | None, str | None, str | None],
    limit: int,
    reverse: bool,
    keys_only: bool,
) -> None:
    async def work() -> tuple[int, PartSchema, Rows]:
        async with _viewed(target) as view:
            part = _part(await schema_of(view, target), name)
            bounds = (b"", None) if part.key is None else read_bounds(part.key, *words)
            return view.index, part, await _rows(view, target, name, bounds, limit, reverse)

    index, part, found = target.run(work, f"reading {name}")
    only_keys = keys_only or part.kind == "set"
    following = None if part.key is None or found.next is None else key_text(key_codec(part.key), found.next)
    if target.as_json:
        rows = [{"key": json_value(key), "value": json_value(value)} for key, value in found.rows]
        for row in rows if only_keys else []:
            del row["value"]
        print_json({"table": name, "index": index, "rows": rows, "next": following})
        return
    for key, value in found.rows:
        words_of = ([] if part.key is None else [result_line(key)]) + ([] if only_keys else [result_line(value)])
        click.echo("\t".join(words_of))
    if found.next is not None:
        click.echo(f"(more {'below' if reverse else 'from'} {following}; see --limit)", err=True)


def result_line(value: Any) -> str:
    """A key or a value as part of a line: text as it is, all else as JSON, nothing that ends the line."""
    if isinstance(value, bytes):
        return to_line(value, False)
    return to_line((value if isinstance(value, str) else result_text(value)).encode("utf-8", "replace"), False)


def _part(schema: Schema, name: str) -> PartSchema:
    if (part := schema.parts.get(name)) is None:
        known = ", ".join(schema.parts) or "none"
        raise InvalidArgument(f"{schema.machine} has no table or value {name!r}; it has {known}")
    if part.kind == "events":
        raise InvalidArgument(f"{name} is a stream of events, which is in the history of changes and in no table")
    return part


async def _rows(view: View, target: Target, name: str, bounds: Bounds, limit: int, reverse: bool) -> Rows:
    async def some(start: bytes, end: bytes | None, count: int) -> tuple[list[tuple[Any, Any]], bytes | None]:
        page = await _page(view, target, name, (start, end), count, reverse)
        return page.rows, page.next

    return Rows(*await page_by_page(some, *bounds, reverse, limit))


async def _page(view: View, target: Target, name: str, bounds: Bounds, limit: int, reverse: bool) -> Rows:
    found: Rows = await view.invoke(ROWS, (name, *bounds, limit, reverse), {}, target.timeout_s)
    return found
