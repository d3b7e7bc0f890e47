"""Programs that are wrong: each line with a mark must be found."""

from shop import Inventory, Item, Other, plain
from shop_typed import AwaitedInventory, BlockingInventory, LocalInventory

from raftkv import BlockingClient, Client, LocalMachine


async def awaited(client: Client[Inventory]) -> None:
    await client.call(Inventory.receive, 3, "apple")  # bad
    await client.call(Inventory.receive, "apple", "3")  # bad
    await client.call(Inventory.receive)  # bad
    await client.call(Inventory.receive, "apple", 3, 4)  # bad
    await client.call(Inventory.receive, "apple", quantty=3)  # bad
    await client.call(Inventory.recieve, "apple", 3)  # bad
    await client.call(Other.other, "apple")  # bad
    await client.call(plain, "apple")  # bad
    await client.call(Inventory.put, "apple")  # bad
    await client.call(Inventory.put, item=Item("apple"))  # bad
    client.call(Inventory.receive, "apple", 3)  # bad
    number: int = client.call(Inventory.receive, "apple", 3)  # bad
    text: str = await client.call(Inventory.receive, "apple", 3)  # bad
    await client.stale(Inventory.on_hand, 3)  # bad
    (await client.stale(Inventory.on_hand, "apple")) + 1  # bad
    await client.wait_until(Inventory.on_hand, 3, until=bool)  # bad
    client.watch(Inventory.on_hand)  # bad
    client.watch("stock")  # bad
    await client.wait_until(Inventory.on_hand, until=bool)  # bad
    await client.wait_until(Inventory.on_hand, "apple")  # bad
    await client.wait_until(Inventory.on_hand, "apple", until=lambda count: count.nothing)  # bad
    await client.wait_until(Other.other, "apple", until=bool)  # bad
    client.wait_until(Inventory.on_hand, "apple", until=bool)  # bad
    await client.within("1").call(Inventory.receive, "apple")  # bad
    await client.within(1).call(Inventory.receive, 3)  # bad
    async with Client(Inventory, ["127.0.0.1:1"]) as inventory:
        await inventory.call(Inventory.receive, 3)  # bad
        await inventory.call(Other.other, "apple")  # bad
        inventory.receive("apple", 3)  # bad


async def faces(client: Client[Inventory], other: Client[Other]) -> None:
    AwaitedInventory(other)  # bad
    async with AwaitedInventory(client) as inventory:
        await inventory.receive(3, "apple")  # bad
        await inventory.receive()  # bad
        await inventory.receive("apple", 3, 4)  # bad
        await inventory.receive("apple", quantty=3)  # bad
        await inventory.recieve("apple")  # bad
        await inventory.helper("apple")  # bad
        await inventory.put("apple")  # bad
        inventory.receive("apple", 3)  # bad
        inventory.receive.within(0.5)("apple", 3)  # bad
        inventory.on_hand.stale("apple")  # bad
        number: int = inventory.receive("apple", 3)  # bad
        await inventory.receive.stale("apple")  # bad
        await inventory.on_hand.stale(3)  # bad
        await inventory.on_hand.until(bool, 3)  # bad
        await inventory.receive.until(bool, "apple")  # bad
        await inventory.receive.within(0.5)(3)  # bad


def blocking(client: BlockingClient[Inventory]) -> None:
    client.call(Inventory.receive, 3)  # bad
    client.call(Other.other, "apple")  # bad
    text: str = client.call(Inventory.receive, "apple", 3)  # bad
    inventory = BlockingInventory(client)
    inventory.receive(3)  # bad
    inventory.recieve("apple")  # bad
    inventory.receive("apple", quantty=3)  # bad
    inventory.on_hand.stale(3)  # bad


def local(machine: LocalMachine[Inventory]) -> None:
    machine.call(Inventory.receive, 3)  # bad
    machine.call(Other.other, "apple")  # bad
    inventory = LocalInventory(machine)
    inventory.receive(3)  # bad
    inventory.recieve("apple")  # bad
    text: str = inventory.receive("apple")  # bad
