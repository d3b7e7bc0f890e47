"""A process that forks: the child has clients of its own, or is told at once; the parent notices nothing (F89)."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import select
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

import pytest

from raftkv import Listen, Server
from raftkv.client import Admin, BlockingClient, Client
from raftkv.errors import Unavailable, WrongProcess
from raftkv.kv import BlockingKeyValueClient, KeyValue
from raftkv.model import Member
from raftkv.wire import PROTOCOL_VERSION, ServerHello, encode_server_hello
from tests.listener.service import FakeService
from tests.listener.test_tcp import running

pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")

CHILD_S = 30
"""A child that takes so long hangs."""


@contextmanager
def child(work: Callable[[Callable[[str], None]], object]) -> Iterator[Callable[[], str]]:
    """Run `work` in a child made by fork; it may `tell` a line. Gives what waits for that line."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            result = work(lambda line: os.write(writer, line.encode() + b"\n") and None)
            os.write(writer, f"{result}\n".encode())
            code = 0
        except BaseException as exc:  # noqa: BLE001 (pytest must not go on here)
            os.write(writer, f"{type(exc).__name__}: {exc}\n".encode())
        finally:
            os._exit(code)
    os.close(writer)
    lines = os.fdopen(reader)
    ended = False

    def line() -> str:
        assert select.select([lines], [], [], CHILD_S)[0], "the child hangs"
        return lines.readline().strip()

    try:
        yield line
        ended = bool(select.select([lines], [], [], CHILD_S)[0])
    finally:
        if not ended:
            os.kill(pid, signal.SIGKILL)
        lines.close()
        os.waitpid(pid, 0)


def test_the_parents_connection_ends_with_the_parents_client() -> None:
    """Though a child lives on, which has a copy of every descriptor: else a node would keep the connection for it."""
    hello = encode_server_hello(ServerHello(PROTOCOL_VERSION, "cluster", 1, KeyValue.fingerprint()))
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(CHILD_S)
        kv = BlockingKeyValueClient([f"127.0.0.1:{listening.getsockname()[1]}"], deadline_s=CHILD_S)
        told: list[object] = []

        def ask() -> None:
            try:
                told.append(kv.get(b"x"))
            except Unavailable as error:
                told.append(str(error))

        asking = threading.Thread(target=ask)
        asking.start()
        node, _ = listening.accept()
        with node:
            node.settimeout(CHILD_S)
            assert node.recv(1_000)
            node.sendall(hello)
            assert node.recv(1_000)
            stays, ends = os.pipe()
            with child(lambda tell: (tell("up"), os.read(stays, 1))) as line:
                assert line() == "up"
                kv.close()
                with suppress(ConnectionResetError):
                    assert not node.recv(1_000)
                os.write(ends, b"x")
            asking.join()
            assert "closed" in str(told[0])
            os.close(stays)
            os.close(ends)


def test_a_blocking_client_is_new_in_the_child_and_undisturbed_in_the_parent() -> None:
    """F89: both count on, each in a session of its own, and the child's end is not the parent's."""
    service = FakeService(KeyValue)
    with running(service) as address, BlockingClient(KeyValue, [address], deadline_s=10.0) as kv:
        assert kv.increment(b"n") == 1

        def work(_: Callable[[str], None]) -> int:
            counted = kv.increment(b"n")
            kv._caller.close()
            return counted

        with child(work) as line:
            assert line() == "2"
        assert kv.increment(b"n") == 3
        assert kv._caller._client.session.id == 1


def test_a_client_that_the_child_only_closes() -> None:
    """F89: there is nothing to close, so it takes no time; a call behind it says so."""
    service = FakeService(KeyValue)
    with running(service) as address, BlockingKeyValueClient([address]) as kv:
        kv.increment(b"n")

        def work(_: Callable[[str], None]) -> str:
            began = time.monotonic()
            kv.close()
            with pytest.raises(Unavailable, match="closed"):
                kv.get(b"n")
            return "at once" if time.monotonic() - began < 1 else "late"

        with child(work) as line:
            assert line() == "at once"
        assert kv.increment(b"n") == 2
        assert service.log.sessions() == 1


def test_forks_in_the_midst_of_calls() -> None:
    """F89: whatever other threads were doing at that moment, the child's client works, and nothing is done twice."""
    with running(FakeService(KeyValue)) as address, BlockingKeyValueClient([address], deadline_s=10.0) as kv:
        stop = threading.Event()
        counted: list[int] = []

        def load() -> None:
            while not stop.is_set():
                counted.append(kv.increment(b"n"))

        threads = [threading.Thread(target=load) for _ in range(3)]
        for thread in threads:
            thread.start()
        try:
            for _ in range(8):
                with child(lambda _: kv.increment(b"n")) as line:
                    counted.append(int(line()))
        finally:
            stop.set()
            for thread in threads:
                thread.join()
        assert sorted(counted) == list(range(1, len(counted) + 1))


