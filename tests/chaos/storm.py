"""A process that says nothing but wrong things to nodes, as fast as it is told to, and counts what was heard.

    python -m tests.chaos.storm --seed 1 --frames 30000 --client 127.0.0.1:7001 --peer 1=127.0.0.1:8001

It prints one JSON object: how many malformed frames of each kind a node has reacted to, by the end of the
connection or by the answer that is due. What nobody reacted to in time is counted apart, and is a fault of the node.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import random
import sys
from collections.abc import Awaitable, Callable
from functools import partial

import msgspec
import uvloop

from raftkv.errors import FrameError
from raftkv.transport.tcp import split_address
from raftkv.wire import (
    PROTOCOL_VERSION,
    FrameDecoder,
    Hello,
    HelloReply,
    Ping,
    ServerHello,
    decode_message,
    decode_response,
    decode_server_hello,
    encode_message,
)
from tests.chaos.malformed import ClientTalk, PeerTalk, http_piece

STRANGERS = 900
"""The first of the ids that it gives itself at the peer port: of no members."""

REACTION_S = 20.0
"""A node that has not reacted by then does not react."""

REQUESTS = 24
"""Malformed requests on one connection, before what ends it."""


class StormHeard(msgspec.Struct):
    """What came of it all."""

    heard: dict[str, int] = {}
    """Malformed frames by port and kind that were answered, or whose connection the node has closed."""
    ignored: dict[str, int] = {}
    """Those without any reaction."""
    refused: int = 0
    """Connections that nobody accepted."""


class Talker(asyncio.Protocol):
    """One connection: what was said comes in frames, and its end is awaited."""

    def __init__(self, first: bytes) -> None:
        loop = asyncio.get_running_loop()
        self._first = first
        self._decoder = FrameDecoder(1 << 26)
        self._wanted = 0
        self._enough: asyncio.Future[None] = loop.create_future()
        self.frames: list[bytes] = []
        self.ended: asyncio.Future[None] = loop.create_future()
        self.transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin to talk at once."""
        self.transport = transport  # type: ignore[assignment]
        if self._first:
            self.transport.write(self._first)

    def data_received(self, data: bytes) -> None:
        """Answers; those of HTTP are no frames, and nobody looks at them."""
        with contextlib.suppress(FrameError):
            self.frames += self._decoder.feed(data)
        if len(self.frames) >= self._wanted > 0 and not self._enough.done():
            self._enough.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:
        """The node has had enough."""
        for future in (self._enough, self.ended):
            if not future.done():
                future.set_result(None)

    async def hear(self, count: int) -> bool:
        """Wait until so many frames have come; False when they don't."""
        self._wanted = count
        if self._enough.done() and not self.ended.done():
            self._enough = asyncio.get_running_loop().create_future()
        if len(self.frames) < count:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(asyncio.shield(self._enough), REACTION_S)
        return len(self.frames) >= count

    async def end(self, last: bytes) -> bool:
        """Say the last thing, and wait for the end; False when it doesn't come."""
        if not self.transport.is_closing():
            self.transport.write(last)
            with contextlib.suppress(OSError, RuntimeError):
                self.transport.write_eof()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(asyncio.shield(self.ended), REACTION_S)
        self.transport.abort()
        return self.ended.done()


