"""Calls of parts that are wrong: each line with a mark must be found."""

from whole import Mixed, Whole
from whole_typed import AwaitedWhole, BlockingWhole, LocalWhole

from raftkv import BlockingClient, Client, LocalMachine, Part, StateMachine


class Other(StateMachine):
    none = Part(StateMachine)  # bad


async def awaited(client: Client[Whole], mixed: Client[Mixed]) -> None:
    await client.call(Whole.left.mark, 1)  # bad
    await client.call(Whole.left.mark)  # bad
    await client.call(Whole.left.mark, "a", "b")  # bad
    await client.call(Whole.left.mrk, "a")  # bad
    await client.call(Whole.middle.mark, "a")  # bad
    client.call(Whole.left.mark, "a")  # bad
    text: str = await client.call(Whole.left.mark, "a")  # bad
    await client.stale(Whole.right.marked, 1)  # bad
    await mixed.call(Mixed.mark, 1)  # bad
    await client.wait_until(Whole.left.marked, 1, until=bool)  # bad
    async with AwaitedWhole(client) as whole:
        await whole.left.mark(1)  # bad
        await whole.middle.mark("a")  # bad
        whole.left.mark("a")  # bad
        await whole.left.mark.stale("a")  # bad


def blocking(client: BlockingClient[Whole], machine: LocalMachine[Whole]) -> None:
    client.call(Whole.left.mark, 1)  # bad
    text: str = machine.call(Whole.right.mark, "a")  # bad
    BlockingWhole(client).left.mark(1)  # bad
    LocalWhole(machine).right.marked(1)  # bad