_shared: BlockingKeyValueClient


def _count(_: int) -> int:
    return _shared.increment(b"n")


def test_a_pool_of_processes() -> None:
    """F89: what `multiprocessing` forks uses the client that it inherited."""
    global _shared
    with running(FakeService(KeyValue)) as address, BlockingKeyValueClient([address]) as _shared:
        _shared.increment(b"n")
        with multiprocessing.get_context("fork").Pool(2) as pool:
            results = pool.map_async(_count, range(6)).get(CHILD_S)
        assert sorted(results) == list(range(2, 8))
        assert _shared.increment(b"n") == 8


def test_clients_for_asyncio_are_new_on_the_childs_loop() -> None:
    """F89: the parent's loop and sockets are not used; the operator's client is no exception."""
    with running(FakeService(KeyValue)) as address:
        loop = asyncio.new_event_loop()
        client, admin = Client(KeyValue, [address], deadline_s=10.0), Admin([address])

        async def use() -> int:
            await admin.status()
            return int(await client.remote.increment(b"n"))

        async def end() -> None:
            await client.close()
            await admin.close()

        def work(_: Callable[[str], None]) -> int:
            async def main() -> int:
                counted = await use()
                await end()
                return counted

            return asyncio.run(main())

        assert loop.run_until_complete(use()) == 1
        with child(work) as line:
            assert line() == "2"
        assert loop.run_until_complete(use()) == 3
        loop.run_until_complete(end())
        loop.close()


@contextmanager
def served(directory: Path, listen: str = "127.0.0.1:0") -> Iterator[Server[KeyValue]]:
    """A node whose loop runs in a thread of its own."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()

    async def make() -> Server[KeyValue]:
        server = Server(KeyValue, data_dir=directory, listen=Listen(clients=listen), http="127.0.0.1:0")
        await server.start()
        return server

    try:
        server = asyncio.run_coroutine_threadsafe(make(), loop).result(CHILD_S)
        yield server
        asyncio.run_coroutine_threadsafe(server.stop(), loop).result(CHILD_S)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def test_a_server_is_the_parents(tmp_path: Path) -> None:
    """F89: in the child it refuses at once; it keeps neither the lock nor the address when the parent stops it."""

    async def ask(server: Server[KeyValue]) -> str:
        learner = Member(2, "127.0.0.1:1", "127.0.0.1:2")
        for refused in (
            server.start,
            server.node.orders.take_snapshot,
            partial(server.node.orders.add_learner, learner),
        ):
            with pytest.raises(WrongProcess, match="fork"):
                await refused()
        with pytest.raises(WrongProcess):
            server.status()
        with pytest.raises(Unavailable, match="fork"):
            server.node.requests.submit(b"", lambda *_: None)
        await server.stop()
        return "refused"

    with served(tmp_path) as server, BlockingKeyValueClient([server.address]) as kv:
        kv.put(b"a", b"1")
        release, released = os.pipe()

        def work(tell: Callable[[str], None]) -> str:
            tell(asyncio.run(ask(server)))
            os.read(release, 1)
            return "ended"

        with child(work) as line:
            assert line() == "refused"
            kv.put(b"a", b"2")
            assert server.node.failure is None
            kv.close()
            address = server.address
            asyncio.run_coroutine_threadsafe(server.stop(), server.node._loop).result(CHILD_S)
            assert server.http_port is not None
            socket.create_server(("127.0.0.1", server.http_port)).close()
            with served(tmp_path, address) as again, BlockingKeyValueClient([again.address]) as other:
                item = other.get(b"a")
                assert item is not None
                assert item.value == b"2"
            os.write(released, b"x")
            assert line() == "ended"
        os.close(release)
        os.close(released)


def test_a_child_that_ends_as_programs_do(tmp_path: Path) -> None:
    """F89: everything that it inherited is collected and finalized there, and the parent's node and client go on."""
    program = textwrap.dedent(
        """
        import asyncio, gc, os, sys
        from raftkv import Listen, Server
        from raftkv.kv import BlockingKeyValueClient, KeyValue

        async def main():
            async with Server(KeyValue, data_dir=sys.argv[1]) as server:
                kv = BlockingKeyValueClient([server.address], deadline_s=10.0)
                put = lambda value: asyncio.get_running_loop().run_in_executor(None, kv.put, b"a", value)
                for number in range(50):
                    await put(b"%d" % number)
                for _ in range(2):
                    pid = os.fork()
                    if pid == 0:
                        gc.collect()
                        sys.exit(7)
                    await asyncio.get_running_loop().run_in_executor(None, os.waitpid, pid, 0)
                    await put(b"after")
                value = await asyncio.get_running_loop().run_in_executor(None, kv.get, b"a")
                await asyncio.get_running_loop().run_in_executor(None, kv.close)
                print(value.value, server.status().role)

        asyncio.run(main())
        """
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stdout == "b'after' leader\n", done.stdout + done.stderr
