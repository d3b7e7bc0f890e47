"""Reads everything back from every node and says whether the promise was kept."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from raftkv.cli.demo.load import PREFIX, Ledger, counter_key
from raftkv.cli.demo.stage import DemoStage
from raftkv.client import Client
from raftkv.kv import Item, KeyValue, Page
from raftkv.kv.model import PAGE_ITEMS_MAX
from raftkv.machine import prefix_end
from raftkv.model import Index, NodeId
from raftkv.node.status import NodeStatus


class Readback(msgspec.Struct, kw_only=True):
    """How one node's data compares with the writes that were acknowledged."""

    node_id: NodeId
    read: int = 0
    missing: list[str] = []
    """Acknowledged, and not there."""
    different: list[str] = []
    """There with another value."""
    invented: list[str] = []
    """There, although nobody wrote it."""
    miscounted: list[str] = []
    """Counters that show an increment lost, or applied twice."""
    applied_index: Index = 0
    digest: str = ""

    @property
    def is_whole(self) -> bool:
        return not (self.missing or self.different or self.invented or self.miscounted)


async def read_back(stage: DemoStage, ledger: Ledger, rested: Sequence[NodeStatus]) -> list[Readback]:
    """Compare every node with the ledger. Stale reads, as they are answered by the node itself, from its own state."""
    return [await _read_node(stage, ledger, status) for status in rested]


async def _read_node(stage: DemoStage, ledger: Ledger, status: NodeStatus) -> Readback:
    address = stage.cluster.nodes[status.node_id].member.client_address
    found = Readback(node_id=status.node_id, applied_index=status.applied_index, digest=status.digest)
    client = Client(KeyValue, [address])
    try:
        items = await _items(client, status.applied_index)
        compare(ledger, items, found)
        for number in range(len(ledger.increments)):
            compare_counter(ledger, number, await _counter(client, number), found)
    finally:
        await client.close()
    return found


async def _items(client: Client[KeyValue], index: Index) -> dict[bytes, bytes]:
    """Everything that the writers wrote, as a node has it at `index` or later."""
    items: dict[bytes, bytes] = {}
    start: bytes | None = PREFIX
    method = client.method("range")
    while start is not None:
        arguments = (start, prefix_end(PREFIX), PAGE_ITEMS_MAX)
        read = await client.invoke_stale(method, arguments, {}, client.options.deadline_s)
        assert read.index >= index, f"a node went back from {index} to {read.index}"
        page: Page = read.value
        items.update((item.key, item.value) for item in page.items)
        start = page.next
    return items


async def _counter(client: Client[KeyValue], number: int) -> int:
    read = await client.invoke_stale(client.method("get"), (counter_key(number),), {}, client.options.deadline_s)
    item: Item | None = read.value
    return int(item.value) if item is not None else 0


def compare(ledger: Ledger, items: dict[bytes, bytes], found: Readback) -> None:
    """Note in `found` what a node with these `items` lacks, has otherwise, or made up."""
    found.read = len(items)
    for key, value in ledger.acknowledged.items():
        if key not in items:
            found.missing.append(key.decode())
        elif items[key] != value:
            found.different.append(key.decode())
    for key, value in items.items():
        if key not in ledger.acknowledged and ledger.unknown.get(key) != value:
            found.invented.append(key.decode())


def compare_counter(ledger: Ledger, number: int, counter: int, found: Readback) -> None:
    """Note in `found` when a writer's counter can't be explained by its increments."""
    least = ledger.increments[number]
    most = least + ledger.unknown_increments[number]
    if not least <= counter <= most:
        expected = str(least) if least == most else f"{least} to {most}"
        found.miscounted.append(f"{counter_key(number).decode()} is {counter} instead of {expected}")


def same_state(readbacks: Sequence[Readback]) -> bool:
    """Whether all nodes have the same digest at the same index."""
    return len({(found.applied_index, found.digest) for found in readbacks}) == 1
