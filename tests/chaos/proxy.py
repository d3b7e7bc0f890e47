"""A proxy on every link of a cluster of real processes: between nodes, and between clients and nodes.

It knows the frames of the protocol, so that faults hit whole frames and can be counted. It is not TCP: a connection
goes on although its frames vanish, come twice or overtake each other. No network does that, but the protocol's
messages have to endure it anyhow.
"""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

from raftkv.processes.cluster import NodeProcess, ProcessCluster
from raftkv.transport.tcp import split_address
from tests.chaos.lane import Conditions, Lanes, Way
from tests.chaos.relay import CLIENTS, Door, Relay

T = TypeVar("T")


class LinkProxy:
    """Stands at `doors`; `of` makes one on all links of a cluster that was made with `apart`.

    It has an event loop and a thread of its own, so that a link never waits for the test. A way (`from`, `to`) is
    treated alike on the connections that either node has made. `counts` has, by name, how often each condition did
    something to a frame, and the "reset" and "half open" connections.
    """

    def __init__(self, doors: Sequence[Door], seed: int) -> None:
        self.nodes = sorted({door.target for door in doors})
        self.told = {door.target: "{}:{}".format(*door.front) for door in doors if door.source is None}
        """The address by which others dial each node."""
        self.counts: Counter[str] = Counter()
        self._doors = doors
        self._lanes = Lanes(seed, self.counts)
        self._relays: dict[Relay, None] = {}
        """The open ones: each adds itself when it is connected to, and removes itself when it has ended."""
        self._servers: list[asyncio.Server] = []
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="raftkv-proxy", daemon=True)

    @classmethod
    def of(cls, cluster: ProcessCluster, seed: int) -> LinkProxy:
        """One that stands between the founders of `cluster`, and between them and their clients."""
        return cls([door for node_id in sorted(cluster.nodes) for door in _doors(cluster.nodes[node_id])], seed)

    def __enter__(self) -> LinkProxy:
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result()
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _listen(self) -> None:
        for door in self._doors:
            host, port = door.front

            def accept(door: Door = door) -> asyncio.Protocol:
                return Relay(door, self._lanes, self.told, self._relays).accepted

            self._servers.append(await self._loop.create_server(accept, host, port, backlog=4096))

    async def _close(self) -> None:
        for server in self._servers:
            server.close()
        for relay in list(self._relays):
            relay.reset()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    def _run(self, work: Callable[[], T]) -> T:
        """Do something on the proxy's own thread."""

        async def step() -> T:
            return work()

        return asyncio.run_coroutine_threadsafe(step(), self._loop).result()

    @property
    def ways(self) -> list[Way]:
        """Every way between two nodes."""
        return [(one, two) for one in self.nodes for two in self.nodes if one != two]

    @property
    def client_ways(self) -> list[Way]:
        """Every way from clients to nodes, and back."""
        return [way for node_id in self.nodes for way in ((CLIENTS, node_id), (node_id, CLIENTS))]

    def put(self, ways: Iterable[Way], conditions: Conditions) -> None:
        """From now on `conditions`, instead of what was there before, hold on these ways."""
        chosen = list(ways)

        def change() -> None:
            for way in chosen:
                self._lanes.of(*way).conditions = conditions
            for relay in list(self._relays):
                relay.tell_ends()

        self._run(change)

    def heal(self) -> None:
        """Every link is as it should be; connections that were kept half open are closed."""

        def change() -> None:
            self._lanes.calm()
            for relay in list(self._relays):
                relay.keeps_ends = False
                relay.tell_ends()

        self._run(change)

    def reset(self, ways: Iterable[Way]) -> int:
        """RST to both ends of every connection that was made along these ways; returns how many there were."""
        chosen = set(ways)

        def change() -> int:
            found = [relay for relay in self._relays if (relay.source, relay.target) in chosen]
            for relay in found:
                relay.reset()
            self.counts["reset"] += len(found)
            return len(found)

        return self._run(change)

    def open_half(self, ways: Iterable[Way], *, at_target: bool) -> int:
        """End these connections at their target, or at their source, while the other end hears nothing of it."""
        chosen = set(ways)

        def change() -> int:
            found = [
                relay
                for relay in self._relays
                if (relay.source, relay.target) in chosen and not (relay.accepted.is_over or relay.dialled.is_over)
            ]
            for relay in found:
                relay.open_half(dialled=at_target)
            self.counts["half open"] += len(found)
            return len(found)

        return self._run(change)

    def connections(self) -> Counter[Way]:
        """How many connections there are, by (source, target)."""
        return self._run(lambda: Counter((relay.source or CLIENTS, relay.target) for relay in self._relays))


def _doors(node: NodeProcess) -> list[Door]:
    node_id, told, own = node.node_id, node.member, node.own
    if told.peer_address == own.peer_address:
        return []  # it joined later, and is met directly
    return [
        Door(node_id, split_address(told.peer_address), split_address(own.peer_address), None),
        Door(node_id, split_address(told.client_address), split_address(own.client_address), CLIENTS),
    ]
