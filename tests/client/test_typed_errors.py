"""What a program gets wrong on its way to a cluster is said in words that tell what to write instead."""

from __future__ import annotations

import asyncio
import gc
import threading
from pathlib import Path
from typing import Any

import pytest

from raftkv import (
    Admin,
    BlockingClient,
    Client,
    ConfigError,
    InvalidArgument,
    LocalMachine,
    MachineError,
    Rejected,
    Server,
    StateMachine,
    WrongLoop,
    command,
)
from raftkv.kv import KeyValue
from tests.listener.service import FakeService
from tests.listener.test_tcp import running


class Texts(StateMachine):
    """Takes texts, and gives some back."""

    @command
    def take(self, text: str) -> None:
        """Takes any."""

    @command
    def half(self) -> str:
        return "\ud800"

    @command
    def complain(self) -> None:
        raise ValueError("not \ud800")


@pytest.mark.parametrize("address", ["http://127.0.0.1:7001", "https://10.0.0.1:7001/", "raftkv://10.0.0.1:7001"])
def test_an_address_that_is_a_url(address: str) -> None:
    """For a client of either kind, for operators, and for a server: the address is in the answer."""
    host = address.split("//")[1].rstrip("/")
    for make in (
        lambda: Client(KeyValue, [address]),
        lambda: BlockingClient(KeyValue, [address]),
        lambda: Admin([address]),
    ):
        with pytest.raises(InvalidArgument, match=f"is a URL: write HOST:PORT, as {host}"):
            make()
    with pytest.raises(ConfigError, match="http"):
        Server(KeyValue, data_dir="nowhere", http=address)


def test_an_address_that_is_no_text() -> None:
    """A pair, as sockets have it."""
    pair: Any = ("127.0.0.1", 7001)
    with pytest.raises(InvalidArgument, match="must be the text host:port"):
        Client(KeyValue, [pair])


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (dict, "the class dict, which is no state machine"),
        ("KeyValue", "str 'KeyValue', which is no state machine"),
        (object.__new__(KeyValue), r"the class itself, .*\(KeyValue, …\)"),
    ],
)
def test_what_is_no_state_machine(given: Any, said: str, tmp_path: Path) -> None:
    """For a client of either kind and for a server, which leaves no directory behind."""
    for make in (
        lambda: Client(given, ["127.0.0.1:7001"]),
        lambda: BlockingClient(given, ["127.0.0.1:7001"]),
        lambda: Server(given, data_dir=tmp_path / "data"),
    ):
        with pytest.raises(MachineError, match=said):
            make()
    assert not (tmp_path / "data").exists()


def test_half_of_a_surrogate_pair() -> None:
    """It can't be sent: nothing was. Where a command makes one, the command is rejected, as of any error of its own."""
    with (
        running(FakeService(Texts)) as address,
        BlockingClient(Texts, [address]) as texts,
        pytest.raises(InvalidArgument, match="half of a surrogate pair"),
    ):
        texts.take("\udcff")
    local = LocalMachine(Texts)
    with pytest.raises(Rejected, match="UnicodeEncodeError"):
        local.half()
    with pytest.raises(Rejected, match="ValueError"):
        local.complain()
    local.take("whole")


def test_a_client_on_a_second_loop() -> None:
    """At once, while the first loop lives and after its end; a client that was closed there is closed here."""
    with running(FakeService(KeyValue)) as address:
        client, admin = Client(KeyValue, [address], deadline_s=10.0), Admin([address])

        async def use() -> None:
            await client.remote.increment(b"n")
            await admin.status()

        async def refused() -> None:
            remote = client.remote
            for call in (remote.increment(b"n"), remote.get.stale(b"n"), client.open_view(), admin.status()):
                with pytest.raises(WrongLoop, match=state):
                    await call

        first = asyncio.new_event_loop()
        first.run_until_complete(use())
        state = "is another one"
        asyncio.run(refused())
        with pytest.raises(WrongLoop):
            asyncio.run(client.close())
        first.run_until_complete(use())
        first.run_until_complete(client.close())
        first.run_until_complete(admin.close())
        first.close()
        asyncio.run(client.close())


@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
def test_a_client_whose_loop_is_closed() -> None:
    """A call says so at once; to close the client is no error, as nothing of it is left."""
    with running(FakeService(KeyValue)) as address:
        client = Client(KeyValue, [address], deadline_s=10.0)
        asyncio.run(_call(client))
        with pytest.raises(WrongLoop, match="which was closed: make a client on each loop"):
            asyncio.run(_call(client))
        asyncio.run(client.close())
        del client
        gc.collect()  # what was left open is found here, not in another test


async def _call(client: Client[KeyValue]) -> None:
    await client.remote.increment(b"n")


def test_a_server_is_stopped_on_its_own_loop(tmp_path: Path) -> None:
    """Another loop is told where; the server goes on."""

    async def story() -> None:
        async with Server(KeyValue, data_dir=tmp_path) as server:

            def elsewhere() -> None:
                with pytest.raises(WrongLoop, match="run_coroutine_threadsafe"):
                    asyncio.run(server.stop())

            thread = threading.Thread(target=elsewhere)
            thread.start()
            await asyncio.to_thread(thread.join)
            assert server.status().stopped is None

    asyncio.run(story())
