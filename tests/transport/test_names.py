"""Names of peers that are looked up slowly, in vain or wrongly (F81)."""

from __future__ import annotations

import asyncio
import random
import socket
import subprocess
import sys
import threading
from typing import Any

import pytest

from raftkv.model import NodeId
from raftkv.transport import TcpTransport
from raftkv.transport.limits import TransportLimits
from raftkv.transport.memory import NameAnswer, pause
from raftkv.transport.mesh import Mesh
from raftkv.transport.racing import connect_first
from raftkv.transport.reasons import AGAIN_S, PATIENCE_S, NameUnknown, Reason, Trouble, Unreached
from raftkv.transport.resolver import LOOKUPS_MAX, Resolver
from tests.logged import capture_logs
from tests.transport.worlds import CONFIG, MemoryWorld, TcpWorld, UvloopWorld, tell

UNKNOWN = NameAnswer(())


class NamedWorld(MemoryWorld):
    """Names are looked up in `answers`; addresses that are not there stand for themselves, at once."""

    def __init__(self) -> None:
        super().__init__()
        self.answers: dict[str, NameAnswer] = {}
        self.network.naming = lambda node, address: self.answers.get(address)


def test_a_slow_lookup_leads_to_a_link_and_holds_up_no_other() -> None:
    """One that takes ten times as long as a dial may (F81), while another peer is met at once."""

    async def story(world: NamedWorld) -> None:
        world.answers["node-2:1"] = NameAnswer(("node-2:1",), late_s=20)
        one = await world.start(1)
        for node_id in (2, 3):
            await world.start(node_id)
        world.introduce(1, 2, 3)
        loop = asyncio.get_running_loop()
        await one.until(lambda: 3 in one.connected)
        assert loop.time() < 1
        await world.until(lambda: world.nodes[1].links()[2].unreached is not None)
        why = world.nodes[1].links()[2].unreached
        assert why is not None and why.reason is Reason.LOOKUP and "being looked up" in why.text
        await one.until(lambda: 2 in one.connected)
        assert 20 <= loop.time() < 21
        assert world.nodes[1].links()[2].unreached is None

    with capture_logs() as lines:
        tell(story, NamedWorld)
    said = [line for line in lines if line["event"] == "peer_unreachable"]
    assert [(line["peer"], line["kind"]) for line in said] == [(2, "lookup")] * 2  # by nodes 1 and 3


def test_an_unknown_name_is_said_and_found_once_it_is_known() -> None:
    """In the status, and in the log at once and then once a minute (F81); the name is asked for again and again."""

    async def story(world: NamedWorld) -> None:
        world.answers["node-2:1"] = UNKNOWN
        one, _ = await world.start(1), await world.start(2)
        world.introduce(1, 2)
        await pause(2.5 * AGAIN_S)
        why = world.nodes[1].links()[2].unreached
        assert why is not None and why.reason is Reason.NAME and "node-2:1" in why.text
        del world.answers["node-2:1"]
        await one.until(lambda: one.connected)

    with capture_logs() as lines:
        tell(story, NamedWorld)
    assert len([line for line in lines if line["event"] == "peer_unreachable" and line["kind"] == "name"]) == 3


@pytest.mark.parametrize("answer", [UNKNOWN, NameAnswer(("node-2:1",), late_s=1000), NameAnswer(("node-3:1",))])
def test_where_a_peer_was_found_it_is_looked_for_again(answer: NameAnswer) -> None:
    """Its name is forgotten, takes for ever, or leads to another node (F81): the last good address is still there."""

    async def story(world: NamedWorld) -> None:
        world.answers["node-2:1"] = NameAnswer(("node-2:1",), late_s=0.01)
        one, _, three = await world.start(1), await world.start(2), await world.start(3)
        world.introduce(1, 2)
        world.nodes[3].set_peers({})
        await one.until(lambda: one.connected)
        world.answers["node-2:1"] = answer
        world.network.reset(1, 2)
        await one.until(lambda: len(one.connected) == 2)
        assert asyncio.get_running_loop().time() < 5
        assert not three.messages

    tell(story, NamedWorld)


def test_a_name_that_leads_elsewhere_now_is_followed() -> None:
    """A peer that has moved is found at its new address, whatever was good before (F81)."""

    async def story(world: NamedWorld) -> None:
        world.answers["two"] = NameAnswer(("old:1",))
        one = await world.start(1)
        await world.start(2, address="old:1")
        world.nodes[1].set_peers({2: "two"})
        await one.until(lambda: one.connected)
        await world.stop(2)
        await world.start(2, address="new:1")
        world.answers["two"] = NameAnswer(("new:1",))
        await one.until(lambda: len(one.connected) == 2)

    tell(story, NamedWorld)


def test_all_addresses_of_a_name_are_tried_in_turn() -> None:
    """The wrong node answers at the first: the next try begins with the second (F81)."""

    async def story(world: NamedWorld) -> None:
        world.answers["two"] = NameAnswer(("nobody:1", "node-3:1", "node-2:1"))
        one, _, _ = await world.start(1), await world.start(2), await world.start(3)
        world.nodes[1].set_peers({2: "two"})
        await one.until(lambda: one.connected)

    tell(story, NamedWorld)


