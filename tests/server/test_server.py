"""Servers inside a program, over real sockets and files: the README's example, three of them, one that joins."""

from __future__ import annotations

import asyncio
import json
import sys
import threading
import urllib.request
from datetime import UTC, datetime

import msgspec
import pytest

from raftkv import (
    Admin,
    BlockingClient,
    Client,
    Config,
    ConfigError,
    Listen,
    Member,
    Rejected,
    Rejection,
    Server,
    StateMachine,
    Table,
    Tls,
    Unavailable,
    command,
    query,
)
from raftkv.doctor import ClusterView, Evidence, diagnose
from raftkv.errors import AlreadyStarted, DataDirLocked, InvalidArgument, NotRunning, RaftKVError, WrongDataDir
from raftkv.processes.ports import free_ports
from raftkv.server.tls import client_context
from raftkv.transport.memory import pause
from tests.certificates import Authority
from tests.logged import capture_logs

if sys.platform != "win32":
    import resource


class Inventory(StateMachine):
    """The example."""

    stock = Table(str, int)

    @command
    def receive(self, sku: str, quantity: int) -> int:
        """Take in some."""
        if quantity <= 0:
            raise ValueError("quantity must be positive")
        total = self.stock.get(sku, 0) + quantity
        self.stock[sku] = total
        return total

    @query
    def on_hand(self, sku: str) -> int:
        """How many there are."""
        return self.stock.get(sku, 0)


def members(count):
    """Founders on free ports of loopback."""
    ports = free_ports(2 * count)
    return [Member(n + 1, f"127.0.0.1:{ports[2 * n]}", f"127.0.0.1:{ports[2 * n + 1]}") for n in range(count)]


def run(story):
    """Run a story, at most a minute of it."""
    asyncio.run(asyncio.wait_for(story, 60))


def test_one_server_serves_and_remembers(tmp_path):
    """A cluster of one, stopped and started again: what was acknowledged is there."""

    async def story():
        for total in (3, 6):
            async with Server(Inventory, data_dir=tmp_path) as server, Client(Inventory, [server.address]) as inventory:
                assert await inventory.receive("apple", 3) == total
                assert await inventory.on_hand("apple") == total
                assert (await inventory.on_hand.stale("apple")).value == total
                with pytest.raises(Rejected, match="quantity must be positive"):
                    await inventory.receive("apple", 0)
                assert server.status().role == "leader"

    run(story())


def test_three_servers_go_on_without_the_leader_and_a_fourth_joins(tmp_path):
    """The whole life of a cluster, in one process: founded, loses its leader, gets a new member by its operator."""

    async def story():
        founders = members(3)
        servers = {
            member.node_id: Server(
                Inventory, data_dir=tmp_path / str(member.node_id), node_id=member.node_id, members=founders
            )
            for member in founders
        }
        addresses = [member.client_address for member in founders]
        for server in servers.values():
            await server.start()
        async with Client(Inventory, addresses) as inventory, Admin(addresses) as admin:
            assert await inventory.receive("apple", 3) == 3
            leader = next(server for server in servers.values() if server.status().role == "leader")
            await leader.stop()
            assert await inventory.receive("apple", 3) == 6
            (newcomer,) = (Member(4, first.peer_address, first.client_address) for first in members(1))
            joining = Server(
                Inventory,
                data_dir=tmp_path / "4",
                node_id=4,
                join=True,
                listen=Listen(clients=newcomer.client_address, peers=newcomer.peer_address),
            )
            await joining.start()
            await admin.add_learner(newcomer)
            membership = await admin.promote(4)
            assert membership.voters == (1, 2, 3, 4)
            assert joining.node.applier.applied_index >= 4
            await joining.stop()
        for server in servers.values():
            if server is not leader:
                await server.stop()

    run(story())


