"""An application with several versions, and what stories do with clusters whose nodes run different ones."""

from __future__ import annotations

import msgspec

from raftkv.machine import StateMachine, Table, Value, command, query, upgrade
from raftkv.machine.payloads import decode_command
from raftkv.model import EntryKind
from raftkv.testing import elapse


def called(name):
    """The class is of that application, whatever Python calls it."""

    def rename(cls):
        cls.__name__ = name
        return cls

    return rename


class Item(msgspec.Struct):
    """What is on a shelf."""

    count: int


class Tagged(msgspec.Struct):
    """The same, as of version 2."""

    count: int
    tags: list[str] = []


@called("Shop")
class Shop1(StateMachine):
    """The first version."""

    stock = Table(str, Item)

    @command
    def put(self, name: str, count: int) -> int:
        """Set it; returns how many kinds there are."""
        self.stock[name] = Item(count)
        return sum(1 for _ in self.stock)

    @query
    def all(self) -> dict[str, int]:
        """What there is."""
        return {name: item.count for name, item in self.stock.items()}


@called("Shop")
class Shop2(StateMachine):
    """The second: a field, a table, a command and an argument more, and `put` adds."""

    version = 2

    stock = Table(str, Tagged)
    orders = Table(str, int, since=2)

    @command
    def put(self, name: str, count: int, tag: str = "") -> int:
        """Set it, or as of version 2 add to it; returns how many kinds there are."""
        item = self.stock.get(name, Tagged(0))
        before = item.count if self.version >= 2 else 0
        self.stock[name] = Tagged(before + count, [*item.tags, tag] if tag else item.tags)
        return sum(1 for _ in self.stock)

    @command(since=2)
    def order(self, name: str, count: int) -> int:
        """What is to come."""
        self.orders[name] = self.orders.get(name, 0) + count
        return self.orders[name]

    @query
    def all(self) -> dict[str, int]:
        """What there is."""
        return {name: item.count for name, item in self.stock.items()}

    @query(since=2)
    def tags(self, name: str) -> list[str]:
        """Of one."""
        return self.stock[name].tags


@called("Shop")
class Shop3(Shop2):
    """The third goes through all that there is, two at a time."""

    version = 3

    seen = Value(int, 0, since=3)

    @upgrade(to=3)
    def mark(self, after: str | None) -> str | None:
        """Tag everything once."""
        last = None
        for name, item in list(self.stock.range(after, limit=3)):
            if name == after:
                continue
            self.stock[name] = Tagged(item.count, [*item.tags, "seen"])
            self.seen += 1
            last = name
        return last


def active(cluster):
    """The versions that are active on the nodes, in their order."""
    return [node.applier.runner.active.version for node in cluster.running]


async def run(cluster, machine, *node_ids):
    """Start these nodes (or all) anew with that class, one after the other; each is caught up before the next."""
    for node_id in node_ids or cluster.nodes:
        sim = cluster.nodes[node_id]
        if sim.is_up:
            await sim.stop()
        sim.machine = machine
        await sim.start()
        await cluster.until_leader()
        await cluster.until_equal()


async def until_active(cluster, version):
    """Wait until every node has it, and all of its upgrades are done."""

    def is_done():
        kept = [node.applier.runner.active.kept for node in cluster.running]
        return len(kept) == len(cluster.nodes) and all(
            each is not None and each.version == version and not each.left for each in kept
        )

    await cluster.until(is_done, 30, f"version {version} on all nodes")
    await cluster.until_equal()


async def lead(cluster, node_id):
    """Have that node lead, and let it look around."""
    if cluster.leader.node_id != node_id:
        await cluster.leader.orders.transfer_leadership(node_id)
    await cluster.until(lambda: cluster.leader is not None and cluster.leader.node_id == node_id, 30)
    await elapse(0.5)
    return cluster.leader


def commands_in_log(cluster):
    """By node, the names of the commands in what it has in its log."""
    found = {}
    for node in cluster.running:
        log = node.opened.log
        entries = log.load(log.first_index, log.last_index, 1 << 30)
        found[node.node_id] = [decode_command(each.payload).name for each in entries if each.kind == EntryKind.COMMAND]
    return found