def answering(hosts: dict[str, list[str]], hangs: threading.Event) -> Any:
    """A lookup as `socket.getaddrinfo`; names that are not in `hosts` are not known, "slow" waits."""

    def lookup(host: str, port: int, **more: Any) -> list[tuple[Any, ...]]:
        if host == "slow":
            hangs.wait()
        if host not in hosts:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return [info for each in hosts[host] for info in socket.getaddrinfo(each, port, **more)]

    return lookup


@pytest.mark.parametrize("kind", [TcpWorld, UvloopWorld], ids=["tcp", "uvloop"])
def test_sockets_try_every_address_of_a_name(kind: type[TcpWorld]) -> None:
    """Nobody listens at the IPv6 address that comes first, and at another: the third leads to a link (F81)."""

    class Named(kind):  # type: ignore[valid-type, misc]
        def transport(self, node_id: NodeId, address: str | None, limits: TransportLimits) -> Mesh:
            resolver = Resolver(answering({"two.test": ["::1", "127.0.0.9", "127.0.0.1"]}, threading.Event()))
            draw = random.Random(node_id).randrange
            return TcpTransport(node_id, "127.0.0.1", 0, config=CONFIG, draw=draw, limits=limits, resolver=resolver)

    async def story(world: TcpWorld) -> None:
        one, _ = await world.start(1), await world.start(2)
        world.nodes[1].set_peers({2: "two.test:" + world.nodes[2].address.rpartition(":")[2], 3: "three.test:1"})
        await one.until(lambda: one.connected)
        await world.until(lambda: world.nodes[1].links()[3].unreached)
        assert world.nodes[1].links()[3].unreached == Unreached(
            Reason.NAME, "the name 'three.test' can't be looked up: Name or service not known"
        )

    tell(story, Named)


def test_who_refuses_is_named() -> None:
    """Each place that was tried, and why it is not the one."""

    async def main() -> None:
        with pytest.raises(ConnectionRefusedError) as caught:
            await connect_first(["127.0.0.1:1", "127.0.0.2:1"])
        assert caught.value.strerror == "Connection refused at 127.0.0.1:1; Connection refused at 127.0.0.2:1"

    asyncio.run(main())


def test_lookups_wait_for_a_thread_not_for_each_other() -> None:
    """As many names as there are threads may hang (F81): one fewer leaves the next its turn, numbers need none."""

    async def main() -> None:
        hangs = threading.Event()
        resolver = Resolver(answering({"good": ["127.0.0.1"], "slow": ["127.0.0.2"]}, hangs))
        slow = [resolver.look_up("slow", 1) for _ in range(LOOKUPS_MAX - 1)]
        good = resolver.look_up("good", 7)
        assert isinstance(good, asyncio.Future)
        assert await good == ("127.0.0.1:7",)
        slow += [resolver.look_up("slow", 1) for _ in range(3)]
        assert resolver.look_up("127.0.0.1", 7) == ("127.0.0.1:7",)
        assert resolver.look_up("::1", 7) == ("[::1]:7",)
        for each in slow[:5]:
            assert isinstance(each, asyncio.Future)
            each.cancel()
        hangs.set()
        for each in slow[5:]:
            assert isinstance(each, asyncio.Future)
            assert await each == ("127.0.0.2:1",)

    asyncio.run(main())


@pytest.mark.parametrize("name", ["", "a\0b", "x" * 300, "ä" * 80, "no.such.name.invalid."])
def test_what_is_no_name_is_unknown(name: str) -> None:
    """Whatever somebody wrote as an address ends as one kind of error."""

    async def main() -> None:
        resolver = Resolver(answering({}, threading.Event()))
        found = resolver.look_up(name, 1)
        assert isinstance(found, asyncio.Future)
        with pytest.raises(NameUnknown):
            await found

    asyncio.run(main())


PROGRAM = """
import asyncio, socket, threading, sys
def hang(*args, **more):
    threading.Event().wait()
from raftkv.transport.resolver import Resolver
async def main():
    resolver = Resolver(hang)
    futures = [resolver.look_up("slow", 1) for _ in range(100)]
    done, _ = await asyncio.wait(futures, timeout=0.01)
    print(len(done))
asyncio.run(main())
"""


def test_lookups_that_hang_do_not_keep_a_process_from_its_end() -> None:
    """A hundred of them, and the program ends when it is done (F81)."""
    ended = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=60, check=True)
    assert (ended.stdout, ended.stderr) == ("0\n", "")


def test_the_log_hears_of_each_reason_now_and_then() -> None:
    """What is usual only if it lasts; each other reason at once, all of them once a minute; anew when it is over."""
    trouble = Trouble()
    refused, name = Unreached(Reason.REFUSED, "r"), Unreached(Reason.NAME, "n")
    said = [trouble.note(refused, at) for at in (0.0, 1.0, PATIENCE_S, PATIENCE_S + 1)]
    assert said == [False, False, True, False]
    assert [trouble.note(name, 7.0), trouble.note(refused, 8.0), trouble.note(name, 9.0)] == [True, False, False]
    assert trouble.note(refused, PATIENCE_S + AGAIN_S)
    trouble.over()
    assert trouble.now is None
    assert not trouble.note(refused, 100.0)
    assert trouble.note(name, 100.0)


def test_a_lookup_imports_nothing():
    """At its first use Python would import a codec, which fails while there are too many open files."""
    program = (
        "import sys, raftkv.transport.resolver as r; before = set(sys.modules); "
        "r.Resolver().look_up('127.0.0.1', 1); print(sorted(set(sys.modules) - before))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