def test_servers_prove_their_secret_and_one_with_another_is_named(tmp_path):
    """Three that share a file serve; one of them, started again with another file, is refused by both and says so."""

    def secret(name, text):
        path = tmp_path / name
        path.write_text(text)
        path.chmod(0o600)
        return Listen(peer_secret_file=path)

    right, wrong = secret("right", "what the three nodes know\n"), secret("wrong", "what one node has made up\n")

    async def story():
        founders = members(3)

        def server(node_id, listen):
            directory = tmp_path / str(node_id)
            return Server(Inventory, data_dir=directory, node_id=node_id, members=founders, listen=listen)

        servers = [server(node_id, right) for node_id in (1, 2, 3)]
        await asyncio.gather(*(each.start() for each in servers))
        async with Client(Inventory, [founders[0].client_address, founders[1].client_address]) as inventory:
            assert await inventory.receive("apple", 3) == 3
            (marks,) = {tuple(each.status().secret_marks) for each in servers}
            await servers[2].stop()
            servers[2] = server(3, wrong)
            await servers[2].start()

            def named():
                mine = [each for each in servers[0].status().problems() if "node 3" in each]
                theirs = servers[2].status().problems()
                return all("another cluster secret" in "".join(each) for each in (mine, theirs))

            while not named():
                await pause(0.02)
            assert await inventory.receive("apple", 3) == 6
            assert servers[2].status().leader is None
            assert len(marks) == 1 and tuple(servers[2].status().secret_marks) not in (marks, ())
        await asyncio.gather(*(each.stop() for each in servers))

    run(story())


def test_a_stranger_that_does_not_know_the_secret_is_found_by_the_doctor(tmp_path):
    """It takes itself for a member, and is none: the node that it dials refuses it, counts that, and is told of it."""

    def secret(name):
        path = tmp_path / name
        path.write_text(f"what {name} has made up\n")
        path.chmod(0o600)
        return Listen(peer_secret_file=path)

    async def story():
        ours, stranger = members(2)
        one = Server(Inventory, data_dir=tmp_path / "1", members=[ours], listen=secret("one"))
        two = Server(Inventory, data_dir=tmp_path / "2", node_id=2, members=[ours, stranger], listen=secret("two"))
        async with one, two:
            while not one.status().secrets_refused:
                await pause(0.02)
            view = ClusterView([one.status()], [])
            found = diagnose(Evidence(view=view, before=view), datetime.now(UTC))
            (refused,) = [each for each in found if "secret" in each.condition]
            assert refused.condition == "secret-refused" and "dials node 1 as a node" in refused.what

    run(story())


def test_a_leader_that_asks_who_listens_is_no_stranger_without_the_secret(tmp_path):
    """It asks before it writes a member's address: that warns nobody, and still tells a node from what is none."""
    path = tmp_path / "secret"
    path.write_text("what the two nodes know\n")
    path.chmod(0o600)

    async def story():
        founders = members(2)
        servers = [
            Server(
                Inventory,
                data_dir=tmp_path / str(each.node_id),
                node_id=each.node_id,
                members=founders,
                listen=Listen(peer_secret_file=path),
            )
            for each in founders
        ]
        await asyncio.gather(*(each.start() for each in servers))
        while not (leaders := [each for each in servers if each.status().role == "leader"]):
            await pause(0.02)
        (leader,) = leaders
        (other,) = [each for each in servers if each is not leader]
        member = next(each for each in founders if each.node_id == other.status().node_id)
        moved = msgspec.structs.replace(member, peer_address=member.peer_address.replace("127.0.0.1", "localhost"))
        await leader.node.orders.update_member(moved)
        assert other.status().membership.member(member.node_id) in (member, moved)
        assert other.status().secrets_refused == 0
        swapped = Member(9, other.address, other.address)
        with pytest.raises(InvalidArgument, match="an address of node"):
            await leader.node.orders.add_learner(swapped)
        await asyncio.gather(*(each.stop() for each in servers))

    run(story())


def test_threads_use_the_blocking_client(tmp_path):
    """The same calls, blocking, from a thread of a program without asyncio."""

    def use(address):
        with BlockingClient(Inventory, [address]) as inventory:
            return [inventory.receive("apple", n) for n in (1, 2)], inventory.on_hand("apple")

    async def story():
        async with Server(Inventory, data_dir=tmp_path) as server:
            assert await asyncio.to_thread(use, server.address) == ([1, 3], 3)

    run(story())


def test_two_servers_never_share_a_directory(tmp_path):
    """The second one is refused before it touches anything."""

    async def story():
        async with Server(Inventory, data_dir=tmp_path):
            with pytest.raises(DataDirLocked):
                await Server(Inventory, data_dir=tmp_path).start()

    run(story())


