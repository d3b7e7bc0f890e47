"""Whole ranges of the key-value service: `export`, `import`, `count`, and `delete` of more than one key."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from typing import Any, BinaryIO

import click

from raftkv.cli.common import Target, cluster_command
from raftkv.cli.keys import to_bytes
from raftkv.cli.output import print_json, size_of, write_unbuffered
from raftkv.cli.progress import Stand, bar, stderr
from raftkv.cli.records import FORMATS, Format, Record, RecordError, next_after, whole_records
from raftkv.cli.standard import check_open
from raftkv.disk.advice import advice
from raftkv.errors import DiskError, InvalidArgument, RaftKVError
from raftkv.kv import Delete, Item, KeyValueClient, Page, Put
from raftkv.kv.model import PAGE_ITEMS_MAX
from raftkv.machine import prefix_end
from raftkv.transport.threads import DaemonThreads

BATCH_KEYS = 128
BATCH_BYTES = 256 << 10
"""What one transaction writes at most; far below what a command may have, unless one value is larger."""
AT_ONCE = 64
"""Keys that are tried at once with --if-absent."""

Bounds = tuple[bytes, bytes | None]


def bounds_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options that say which keys are meant."""
    for option in (
        click.option("--hex", "as_hex", is_flag=True, help="Keys are given in hexadecimal."),
        click.option(
            "--range",
            "range_",
            nargs=2,
            metavar="START END",
            help='From START (included) to END (excluded); "" is the first key, or behind the last.',
        ),
        click.option("--prefix", metavar="PREFIX", help="Only keys that begin with it."),
    ):
        command = option(command)
    return command


def read_bounds(prefix: str | None, range_: tuple[str, str] | None, as_hex: bool) -> Bounds:
    """Which keys are meant; all when neither is given. Raises `InvalidArgument`."""
    if prefix is not None and range_ is not None:
        raise InvalidArgument("give one of --prefix and --range")
    if range_ is not None:
        return to_bytes(range_[0], as_hex), to_bytes(range_[1], as_hex) or None
    start = to_bytes(prefix or "", as_hex)
    return start, prefix_end(start)


format_option = click.option(
    "--format",
    "format_name",
    type=click.Choice(list(FORMATS)),
    default="jsonl",
    show_default=True,
    help="JSON lines, or pairs of bytes in MessagePack.",
)


async def pages(kv: Any, start: bytes, end: bytes | None) -> AsyncIterator[Page]:
    """All pages of a range; `kv` is a client (each page at its own index) or a view (all at one)."""
    at: bytes | None = start
    while at is not None:
        page = await kv.range(at, end, limit=PAGE_ITEMS_MAX)
        yield page
        at = page.next


@asynccontextmanager
async def read_from(target: Target, one_index: bool) -> AsyncIterator[Any]:
    """A client, or a view of the state at one index: what `pages` reads."""
    async with target.key_value() as kv:
        if not one_index:
            yield kv
            return
        async with kv.at_one_index() as view:
            yield view


class Tally:
    """What was done so far, and the last key that is certainly done."""

    def __init__(self) -> None:
        self.keys = self.bytes = self.skipped = 0
        self.last: bytes | None = None
        self.ends: tuple[bytes, bytes] | None = None
        """The first and the last key of a range, where they were asked for."""

    def add(self, keys: int, size: int, last: bytes) -> None:
        self.keys += keys
        self.bytes += size
        self.last = last

    @property
    def expected(self) -> int | None:
        """About how many keys there are in all, by where the last one lies between both ends."""
        if self.ends is None or self.last is None or not self.keys:
            return None
        part = part_of(*self.ends, self.last)
        return None if part <= 0 else max(self.keys, round(self.keys / part))


def part_of(first: bytes, last: bytes, at: bytes) -> float:
    """How far a key lies between two others, from 0 to 1, as if all that may lie between them were there."""
    same = next((at for at, (one, two) in enumerate(zip(first, last, strict=False)) if one != two), None)
    same = min(len(first), len(last)) if same is None else same
    low, high, here = (int.from_bytes(key[same : same + 8].ljust(8, b"\0")) for key in (first, last, at))
    return 1.0 if high <= low else min(1.0, max(0.0, (here - low) / (high - low)))


