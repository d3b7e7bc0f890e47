"""A process that is many callers who read everything, page after page, for as long as nobody kills it.

    python -m tests.chaos.readers --callers 32 --client 127.0.0.1:7001

Every fourth of them reads everything at one index. Each line that it prints says what was read so far.
"""

from __future__ import annotations

import argparse
import asyncio
import sys

import msgspec

from raftkv.client import ClientOptions
from raftkv.errors import Busy, NotAccepted, RaftKVError, TooMuchWork, ViewExpired
from raftkv.kv import KeyValueClient
from tests.chaos.slowness import slowness

PREFIX = b"scanned/"

PAGE = 1000
"""Rows."""

DEADLINE_S = 20.0

EVERY_S = 0.2


class PagesRead(msgspec.Struct):
    """A line of the output."""

    pages: int = 0
    refused: int = 0
    """Answers that say that a page is too much, or too much now."""
    failure: str = ""
    """An error that no caller should see."""


async def read_on(addresses: list[str], at_one_index: bool, told: PagesRead) -> None:
    """Page after page, until there is an error."""
    options = ClientOptions(deadline_s=DEADLINE_S, connect_timeout_s=slowness())
    async with KeyValueClient(addresses, options=options) as kv:
        while not told.failure:
            try:
                if at_one_index:
                    async with kv.at_one_index() as view:
                        async for _ in view.items(PREFIX, page=PAGE):
                            pass
                    told.pages += 1
                    continue
                start: bytes | None = PREFIX
                while start is not None:
                    start = (await kv.range(start, None, limit=PAGE)).next
                    told.pages += 1
            except (Busy, NotAccepted, TooMuchWork, ViewExpired):
                told.refused += 1
            except RaftKVError as exc:
                told.failure = f"{type(exc).__name__}: {exc}"


async def report(told: PagesRead) -> None:
    """For ever."""
    while True:
        sys.stdout.write(msgspec.json.encode(told).decode() + "\n")
        sys.stdout.flush()
        await asyncio.sleep(EVERY_S)


async def read(addresses: list[str], callers: int) -> None:
    """All of them at once."""
    told = PagesRead()
    await asyncio.gather(report(told), *[read_on(addresses, number % 4 == 0, told) for number in range(callers)])


def main() -> None:
    """Read the command line, and then everything."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--callers", type=int, default=32)
    parser.add_argument("--client", action="append", required=True, metavar="HOST:PORT")
    options = parser.parse_args()
    asyncio.run(read(options.client, options.callers))


if __name__ == "__main__":
    main()