def test_an_address_in_use_is_refused_and_nothing_is_left_behind(tmp_path):
    """The node is stopped again, so that the directory is free."""

    async def story():
        async with Server(Inventory, data_dir=tmp_path / "a") as first:
            second = Server(
                Inventory,
                data_dir=tmp_path / "b",
                members=[Member(1, f"127.0.0.1:{free_ports(1)[0]}", first.address)],
            )
            with pytest.raises(Unavailable, match="can't listen"):
                await second.start()
        async with Server(Inventory, data_dir=tmp_path / "a"):
            pass

    run(story())


@pytest.mark.parametrize(
    "settings",
    [
        {"listen": Listen(clients="nowhere")},
        {"listen": Listen(peers="127.0.0.1:99999")},
        {"http": "nowhere"},
        {"members": [Member(2, "127.0.0.1:1", "127.0.0.1:2")]},
        {"members": [Member(1, "127.0.0.1:1", "127.0.0.1:2")], "join": True},
    ],
)
def test_wrong_settings_are_refused_before_anything_happens(tmp_path, settings):
    """Named in the error, and no file is made."""
    with pytest.raises(ConfigError, match=next(iter(settings))):
        Server(Inventory, data_dir=tmp_path / "data", **settings)
    assert not (tmp_path / "data").exists()


def test_it_tells_of_itself_over_http(tmp_path):
    """Metrics, health and status as the process of a node has them, on a port that was chosen; closed at the end."""

    def get(port, path):
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=20) as answer:
            return answer.status, answer.read()

    async def story():
        async with Server(Inventory, data_dir=tmp_path, http="127.0.0.1:0") as server:
            async with Client(Inventory, [server.address]) as inventory:
                await inventory.receive("apple", 3)
            for path, said in (("/ready", b"leader"), ("/health", b"leader"), ("/metrics", b"raftkv_is_leader 1.0")):
                status, body = await asyncio.to_thread(get, server.http_port, path)
                assert status == 200 and said in body
            status, body = await asyncio.to_thread(get, server.http_port, "/status")
            assert json.loads(body)["commit_index"] == server.status().commit_index
        with pytest.raises(OSError):
            await asyncio.to_thread(get, server.http_port, "/health")

    run(story())


def test_it_is_started_once_and_asked_while_it_runs(tmp_path):
    """Each other call says what to do instead; to stop what does not run is nothing."""

    async def story():
        server = Server(Inventory, data_dir=tmp_path)
        await server.stop()
        with pytest.raises(NotRunning, match="await start\\(\\) first"):
            server.status()
        await server.start()
        with pytest.raises(AlreadyStarted, match="started already"):
            await server.start()
        assert server.status().node_id == 1
        await server.stop()
        await server.stop()
        with pytest.raises(NotRunning, match="is stopped; make another Server"):
            server.status()
        with pytest.raises(AlreadyStarted, match="was stopped: make another Server"):
            await server.start()

    run(story())


def test_one_that_could_not_start_may_be_started_again(tmp_path):
    """An address that is taken keeps nothing open, and is no longer in the way when it is free."""

    async def story():
        (port,) = free_ports(1)
        holder = await asyncio.start_server(lambda *_: None, "127.0.0.1", port)
        server = Server(Inventory, data_dir=tmp_path / "data", listen=Listen(clients=f"127.0.0.1:{port}"))
        with pytest.raises(Unavailable, match=rf"listen = '127.0.0.1:{port}'"):
            await server.start()
        assert not (tmp_path / "data").exists()
        holder.close()
        await holder.wait_closed()
        async with server:
            assert server.address == f"127.0.0.1:{port}"

    run(story())


def test_what_was_begun_is_closed_when_the_last_port_is_taken(tmp_path):
    """A node that was here before serves already when metrics find their port taken: it is stopped again, whole."""

    async def story():
        async with Server(Inventory, data_dir=tmp_path) as server, Client(Inventory, [server.address]) as inventory:
            await inventory.receive("apple", 3)
        holder = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
        port = holder.sockets[0].getsockname()[1]
        with pytest.raises(Unavailable, match=rf"http 127.0.0.1:{port}"):
            await Server(Inventory, data_dir=tmp_path, http=f"127.0.0.1:{port}").start()
        holder.close()
        async with Server(Inventory, data_dir=tmp_path) as server, Client(Inventory, [server.address]) as inventory:
            assert await inventory.on_hand("apple") == 3

    run(story())


