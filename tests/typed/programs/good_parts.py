"""Calls of parts that are right."""

from whole import Marks, Mixed, Whole
from whole_typed import AwaitedWhole, BlockingWhole, LocalWhole

from raftkv import BlockingClient, Client, LocalMachine


async def awaited(client: Client[Whole], mixed: Client[Mixed]) -> None:
    number: int = await client.call(Whole.left.mark, "a", 2)
    known: bool = (await client.stale(Whole.right.marked, "a")).value
    known = (await client.within(1).read(Whole.right.marked, key="a")).value
    number = await mixed.call(Mixed.mark, "a") + await mixed.call(Marks.mark, "a")
    async with AwaitedWhole(client) as whole:
        number = await whole.left.mark("a", by=2) + await whole.both("a")
        known = (await whole.right.marked.stale("a")).value
    async with client as remote:
        number = await remote.call(Whole.left.mark, "a")
    known = await client.wait_until(Whole.left.marked, "a", until=bool) or await client.poll(
        Whole.right.marked, "a", unlike=False
    )
    print(number, known)


def blocking(client: BlockingClient[Whole], machine: LocalMachine[Whole]) -> None:
    number: int = client.call(Whole.left.mark, "a") + machine.call(Whole.right.mark, "a")
    with BlockingWhole(client) as whole:
        number += whole.left.mark.within(1)("a")
    print(number, LocalWhole(machine).right.marked("a"))