async def look_ahead(source: Any, start: bytes, end: bytes | None, tally: Tally) -> None:
    """Find both ends of a range, for a terminal that is to show how long it will take."""
    if stderr().is_terminal:
        first = (await source.range(start, end, limit=1)).items
        last = (await source.range(start, end, limit=1, reverse=True)).items
        if first and last:
            tally.ends = first[0].key, last[0].key


@contextmanager
def tallied(what: str, tally: Tally, file: BinaryIO | None = None) -> Iterator[Callable[[], None]]:
    """A bar on a terminal, as long as the range, or as the `file` that is read; call what it gives after each step."""
    size = os.fstat(file.fileno()).st_size if file is not None and file.seekable() else 0

    def stand() -> Stand:
        if file is not None and size:
            return Stand(what, file.tell(), size, True)
        return Stand(what, tally.keys, tally.expected, unit="keys")

    with bar(what) as shown:
        yield lambda: shown.show(stand())


RESUME = "Go on with the same command and --resume"
"""How an export into a file goes on, also where not one page of keys was done: some of them may be in it."""


def go_on_behind(last: bytes | None) -> str:
    """How an import goes on behind the last key that was set."""
    return "" if last is None else f"Go on with --after {last.hex()}"


@contextmanager
def going_on(tally: Tally, how: Callable[[bytes | None], str]) -> Iterator[None]:
    """When it fails or is cut off, say what was done, and how to go on behind the last key, if there is a way."""
    try:
        yield
    except (RaftKVError, asyncio.CancelledError, KeyboardInterrupt):
        click.echo(f"{tally.keys} keys were done. {how(tally.last)}".rstrip(". "), err=True)
        raise


@click.command("export")
@click.argument("file", type=click.Path(), metavar="FILE")
@bounds_options
@format_option
@click.option("--resume", is_flag=True, help="Go on behind the last whole record in FILE.")
@click.option("--one-index", is_flag=True, help="All of the state at one index; fails when it is gone meanwhile.")
@cluster_command(timeout_s=30.0)
def export(
    target: Target,
    file: str,
    prefix: str | None,
    range_: tuple[str, str] | None,
    as_hex: bool,
    format_name: str,
    resume: bool,
    one_index: bool,
) -> None:
    """Write keys and values into FILE (- for stdout), in order, a record each; writers go on.

    Each page of up to 1,000 keys is as it was at one index, later pages at later ones, unless --one-index is given.
    For a copy of everything at one index, with sessions and timers, make a backup.
    """
    start, end = read_bounds(prefix, range_, as_hex)
    chosen, tally = FORMATS[format_name], Tally()
    out, start = open_output(file, chosen, resume, start)
    writing: DaemonThreads[None] = DaemonThreads("raftkv-export", 1)
    """Whoever reads a pipe may take nothing more: Ctrl-C must not wait for that."""

    async def write(source: Any, show: Callable[[], None]) -> None:
        await look_ahead(source, start, end, tally)
        async for page in pages(source, start, end):
            records = [chosen.encode(item.key, item.value) for item in page.items]
            await writing.run(partial(write_all, out, file, records))
            if page.items:
                tally.add(len(records), sum(map(len, records)), page.items[-1].key)
            show()

    async def work() -> None:
        with tallied("exported", tally) as show, going_on(tally, lambda _: "" if file == "-" else RESUME):
            async with read_from(target, one_index) as source:
                await write(source, show)

    try:
        target.run(work, None, "what was exported stays in the file; the cluster is as it was")
    finally:
        close_output(out, file)
    report(target, {"keys": tally.keys, "bytes": tally.bytes}, f"exported {tally.keys} keys, {size_of(tally.bytes)}")


def report(target: Target, value: dict[str, Any], text: str) -> None:
    """What was done; on stderr, as stdout may be the export."""
    if target.as_json:
        print_json(value)
    else:
        click.echo(text, err=True)


def _own(file: str, flags: int) -> int:
    """A file that nobody but its owner can read, as a backup is: there may be anything in keys and values."""
    return os.open(file, flags, 0o600)


