"""Programs that are right: no checker may find anything here."""

import asyncio
import datetime
from typing import assert_type

from shop import Inventory, Item, Other
from shop_typed import AwaitedInventory, BlockingInventory, LocalInventory

from raftkv import BlockingClient, Client, LocalMachine, StaleRead
from raftkv.client import Read, Watch


async def awaited(client: Client[Inventory]) -> None:
    assert_type(await client.call(Inventory.receive, "apple", 3), int)
    assert_type(await client.call(Inventory.receive, "apple"), int)
    assert_type(await client.call(Inventory.receive, sku="apple", quantity=3), int)
    assert_type(await client.call(Inventory.put, Item("apple"), method="by hand", self_=1), Item)
    assert_type(await client.call(Inventory.list), dict[str, Item])
    assert_type(await client.call(Inventory.call, Inventory="x"), str)
    assert_type(await client.read(Inventory.on_hand, "apple"), Read[int])
    assert_type(await client.stale(Inventory.on_hand, "apple"), StaleRead[int])
    assert_type(await client.within(0.5).call(Inventory.receive, "apple", 3), int)
    assert_type(await client.within(0.5).stale(Inventory.on_hand, "apple"), StaleRead[int])
    both = await asyncio.gather(client.call(Inventory.receive, "a"), client.call(Inventory.list))
    assert_type(both, tuple[int, dict[str, Item]])
    found = await client.wait_until(
        Inventory.on_hand, "apple", until=lambda count: count.bit_length() > 3, timeout_s=60
    )
    assert_type(found, int)
    assert_type(await client.within(60).wait_until(Inventory.on_hand, "apple", until=bool), int)
    assert_type(await client.poll(Inventory.on_hand, "apple", unlike=3), int)
    await client.wait_until("on_hand", "apple", until=lambda count: count > 3)
    assert_type(client.watch(Inventory.stock, prefix="a", old=True), Watch[str, int])
    async for change in client.watch(Inventory.stock, (await client.read(Inventory.on_hand, "apple")).cursor):
        assert_type(change.key, str)
        assert_type(change.value, int | None)
    async with Client(Other, ["127.0.0.1:1"]) as other:
        assert_type(await other.call(Other.other, "apple"), int)
    await client.call("receive", "apple", 3)


async def faces(client: Client[Inventory]) -> None:
    async with AwaitedInventory(client) as inventory:
        assert_type(await inventory.receive("apple", 3), int)
        assert_type(await inventory.receive(sku="apple"), int)
        assert_type(await inventory.put(Item("apple"), method="by hand"), Item)
        assert_type(await inventory.list(), dict[str, Item])
        assert_type(await inventory.call(Inventory="x"), str)
        await inventory.apply(datetime.datetime.now())
        assert_type(await inventory.receive.within(0.5)("apple", 3), int)
        assert_type(await inventory.on_hand.stale("apple"), StaleRead[int])
        assert_type(await inventory.on_hand.within(1).stale(sku="apple"), StaleRead[int])
        assert_type(await inventory.on_hand.until(bool, "apple"), int)


def blocking(client: BlockingClient[Inventory]) -> None:
    assert_type(client.call(Inventory.receive, "apple", 3), int)
    assert_type(client.read(Inventory.on_hand, "apple"), Read[int])
    assert_type(client.within(0.5).stale(Inventory.on_hand, sku="apple"), StaleRead[int])
    assert_type(client.wait_until(Inventory.on_hand, "apple", until=lambda count: count > 3), int)
    assert_type(client.poll(Inventory.on_hand, "apple", unlike=3), int)
    with BlockingClient(Other, ["127.0.0.1:1"]) as other:
        assert_type(other.call(Other.other, "apple"), int)
    with BlockingInventory(client) as inventory:
        assert_type(inventory.receive("apple", quantity=3), int)
        assert_type(inventory.on_hand.stale("apple"), StaleRead[int])
        assert_type(inventory.receive.within(0.5)("apple"), int)


def local() -> None:
    machine = LocalMachine(Inventory)
    assert_type(machine.call(Inventory.receive, "apple", 3), int)
    assert_type(machine.wait_until(Inventory.on_hand, "apple", until=lambda count: count > 3), int)
    inventory = LocalInventory(machine)
    assert_type(inventory.receive("apple", 3), int)
    assert_type(inventory.put(Item("apple")), Item)
    assert_type(inventory.call("x"), str)
    inventory.apply(datetime.datetime.now())