def test_a_failed_start_leaves_no_thread_behind(tmp_path):
    """A program may try for as long as it likes: each attempt ends the threads that it began."""

    async def story():
        async with Server(Inventory, data_dir=tmp_path):
            pass
        holder = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
        address = f"127.0.0.1:{holder.sockets[0].getsockname()[1]}"
        with pytest.raises(Unavailable, match="peer_listen"):
            await Server(Inventory, data_dir=tmp_path, listen=Listen(peers=address)).start()
        with pytest.raises(WrongDataDir):
            await Server(Inventory, data_dir=tmp_path, node_id=2).start()
        holder.close()
        assert [thread.name for thread in threading.enumerate() if thread.name == "raftkv-background"] == []

    run(story())


def test_a_start_that_is_given_up_lets_go_of_the_directory(tmp_path):
    """Cancelled while its files are being opened: they are closed again, and the next start finds no lock."""

    async def story():
        async with Server(Inventory, data_dir=tmp_path):
            pass
        for turns in range(12):
            start = asyncio.ensure_future(Server(Inventory, data_dir=tmp_path).start())
            for _ in range(turns):
                await asyncio.sleep(0)
            start.cancel()
            with pytest.raises(asyncio.CancelledError):
                await start
            async with Server(Inventory, data_dir=tmp_path):
                pass

    run(story())


def test_a_stop_that_nobody_waits_for_goes_on(tmp_path):
    """Given up after any number of turns, it ends all the same: who asks again waits for that, and finds no lock."""

    async def story():
        for turns in range(0, 12, 2):
            server = Server(Inventory, data_dir=tmp_path)
            await server.start()
            stop = asyncio.ensure_future(server.stop())
            for _ in range(turns):
                await asyncio.sleep(0)
            stop.cancel()
            await asyncio.wait([stop])
            await server.stop()
            async with Server(Inventory, data_dir=tmp_path):
                pass

    run(story())


def test_nothing_is_founded_where_nobody_could_reach_it(tmp_path):
    """A cluster of one at 0.0.0.0 would send its clients there."""

    async def story():
        server = Server(Inventory, data_dir=tmp_path / "data", listen=Listen(clients="0.0.0.0:0"))
        with pytest.raises(ConfigError, match="is no address that others could use: name it in members"):
            await server.start()
        assert not (tmp_path / "data").exists()

    run(story())