def open_output(file: str, chosen: Format, resume: bool, start: bytes) -> tuple[BinaryIO, bytes]:
    """Where to write, and from which key on. Raises `InvalidArgument`."""
    if file == "-":
        if resume:
            raise InvalidArgument("--resume needs a file: what went to stdout can't be looked at")
        check_open(1, "what is exported goes to stdout")
        return sys.stdout.buffer, start
    try:
        if not resume:
            # What a buffer held it would try to write again at the end.
            return open(file, "xb", buffering=0, opener=_own), start
        out = open(file, "r+b", buffering=0)  # noqa: SIM115
    except FileExistsError:
        raise InvalidArgument(f"{file} exists already: go on with --resume, or give another name") from None
    except OSError as exc:
        raise InvalidArgument(f"{file}: {exc.strerror}") from exc
    try:
        with open(file, "rb") as found:
            last, size = whole_records(found, chosen)
        out.truncate(size)
        out.seek(size)
    except RecordError as exc:
        out.close()
        raise InvalidArgument(f"{file} can't be gone on with: {exc}") from exc
    return out, start if last is None else max(start, next_after(last))


def write_all(out: BinaryIO, file: str, records: Iterable[bytes]) -> None:
    """Raises `DiskError` when they are not taken, and `BrokenPipeError` when nobody reads stdout any more."""
    with writing_to(file):
        write_unbuffered(out, b"".join(records))


def close_output(out: BinaryIO, file: str) -> None:
    """Make a file durable, as whoever exports may be about to delete. Raises `DiskError`."""
    if out is sys.stdout.buffer:
        return
    with out, writing_to(file):
        os.fsync(out.fileno())


