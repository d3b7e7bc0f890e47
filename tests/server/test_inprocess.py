"""A client in the program of its node: through memory where that node can answer, by sockets where another must."""

from __future__ import annotations

import asyncio
import socket
import ssl
from typing import Any

import pytest

from raftkv import Client, ConfigError, Listen, Member, Rejected, Server, TimedOut, Tls, Unavailable
from raftkv.errors import NotRunning
from raftkv.processes.ports import free_ports
from raftkv.server.inprocess import WRITE_BUFFER_BYTES, Pipe
from tests.server.test_server import Inventory


class End(asyncio.Protocol):
    """Keeps what happens at one end."""

    def __init__(self) -> None:
        self.got: list[bytes] = []
        self.pauses: list[bool] = []
        self.lost = 0
        self.transport: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        assert not self.lost
        self.got.append(data)

    def pause_writing(self) -> None:
        self.pauses.append(True)

    def resume_writing(self) -> None:
        self.pauses.append(False)

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost += 1


async def turns() -> None:
    """Let what is due happen."""
    for _ in range(4):
        await asyncio.sleep(0)


def ends() -> tuple[End, End]:
    """Two ends of a connection."""
    one, two = End(), End()
    Pipe.between(one, two)
    return one, two


def test_what_is_written_before_the_end_arrives_and_nothing_after_it() -> None:
    """As with a socket: `close` hands over what was written, `abort` does not; each end hears of it once."""

    async def main() -> None:
        for end, got in (("close", [b"a", b"b"]), ("abort", [])):
            one, two = ends()
            one.transport.write(b"a")
            one.transport.write(b"b")
            getattr(one.transport, end)()
            one.transport.write(b"c")
            two.transport.write(b"d")
            await turns()
            two.transport.write(b"e")
            two.transport.close()
            await turns()
            assert two.got == got
            assert (one.lost, two.lost) == (1, 1)
            assert one.transport.is_closing() and two.transport.is_closing()

    asyncio.run(main())


def test_who_does_not_read_holds_the_writer_up() -> None:
    """Nothing piles up without a bound: the writer is told to pause, and to go on when it was read."""

    async def main() -> None:
        one, two = ends()
        two.transport.pause_reading()
        one.transport.write(bytes(WRITE_BUFFER_BYTES + 1))
        await turns()
        assert two.got == [] and one.pauses == [True] and not two.transport.is_reading()
        assert one.transport.get_write_buffer_size() == WRITE_BUFFER_BYTES + 1
        two.transport.resume_reading()
        await turns()
        assert [len(data) for data in two.got] == [WRITE_BUFFER_BYTES + 1] and one.pauses == [True, False]
        one.transport.set_write_buffer_limits(10)
        two.transport.pause_reading()
        one.transport.write(bytes(11))
        assert one.pauses[2:] == [True]
        one.transport.abort()
        await turns()
        assert (one.lost, two.lost, len(two.got)) == (1, 1, 1)

    asyncio.run(main())


def test_a_node_of_one_is_reached_without_a_socket(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands, rejections, waits and deadlines are those of any client; the end of the server is the client's end."""

    async def main() -> None:
        server = Server(Inventory, data_dir=tmp_path / "n1")
        with pytest.raises(NotRunning):
            server.client()
        async with server:
            monkeypatch.setattr(socket.socket, "connect", None)
            monkeypatch.setattr(asyncio.get_running_loop(), "create_connection", None)
            client = server.client(deadline_s=5)
            assert await client.call(Inventory.receive, "apple", 3) == 3
            assert await client.call(Inventory.on_hand, "apple") == 3
            with pytest.raises(Rejected, match="quantity must be positive"):
                await client.call(Inventory.receive, "apple", -3)
            with pytest.raises(TimedOut):
                await client.wait_until(Inventory.on_hand, "apple", until=lambda count: count > 3, timeout_s=0.1)
            waiting = asyncio.ensure_future(
                client.wait_until(Inventory.on_hand, "apple", until=lambda count: count > 3)
            )
            assert await client.call(Inventory.receive, "apple", 3) == 6
            assert await waiting == 6
            assert server.node.status().waiting_requests == 0
        with pytest.raises(Unavailable, match="closed"):
            await client.call(Inventory.on_hand, "apple")

    asyncio.run(main())


def test_a_node_that_does_not_lead_sends_its_programs_client_on(tmp_path: Any) -> None:
    """The client follows to the leader by a socket, and comes back when its own node leads."""

    async def main() -> None:
        ports = free_ports(6)
        members = [Member(n, f"127.0.0.1:{ports[n - 1]}", f"127.0.0.1:{ports[n + 2]}") for n in (1, 2, 3)]
        servers = [Server(Inventory, data_dir=tmp_path / str(n), node_id=n, members=members) for n in (1, 2, 3)]
        await asyncio.gather(*(server.start() for server in servers))
        clients = [server.client(deadline_s=20) for server in servers]
        for number, client in enumerate(clients):
            assert await client.call(Inventory.receive, "apple", 1) == number + 1
        led = next(server for server in servers if server.node.raft.is_leader)
        assert {client.connected_to for client in clients} == {led.address}
        heir = next(server for server in servers if server is not led)
        await led.node.orders.transfer_leadership(heir.node.node_id, 10)
        for number, client in enumerate(clients):
            assert await client.call(Inventory.receive, "apple", 1) == number + 4
        assert {client.connected_to for client in clients} == {heir.address}
        for server in servers:
            await server.stop()

    asyncio.run(main())


def test_a_client_on_another_loop_goes_by_a_socket(tmp_path: Any) -> None:
    """The node may only be touched by its own loop's thread."""

    async def main() -> None:
        async with Server(Inventory, data_dir=tmp_path / "n1", listen=Listen()) as server:

            async def elsewhere() -> int:
                client: Client[Inventory] = server.client()
                try:
                    return await client.call(Inventory.receive, "apple", 3)
                finally:
                    await client.close()

            assert await asyncio.to_thread(asyncio.run, elsewhere()) == 3

    asyncio.run(main())


def test_where_nodes_speak_tls_the_client_needs_a_context_for_the_others(tmp_path: Any) -> None:
    """It is refused at once, not when another node leads for the first time."""

    async def main() -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        async with Server(Inventory, data_dir=tmp_path / "n1", tls=Tls(clients=context)) as server:
            with pytest.raises(ConfigError, match="ssl: the other nodes speak TLS"):
                server.client()

    asyncio.run(main())