@pytest.mark.skipif(sys.platform == "win32", reason="there is no such limit")
def test_clients_leave_room_for_the_files_of_the_program(tmp_path):
    """So many connections are taken as fit into the limit that the program has; that is its own to raise."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)

    async def story():
        async with Server(Inventory, data_dir=tmp_path) as server, Client(Inventory, [server.address]) as inventory:
            await inventory.receive("apple", 3)
            assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] == 512

    with capture_logs() as lines:
        resource.setrlimit(resource.RLIMIT_NOFILE, (512, before[1]))
        try:
            run(story())
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, before)
    (limited,) = [line for line in lines if line["event"] == "connections_limited"]
    assert (limited["connections_max"], limited["open_files"]) == (256, 512)


def test_a_leader_that_stops_hands_leadership_over(tmp_path):
    """When `stop` returns another one leads, long before an election would have begun."""

    async def story():
        founders = members(3)
        slow = Config(election_timeout_ms=2_000)
        servers = [
            Server(
                Inventory, data_dir=tmp_path / str(each.node_id), node_id=each.node_id, members=founders, config=slow
            )
            for each in founders
        ]
        for server in servers:
            await server.start()
        async with Client(Inventory, [server.address for server in servers]) as inventory:
            await inventory.receive("apple", 3)
        leader = next(server for server in servers if server.status().role == "leader")
        term = leader.status().term
        await leader.stop()
        rest = [server for server in servers if server is not leader]
        assert [server.status().term for server in rest if server.status().role == "leader"] == [term + 1]
        for server in rest:
            await server.stop()

    run(story())


def test_a_failed_start_with_tls_may_be_repeated_at_once(tmp_path):
    """The address for clients, which was free, is free again: each attempt names the one that is taken."""
    authority = Authority(tmp_path / "tls")
    cert, key = map(str, authority.issue("node"))

    async def story():
        (port,) = free_ports(1)
        holder = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
        peers = f"127.0.0.1:{holder.sockets[0].getsockname()[1]}"
        tls = Tls.from_files(ca=str(authority.path), cert=cert, key=key)
        listen = Listen(clients=f"127.0.0.1:{port}", peers=peers)
        server = Server(Inventory, data_dir=tmp_path / "data", listen=listen, tls=tls)
        for _ in range(3):
            with pytest.raises(Unavailable, match="peer_listen"):
                await server.start()
        holder.close()
        await holder.wait_closed()
        async with server:
            assert server.address == f"127.0.0.1:{port}"

    run(story())


def test_all_its_ports_speak_tls_from_files(tmp_path):
    """Clients show a certificate of the authority; who speaks no TLS gets nothing."""
    authority = Authority(tmp_path / "tls")
    cert, key = map(str, authority.issue("node"))
    files = {"ca": str(authority.path), "cert": cert, "key": key}

    async def story():
        tls = Tls.from_files(**files, http="server")
        async with Server(Inventory, data_dir=tmp_path / "data", http="127.0.0.1:0", tls=tls) as server:
            async with Client(Inventory, [server.address], ssl=client_context(**files)) as inventory:
                assert await inventory.receive("apple", 3) == 3
            with pytest.raises(RaftKVError):
                async with Admin([server.address]) as admin:
                    await admin.status(2.0)
            assert {each.role for each in server.status().certificates} == {"node", "authority"}

    run(story())


def test_a_state_that_rots_is_rebuilt_at_the_next_start(tmp_path):
    """F10 on the real RocksDB: a block that is damaged is met while the node starts, and the log makes it whole."""

    async def story():
        async with Server(Inventory, data_dir=tmp_path) as server, Client(Inventory, [server.address]) as inventory:
            await asyncio.gather(*[inventory.receive(f"sku-{number:05d}", number + 1) for number in range(3000)])
            await server.node.orders.take_snapshot()
        for file in (tmp_path / "state").glob("*.sst"):
            data = bytearray(file.read_bytes())
            for position in range(100, len(data) - 2000, 2000):
                data[position] ^= 0xFF
            file.write_bytes(data)
        async with Server(Inventory, data_dir=tmp_path) as server, Client(Inventory, [server.address]) as inventory:
            for number in range(3000):
                assert await inventory.on_hand(f"sku-{number:05d}") == number + 1
        assert not (tmp_path / "state.unfit").exists()

    run(story())


class Spoiled(Rejection):
    """Nobody wants it."""

    sku: str
    days: int = 0


class Larder(StateMachine):
    """Refuses everything."""

    @command
    def put(self, sku: str) -> None:
        """Raise."""
        raise Spoiled(sku, days=self.index)

    @query
    def look(self, sku: str) -> int:
        """Raise."""
        raise Spoiled(sku)


def test_every_client_gets_a_declared_error_as_itself(tmp_path):
    """For asyncio or blocking, with a session or without, of a command, a query, a stale one, and one of a view."""

    async def story():
        async with Server(Larder, data_dir=tmp_path) as server:

            def blocking() -> list[Spoiled]:
                with BlockingClient(Larder, [server.address]) as larder:
                    return [caught(call) for call in (larder.put, larder.look, larder.look.stale)]

            def caught(call):
                with pytest.raises(Spoiled) as found:
                    call("fish")
                return found.value

            errors = await asyncio.to_thread(blocking)
            for sessions in (True, False):
                client = Client(Larder, [server.address], sessions=sessions)
                view = await client.open_view()
                calls = [
                    client.remote.put("fish"),
                    client.call("put", "fish"),
                    client.remote.look("fish"),
                    client.remote.look.stale("fish"),
                    client.read("look", "fish"),
                    view.invoke(client.method("look"), ("fish",), {}, 5.0),
                ]
                for call in calls:
                    with pytest.raises(Spoiled, match=r"^Spoiled: sku='fish', days=") as found:
                        await call
                    errors.append(found.value)
                await client.close()
        assert {(type(error), error.sku) for error in errors} == {(Spoiled, "fish")}
        assert sum(error.days > 0 for error in errors) == 5

    run(story())
