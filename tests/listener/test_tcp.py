"""Listener and clients over real sockets."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import uvloop

from raftkv.access import AccessShown, NewToken, TurnOff
from raftkv.addresses import join
from raftkv.client import Admin, BlockingClient, Client
from raftkv.errors import ChangeRefused, Unavailable
from raftkv.kv import BlockingKeyValueClient, KeyValue, KeyValueClient
from raftkv.listener import ClientLimits, Listener, bind
from raftkv.listener.keepalive import KEEPALIVE_S, keep_alive
from raftkv.model import Member, Membership
from raftkv.transport import Credentials, TlsFiles
from raftkv.transport.memory import pause
from tests.certificates import Authority
from tests.listener.service import FakeService

DEADLINE_S = 20.0


@contextmanager
def running(service: FakeService) -> Iterator[str]:
    """A listener on an event loop in a thread of its own; gives its address."""
    loop = uvloop.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()

    async def serve() -> tuple[Listener, str]:
        entrance = await bind("127.0.0.1", 0, ClientLimits())
        listener = Listener(service, ClientLimits(), entrance)
        listener.begin()
        return listener, join(*entrance.address)

    listener, address = asyncio.run_coroutine_threadsafe(serve(), loop).result()
    try:
        yield address
    finally:
        asyncio.run_coroutine_threadsafe(listener.close(), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def test_the_blocking_client_serves_many_threads() -> None:
    """Eight threads share one client; each increment is applied once."""
    with running(FakeService(KeyValue)) as address, BlockingClient(KeyValue, [address]) as kv:
        seen: list[int] = []

        def work() -> None:
            seen.extend(kv.increment(b"n") for _ in range(50))

        threads = [threading.Thread(target=work) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(seen) == list(range(1, 401))
        assert kv.get.stale(b"n").value.value == b"400"
        assert kv.get.within(5)(b"n").stamp.version == 400


def test_a_closed_blocking_client_says_so() -> None:
    """Its thread is gone, and a later call fails at once instead of waiting for it."""
    with running(FakeService(KeyValue)) as address:
        client = BlockingClient(KeyValue, [address])
        client.call("put", b"a", b"1")
        client.close()
        client.close()
        with pytest.raises(Unavailable, match="closed"):
            client.call("get", b"a")


def test_both_kinds_of_key_value_clients_see_the_same() -> None:
    """The thin clients of the ready-made machine, over real connections."""
    with running(FakeService(KeyValue)) as address:
        with BlockingKeyValueClient([address]) as kv:
            kv.put(b"a", b"1")
            assert [item.key for item in kv.items()] == [b"a"]

        async def main() -> None:
            async with KeyValueClient([address]) as kv:
                item = await kv.get(b"a")
                assert item is not None
                assert item.value == b"1"
                assert [item.key async for item in kv.items()] == [b"a"]

        asyncio.run(main())


def test_pipelined_calls_share_a_connection() -> None:
    """A thousand calls of one task group are all answered."""
    service = FakeService(KeyValue)
    with running(service) as address:

        async def main() -> None:
            async with Client(KeyValue, [address]) as kv:
                results = await asyncio.gather(*[kv.increment(b"n") for _ in range(1000)])
                assert sorted(results) == list(range(1, 1001))

        uvloop.run(main())


def test_operators_requests() -> None:
    """Status, membership, leadership and snapshots, with their errors."""
    service = FakeService(KeyValue)
    with running(service) as address:

        async def main() -> None:
            async with Admin([address]) as admin:
                assert (await admin.status())["node_id"] == 1
                assert await admin.add_learner(Member(4, "a", "b")) == Membership.of((1,), (4,))
                assert await admin.promote(4) == Membership.of((1, 4))
                with pytest.raises(ChangeRefused, match="under way"):
                    await admin.remove(4)
                assert await admin.transfer_leadership() == 2
                assert await admin.transfer_leadership(4) == 4
                assert await admin.take_snapshot() == 0
                assert (await admin.upgrade(), await admin.upgrade(2)) == (3, 2)
                assert await admin.change_access(NewToken("ann")) == "token"
                assert not await admin.change_access(TurnOff())
                assert await admin.show_access() == AccessShown(False, 0, 0, 0)

        asyncio.run(main())
    names = ["add_learner", "promote", *["transfer_leadership"] * 2, *["upgrade"] * 2, *["change_access"] * 2]
    names.append("show_access")
    assert [name for name, _ in service.calls] == names
    assert service.calls[-3:-1] == [("change_access", (order, None)) for order in (NewToken("ann"), TurnOff())]


def test_an_address_in_use_is_said_so() -> None:
    """Listening where somebody else does is an error that names the address."""
    with running(FakeService(KeyValue)) as address:
        host, _, port = address.rpartition(":")

        async def main() -> None:
            with pytest.raises(Unavailable, match=address):
                await bind(host, int(port), ClientLimits())

        asyncio.run(main())


def test_a_crowd_that_begins_no_handshake_keeps_no_client_out(tmp_path: Path) -> None:
    """Well before the time for it is over, the one that has taken longest has to go for who comes."""
    authority = Authority(tmp_path)
    own = Credentials(TlsFiles(str(authority.path), *map(str, authority.issue("good"))))
    limits = ClientLimits(connections_max=2, hello_timeout_s=10 * DEADLINE_S, silent_s=0.1)
    refused: list[str] = []

    async def main() -> None:
        entrance = await bind("127.0.0.1", 0, limits, ssl=own.server)
        entrance.serve(asyncio.Protocol, lambda kind, reason, address: refused.append(reason))
        mute = [await asyncio.open_connection(*entrance.address) for _ in range(2)]
        comes = None
        while comes is None:
            try:
                _, comes = await asyncio.open_connection(*entrance.address, ssl=own.client)
            except OSError:  # none of them has been there for long
                await pause(0.01)
        for _, each in mute:
            each.close()
        comes.transport.abort()
        entrance.close()

    asyncio.run(asyncio.wait_for(main(), DEADLINE_S))
    assert any("it is the oldest" in each for each in refused)


def test_a_client_whose_host_vanished_is_missed_within_minutes() -> None:
    """No RST ever comes from it (half-open): the system asks, and sooner than after two hours."""
    with socket.socket() as sock:
        keep_alive(sock)
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        if hasattr(socket, "TCP_KEEPIDLE"):
            found = {name: sock.getsockopt(socket.IPPROTO_TCP, getattr(socket, name)) for name in KEEPALIVE_S}
            assert found == KEEPALIVE_S
