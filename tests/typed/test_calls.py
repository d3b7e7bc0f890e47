"""Calls that name a method as its class has it, and faces: what they do when they run."""

from __future__ import annotations

import asyncio

import pytest

from raftkv import BlockingClient, Client, LocalMachine, Server, StateMachine, command
from raftkv.cli.stubs import faces
from raftkv.client import UnknownMethod
from tests.typed.programs.shop import Inventory, Item, Other, plain

MISTAKES = [
    (Other.other, "Other.other is a command of another machine.*Inventory, which has receive, "),
    (plain, r"plain is no method of Inventory.*like Inventory\.receive"),
    (Inventory.helper, "Inventory.helper is neither a command nor a query: mark it with @command or @query"),
    (len, "len is no method of Inventory"),
]


@pytest.mark.parametrize(("asked", "text"), MISTAKES, ids=lambda each: getattr(each, "__name__", repr(each))[:12])
def test_what_is_no_method_of_the_machine_is_refused_with_what_to_write(asked, text):
    """Before anything is sent, on each face."""
    with pytest.raises(UnknownMethod, match=text):
        LocalMachine(Inventory).call(asked, "apple")

    async def on_client():
        client = Client(Inventory, ["127.0.0.1:1"])
        with pytest.raises(UnknownMethod, match=text):
            await client.call(asked, "apple")
        await client.close()

    asyncio.run(on_client())
    client = BlockingClient(Inventory, ["127.0.0.1:1"])
    with pytest.raises(UnknownMethod, match=text):
        client.call(asked, "apple")
    client.close()


def test_only_queries_are_read_stale():
    """A command read stale, or at an index, is refused with a typed error, and is not sent."""

    async def on_client():
        client = Client(Inventory, ["127.0.0.1:1"])
        for ask in (client.stale, client.read):
            with pytest.raises(UnknownMethod, match="'receive' is a command of Inventory: call it"):
                await ask(Inventory.receive, "apple")
        await client.close()

    asyncio.run(on_client())


def test_a_base_class_names_what_its_subclass_has_overridden():
    """As in a call of Python: the class of the client says what is done."""

    class Base(StateMachine):
        """Says one."""

        @command
        def say(self) -> int:
            """One."""
            return 1

    class Derived(Base):
        """Says two."""

        @command
        def say(self) -> int:
            """Two."""
            return 2

    assert LocalMachine(Derived).call(Base.say) == 2
    assert LocalMachine(Base).call(Base.say) == 1
    with pytest.raises(UnknownMethod, match="another machine"):
        LocalMachine(Base).call(Derived.say)


def test_calls_with_types_do_what_calls_by_name_do(tmp_path):
    """On asyncio, blocking and in memory, through a client, its machine and a face: one node, one state."""
    local = LocalMachine(Inventory)
    assert local.call("apple") == "apple", "a machine's own method of this name"
    assert local.call(Inventory.put, Item("pear", 2)) == Item("pear", 2)
    assert LocalMachine(Other).call(Other.other, "x") == 1

    def blocking(address):
        with BlockingClient(Inventory, [address]) as inventory:
            assert (inventory.call(Inventory="x"), inventory.call(Inventory.receive, "pear")) == ("x", 1)
        client = BlockingClient(Inventory, [address])
        try:
            assert client.call(Inventory.receive, "apple", quantity=1) == 5
            assert client.within(5).read(Inventory.on_hand, "apple").value == 5
            assert client.stale(Inventory.on_hand, "apple").value == 5
        finally:
            client.close()

    async def main():
        async with Server(Inventory, data_dir=tmp_path) as server:
            client = Client(Inventory, [server.address])
            assert await client.call(Inventory.receive, "apple", 3) == 3
            assert await client.within(5).call(Inventory.receive, sku="apple") == 4
            assert (await client.read(Inventory.on_hand, "apple")).value == 4
            assert (await client.within(5).stale("on_hand", "apple")).value == 4
            assert await client.remote.call("x") == "x"
            assert await client.remote.call.within(5)(Inventory.on_hand, "apple") == 4
            await asyncio.to_thread(blocking, server.address)
            await client.close()

    asyncio.run(main())


def test_faces_call_what_they_name(tmp_path):
    """The module that `raftkv stubs` writes: awaited, blocking, local; deadlines, stale reads, all kinds of names."""
    namespace = {}
    exec(faces(Inventory, "tests.typed.programs.shop:Inventory"), namespace)  # noqa: S102 (our own text)
    local = namespace["LocalInventory"](LocalMachine(Inventory))
    assert (local.receive("apple", 3), local.receive(sku="apple"), local.on_hand("apple")) == (3, 4, 4)
    assert (local.call("x"), local.list()) == ("x", {"apple": Item("apple", 4)})

    def blocking(address):
        with namespace["BlockingInventory"](BlockingClient(Inventory, [address])) as inventory:
            assert inventory.receive.within(5)("apple") == 4
            assert inventory.on_hand.stale("apple").value == 4
            assert inventory.call(Inventory="x") == "x"

    async def main():
        async with Server(Inventory, data_dir=tmp_path) as server:
            client = Client(Inventory, [server.address])
            async with namespace["AwaitedInventory"](client) as inventory:
                assert await inventory.receive("apple", 3) == 3
                assert await inventory.on_hand.within(5)("apple") == 3
                assert (await inventory.on_hand.stale("apple")).value == 3
                assert await inventory.call("x") == "x"
                await asyncio.to_thread(blocking, server.address)

    asyncio.run(main())
