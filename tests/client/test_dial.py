"""From a name to a link: looked up anew each time, all its addresses tried beside each other."""

from __future__ import annotations

import asyncio
import gc
import socket
import threading
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest

from raftkv.client.dial import Dialler
from raftkv.client.link import Link
from raftkv.client.names import Names, in_turn
from raftkv.client.options import ClientOptions
from raftkv.testing.world.loop import SimLoop
from raftkv.transport import Resolver
from tests.client.cluster import FakeCluster


class Story:
    """A dialler in virtual time, whose names are in `names`, and the nodes behind these."""

    def __init__(self, *addresses: str) -> None:
        self.cluster = FakeCluster(list(addresses))
        self.network = self.cluster.network
        self.names: dict[str, list[str]] = {}
        self.options = ClientOptions()
        self.dialler = Dialler(self.options, dial=self.network.dial, resolve=self.resolve)

    async def resolve(self, host: str, _port: int) -> list[str]:
        return self.names[host]

    async def connect(self, address: str) -> str:
        """Where the link to `address` leads."""
        before = list(self.network.dialled)
        link = await self.dialler.connect(address, lambda: Link(address, self, self.options), lambda _: None)  # type: ignore[arg-type]
        assert link.is_ready
        ended = [node.address for node in self.cluster.nodes for each in node.connections if not each.transport._lost]
        link.close()
        assert self.network.dialled != before
        return ", ".join(ended)

    async def waits(self, address: str) -> float:
        """After how many seconds the attempt is given up."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        with pytest.raises(TimeoutError):
            await self.connect(address)
        return loop.time() - began


def tell(story: Callable[[], Awaitable[None]]) -> None:
    """Tell a story in virtual time."""
    loop = SimLoop()
    loop.run(story())  # type: ignore[arg-type]
    assert loop.failures == []


def test_the_second_address_of_a_name_is_tried_beside_a_silent_first() -> None:
    """An IPv6 address that swallows everything costs a head start, and exactly one connection is left."""

    async def story() -> None:
        told = Story("2001:db8::1:7001", "10.0.0.1:7001")
        told.names["db"] = ["2001:db8::1", "10.0.0.1"]
        told.network.silent.add("2001:db8::1:7001")
        assert await told.connect("db:7001") == "10.0.0.1:7001"
        assert asyncio.get_running_loop().time() == pytest.approx(0.25)

    tell(story)


def test_a_refused_address_leads_on_at_once() -> None:
    """There is nothing to wait for."""

    async def story() -> None:
        told = Story("10.0.0.1:7001")
        told.names["db"] = ["10.0.0.8", "10.0.0.9", "10.0.0.1"]
        assert await told.connect("db:7001") == "10.0.0.1:7001"
        assert asyncio.get_running_loop().time() == 0

    tell(story)


def test_a_node_that_is_slow_to_greet_is_waited_for_longer_each_time() -> None:
    """Where all clients give up after the same second and come again at once, nobody ever gets in."""

    async def story() -> None:
        told = Story("10.0.0.1:7001")
        told.names["db"] = ["10.0.0.1"]
        told.cluster.nodes[0].hello_after_s = 3.0
        for waited in (1.0, 2.0):
            assert await told.waits("db:7001") == pytest.approx(waited)
        assert await told.connect("db:7001") == "10.0.0.1:7001"
        told.cluster.nodes[0].hello_after_s = 1e9
        waits = [await told.waits("db:7001") for _ in range(6)]
        assert waits == pytest.approx([1.0, 2.0, 4.0, 8.0, 8.0, 8.0]), "it had been in time, so that begins anew"

    tell(story)


def test_a_host_that_is_not_reached_gets_no_more_time() -> None:
    """It may be gone, and there may be others to try."""

    async def story() -> None:
        told = Story("10.0.0.1:7001")
        told.names["db"] = ["10.0.0.1"]
        told.network.silent.add("10.0.0.1:7001")
        assert [await told.waits("db:7001") for _ in range(3)] == pytest.approx([1.0, 1.0, 1.0])

    tell(story)


def test_a_name_that_moves_is_followed() -> None:
    """What was found once is not kept."""

    async def story() -> None:
        told = Story("10.0.0.1:7001", "10.0.0.2:7001")
        told.names["db"] = ["10.0.0.1"]
        assert await told.connect("db:7001") == "10.0.0.1:7001"
        told.names["db"] = ["10.0.0.2"]
        assert "10.0.0.2:7001" in await told.connect("db:7001")

    tell(story)


def test_when_no_address_answers_the_reason_is_said() -> None:
    """Refused says more than silent; that all were silent is a time-out."""

    async def story() -> None:
        told = Story("10.0.0.1:7001", "10.0.0.2:7001")
        told.names["db"] = ["10.0.0.1", "10.0.0.3"]
        told.network.silent |= {"10.0.0.1:7001", "10.0.0.2:7001"}
        with pytest.raises(ConnectionRefusedError, match=r"10\.0\.0\.3"):
            await told.connect("db:7001")
        told.names["db"] = ["10.0.0.1", "10.0.0.2"]
        with pytest.raises(TimeoutError):
            await told.connect("db:7001")
        told.names["db"] = []
        with pytest.raises(OSError, match="no address"):
            await told.connect("db:7001")

    tell(story)


def test_both_families_take_turns() -> None:
    """RFC 8305: one family that does not work costs one head start, not one for each of its addresses."""
    assert in_turn(["::1", "::2", "::3", "1.1.1.1"]) == ["::1", "1.1.1.1", "::2", "::3"]
    assert in_turn(["1.1.1.1", "::1", "::2"]) == ["1.1.1.1", "::1", "::2"]
    assert in_turn([]) == []


def test_a_slow_name_is_looked_up_once_at_a_time_and_holds_up_nobody() -> None:
    """Three who wait for it share one look-up; another name, an address and the end of the loop don't wait."""
    release = threading.Event()
    asked: list[str] = []

    def lookup(host: str, port: int, **_: Any) -> Sequence[tuple[Any, ...]]:
        asked.append(host)
        if host == "slow":
            release.wait(30)
        if host == "wrong":
            raise socket.gaierror(-2, "Name or service not known")
        return [(socket.AF_INET, 0, 0, "", ("127.0.0.1", port)), (socket.AF_INET6, 0, 0, "", ("::1", port, 0, 0))]

    async def story() -> None:
        names = Names(Resolver(lookup))
        waiting = [asyncio.ensure_future(names.look_up("slow", 1)) for _ in range(3)]
        assert await names.look_up("fast", 1) == ["127.0.0.1", "::1"]
        assert await names.look_up("::1", 1) == ["::1"]
        with pytest.raises(OSError, match="wrong"):
            await names.look_up("wrong", 1)
        assert not any(task.done() for task in waiting)
        waiting[0].cancel()
        release.set()
        assert await asyncio.gather(*waiting[1:]) == [["127.0.0.1", "::1"]] * 2
        assert await names.look_up("fast", 1) == ["127.0.0.1", "::1"]

    asyncio.run(story())
    assert sorted(asked) == ["fast", "fast", "slow", "wrong"]


def test_a_callers_own_way_is_handed_names_as_they_are() -> None:
    """It may look them up itself, or need none, as a simulated network does."""
    dialled: list[tuple[str, int]] = []

    async def dial(_factory: Callable[[], asyncio.Protocol], host: str, port: int) -> None:
        dialled.append((host, port))
        raise ConnectionRefusedError("nobody listens there")

    async def story() -> None:
        options = ClientOptions()
        with pytest.raises(ConnectionRefusedError):
            await Dialler(options, dial=dial).connect("db:7001", lambda: Link("db:7001", None, options), lambda _: None)  # type: ignore[arg-type]

    tell(story)
    assert dialled == [("db", 7001)]


@pytest.mark.filterwarnings("error")
def test_an_address_whose_turn_does_not_come_is_not_tried() -> None:
    """The first answers, or nobody waits any more: what was not begun ends without a warning."""

    async def story() -> None:
        told = Story("10.0.0.1:7001")
        told.names["db"] = ["10.0.0.1", "10.0.0.2", "10.0.0.3"]
        assert await told.connect("db:7001") == "10.0.0.1:7001"
        assert told.network.dialled == ["10.0.0.1:7001"]
        gc.collect()

    tell(story)