class Storm:
    """Conversations with one cluster, each drawn from the seed."""

    def __init__(self, seed: int, number: int, told: StormHeard) -> None:
        self._dice = random.Random(f"{seed}.{number}")
        self._node_id = STRANGERS + number
        self._told = told
        self._client = ClientTalk()
        self.identity: ServerHello | None = None

    async def talk(self, address: str, first: bytes = b"") -> Talker | None:
        """Connect; None when nobody is there."""
        host, port = split_address(address)
        try:
            async with asyncio.timeout(REACTION_S):
                _, talker = await asyncio.get_running_loop().create_connection(lambda: Talker(first), host, port)
        except OSError:
            self._told.refused += 1
            return None
        return talker

    def count(self, name: str, heard: bool, times: int = 1) -> None:
        """Malformed frames more."""
        if times:
            counts = self._told.heard if heard else self._told.ignored
            counts[name] = counts.get(name, 0) + times

    async def client(self, address: str) -> None:
        """Nonsense instead of a hello, or many requests that nobody can read and then nonsense."""
        greeted = self._dice.random() < 0.7
        piece = self._client.piece(self._dice, greeted=greeted)
        if not greeted:
            talker = await self.talk(address)
            if talker is not None:
                self.count(f"client/{piece.kind}", await talker.end(piece.data))
            return
        requests = [self._client.request(self._dice, number).data for number in range(REQUESTS)]
        talker = await self.talk(address, self._client.greeting() + b"".join(requests))
        if talker is None:
            return
        await talker.hear(1 + REQUESTS)
        answered = len({decode_response(frame).id for frame in talker.frames[1:]})
        if talker.frames:
            self.identity = decode_server_hello(talker.frames[0])
        self.count("client/payload", True, answered)
        self.count("client/payload", False, REQUESTS - answered)
        self.count(f"client/{piece.kind}", await talker.end(piece.data))

    async def peer(self, address: str, to: int) -> None:
        """Nonsense instead of a hello; or a true one, what nobody asked for, and nonsense."""
        talk = PeerTalk(self._hello())
        if self.identity is None or self._dice.random() < 0.5:
            piece = talk.piece(self._dice, greeted=False)
            talker = await self.talk(address)
            if talker is not None:
                self.count(f"peer/{piece.kind}", await talker.end(piece.data))
            return
        talker = await self.talk(address, talk.greeting())
        if talker is None:
            return
        if await talker.hear(1) and _is_accepted(talker.frames[0]):
            untimely = [talk.untimely(self._dice, to) for _ in range(self._dice.randrange(8))]
            talker.transport.write(encode_message(Ping(1)) + b"".join(untimely) + encode_message(Ping(2)))
            heard = await talker.hear(3)  # the second pong: everything before it was taken in
            if heard:
                self.count("peer/untimely", True, len(untimely))
            elif untimely:
                self.count("peer/untimely", talker.ended.done())  # one of them was too much, and the rest unheard
        piece = talk.piece(self._dice, greeted=True)
        self.count(f"peer/{piece.kind}", await talker.end(piece.data))

    def _hello(self) -> Hello:
        known = self.identity
        cluster, fingerprint = (known.cluster_id, known.fingerprint) if known is not None else ("?", "?")
        return Hello(PROTOCOL_VERSION, cluster, self._node_id, "storm", 1, "storm", fingerprint, False, 0)

    async def http(self, address: str) -> None:
        """A request that is none."""
        piece = http_piece(self._dice)
        talker = await self.talk(address)
        if talker is not None:
            self.count(f"http/{piece.kind}", await talker.end(piece.data))


def _is_accepted(frame: bytes) -> bool:
    reply = decode_message(frame)
    return isinstance(reply, HelloReply) and reply.hello is not None


async def rage(options: argparse.Namespace) -> StormHeard:
    """Talk until so many frames were heard, or time is up."""
    told, loop = StormHeard(), asyncio.get_running_loop()
    until = loop.time() + options.seconds
    storms = [Storm(options.seed, number, told) for number in range(options.talkers)]

    async def one(number: int, storm: Storm) -> None:
        dice = random.Random(f"{options.seed}.{number}.port")
        todo: list[Callable[[], Awaitable[None]]] = [partial(storm.client, each) for each in options.client]
        todo += [partial(storm.peer, address, int(node_id)) for node_id, address in options.peer]
        todo += [partial(storm.http, each) for each in options.http]
        while loop.time() < until and sum(told.heard.values()) < options.frames:
            began = loop.time()
            await dice.choice(todo)()
            if options.rest:
                await asyncio.sleep((loop.time() - began) * options.rest)

    await asyncio.gather(*[one(number, storm) for number, storm in enumerate(storms)])
    return told


def main() -> None:
    """Read the command line, rage, print what came of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--frames", type=int, default=10_000, help="so many malformed frames, heard ones")
    parser.add_argument("--seconds", type=float, default=60.0, help="but no longer than this")
    parser.add_argument("--talkers", type=int, default=8, help="conversations at a time")
    parser.add_argument("--rest", type=float, default=0.0, help="rest so many times as long as each conversation took")
    parser.add_argument("--client", action="append", default=[], metavar="HOST:PORT")
    parser.add_argument(
        "--peer", action="append", default=[], metavar="ID=HOST:PORT", type=lambda text: text.split("=")
    )
    parser.add_argument("--http", action="append", default=[], metavar="HOST:PORT")
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        told = runner.run(rage(parser.parse_args()))
    sys.stdout.write(msgspec.json.encode(told).decode() + "\n")


if __name__ == "__main__":
    main()