@contextmanager
def writing_to(file: str) -> Iterator[None]:
    """Raises `DiskError` where the system does not take what is written, with what to do; a pipe's end stays as it is,
    which is no fault."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as exc:
        what, then = ("to stdout", "") if file == "-" else (file, ", then go on with --resume")
        raise DiskError(f"writing {what}: {exc.strerror or exc}; {advice(exc.errno)}{then}") from exc


@click.command("import")
@click.argument("file", type=click.Path(), metavar="FILE")
@format_option
@click.option("--if-absent", is_flag=True, help="Leave keys alone that are there already.")
@click.option("--after", metavar="HEX", help="Go on behind this key, in hexadecimal, as a try that failed has said.")
@cluster_command(timeout_s=30.0)
def import_(target: Target, file: str, format_name: str, if_absent: bool, after: str | None) -> None:
    """Set all keys that are in FILE (- for stdin), as `export` has written it. It may be repeated.

    Up to 128 keys at a time are set together, all or none (with --if-absent each by itself).
    """
    tally, behind = Tally(), None if after is None else to_bytes(after, True)
    reading: DaemonThreads[list[Record]] = DaemonThreads("raftkv-import", 1)
    """Whoever writes into a pipe may take his time: Ctrl-C must not wait for that."""

    async def work(source: BinaryIO) -> None:
        with tallied("imported", tally, source) as show, going_on(tally, go_on_behind):
            async with target.key_value() as kv:
                found = batches(records_of(source, FORMATS[format_name], behind))
                while batch := await reading.run(partial(next, found, [])):
                    if if_absent:
                        await put_absent(kv, batch, tally)
                    else:
                        await kv.transact([], [Put(key, value) for key, value in batch])
                    size = sum(len(key) + len(value) for key, value in batch)
                    tally.add(len(batch), size, batch[-1][0])
                    show()

    with opened_input(file) as source:
        target.run(lambda: work(source), None, "what was set stays; the batch that was under way may be set, too")
    put = tally.keys - tally.skipped
    text = f"imported {put} keys" + (f", {tally.skipped} were there already" if if_absent else "")
    report(target, {"imported": put, "skipped": tally.skipped}, text)


@contextmanager
def opened_input(file: str) -> Iterator[BinaryIO]:
    """A file to read, or stdin. Raises `InvalidArgument`."""
    if file == "-":
        check_open(0, "what to import comes from stdin")
        yield _own_stdin()
        return
    try:
        source = open(file, "rb")  # noqa: SIM115 (closed below)
    except OSError as exc:
        raise InvalidArgument(f"{file}: {exc.strerror}") from exc
    with source:
        yield source


def _own_stdin() -> BinaryIO:
    """Stdin with a buffer of its own, for whose lock the end of the process does not wait. Nobody closes it."""
    try:
        descriptor = os.dup(sys.stdin.fileno())
    except OSError:  # a test's, without a descriptor
        return sys.stdin.buffer
    return open(sys.stdin.name, "rb", opener=lambda *_: descriptor)


def records_of(file: BinaryIO, chosen: Format, behind: bytes | None) -> Iterator[Record]:
    """The records in a file. Raises `InvalidArgument`, which says where it is wrong."""
    try:
        for key, value in chosen.decode(file):
            if behind is None or key > behind:
                yield key, value
    except RecordError as exc:
        raise InvalidArgument(f"{getattr(file, 'name', 'the input')}: {exc}") from exc


def batches(records: Iterable[Record]) -> Iterator[list[Record]]:
    """Records for one transaction each."""
    batch: list[Record] = []
    size = 0
    for record in records:
        more = len(record[0]) + len(record[1])
        if batch and (len(batch) == BATCH_KEYS or size + more > BATCH_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(record)
        size += more
    if batch:
        yield batch


async def put_absent(kv: KeyValueClient, batch: list[Record], tally: Tally) -> None:
    """Set those keys that are not there; the first of several records of one key counts."""
    unique = dict(reversed(batch))
    items = list(unique.items())
    tally.skipped += len(batch) - len(items)
    for at in range(0, len(items), AT_ONCE):
        part = items[at : at + AT_ONCE]
        done = await asyncio.gather(*(kv.compare_and_set(key, None, value) for key, value in part))
        tally.skipped += done.count(False)


@click.command()
@bounds_options
@click.option("--one-index", is_flag=True, help="Count the state at one index; fails when it is gone meanwhile.")
@cluster_command(timeout_s=30.0)
def count(target: Target, prefix: str | None, range_: tuple[str, str] | None, as_hex: bool, one_index: bool) -> None:
    """Count keys, and the bytes of them and their values; all, or those that are meant.

    Reads page by page, each at its own index: what is written meanwhile counts or not, unless --one-index is given.
    """
    start, end = read_bounds(prefix, range_, as_hex)
    tally = Tally()

    async def read(source: Any, show: Callable[[], None]) -> None:
        await look_ahead(source, start, end, tally)
        async for page in pages(source, start, end):
            if page.items:
                tally.add(len(page.items), _bytes_of(page.items), page.items[-1].key)
            show()

    async def work() -> None:
        with tallied("counted", tally) as show:
            async with read_from(target, one_index) as source:
                await read(source, show)

    target.run(work, None, "nothing was changed")
    if target.as_json:
        print_json({"keys": tally.keys, "bytes": tally.bytes})
    else:
        click.echo(f"{tally.keys} keys, {size_of(tally.bytes)}")


def _bytes_of(items: list[Item]) -> int:
    return sum(len(item.key) + len(item.value) for item in items)


def delete_many(target: Target, start: bytes, end: bytes | None) -> int:
    """Delete all keys in a range, up to 128 at a time; returns how many there were. Each such step is all or nothing,
    the whole is not: it may be repeated."""
    tally = Tally()

    async def work() -> None:
        with (
            tallied("deleted", tally) as show,
            going_on(tally, lambda last: "" if last is None else "The same command goes on"),
        ):
            async with target.key_value() as kv:
                await look_ahead(kv, start, end, tally)
                async for page in pages(kv, start, end):
                    for at in range(0, len(page.items), BATCH_KEYS):
                        part = page.items[at : at + BATCH_KEYS]
                        done = await kv.transact([], [Delete(item.key) for item in part])
                        existed = sum(bool(result) for result in done.results)
                        tally.add(existed, _bytes_of(part), part[-1].key)
                        show()

    target.run(work, None, "what was deleted stays deleted; the step that was under way may be done, too")
    return tally.keys
