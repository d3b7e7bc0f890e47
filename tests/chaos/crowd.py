"""A process that is many clients at once, for as long as nobody kills it.

    python -m tests.chaos.crowd --connections 2000 --outstanding 1 --client 127.0.0.1:7001

Every connection keeps so many increments of one counter outstanding, in no session. The first line that it prints
says that all are connected; then it prints a line a second, with how many answers of each kind there were so far.
"""

from __future__ import annotations

import argparse
import asyncio
import resource
import sys

import msgspec
import uvloop

from raftkv.errors import FrameError
from raftkv.kv import KeyValue
from raftkv.machine import NO_SESSION
from raftkv.transport.tcp import split_address
from raftkv.wire import (
    PROTOCOL_VERSION,
    ClientHello,
    FrameDecoder,
    Request,
    RequestKind,
    decode_response,
    encode_client_hello,
    encode_request,
)

KEY = b"crowd"


class Standing(msgspec.Struct):
    """How the crowd stands; a line of the output."""

    connected: int = 0
    """Connections that were greeted by the node and not closed since."""
    closed: int = 0
    """Those that the node, or nobody, ended or refused."""
    answers: dict[str, int] = {}
    """By their status."""


class One(asyncio.Protocol):
    """One client of the crowd."""

    def __init__(self, standing: Standing, outstanding: int, rest_s: float) -> None:
        self._standing = standing
        self._outstanding = outstanding
        self._rest_s = rest_s
        self._decoder = FrameDecoder(1 << 24)
        self._number = 0
        self._is_greeted = False
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Say hello."""
        self._transport = transport  # type: ignore[assignment]
        self._transport.write(encode_client_hello(ClientHello(PROTOCOL_VERSION)))

    def data_received(self, data: bytes) -> None:
        """For every answer another request, now or after a rest."""
        try:
            frames = self._decoder.feed(data)
        except FrameError:
            self._transport.abort()
            return
        if frames and not self._is_greeted:
            self._is_greeted = True
            self._standing.connected += 1
            self._ask(self._outstanding)
            del frames[0]
        for frame in frames:
            status = decode_response(frame).status.name
            self._standing.answers[status] = self._standing.answers.get(status, 0) + 1
        if frames and self._rest_s:
            asyncio.get_running_loop().call_later(self._rest_s, self._ask, len(frames))
        elif frames:
            self._ask(len(frames))

    def _ask(self, count: int) -> None:
        method = KeyValue.methods["increment"]
        payload = method.command_payload(NO_SESSION, 0, 0, method.encode_args((KEY, 1), {}))
        requests = []
        for _ in range(count):
            self._number += 1
            requests.append(encode_request(Request(self._number, RequestKind.COMMAND, payload, False, 10_000)))
        if not self._transport.is_closing():
            self._transport.write(b"".join(requests))

    def connection_lost(self, exc: Exception | None) -> None:
        """The node has closed it."""
        self._standing.closed += 1
        self._standing.connected -= self._is_greeted


async def gather(options: argparse.Namespace) -> None:
    """Connect all, then report for ever."""
    standing, loop = Standing(), asyncio.get_running_loop()
    gate = asyncio.Semaphore(64)
    addresses = [split_address(each) for each in options.client]

    async def connect(number: int) -> None:
        host, port = addresses[number % len(addresses)]
        async with gate:
            try:
                await loop.create_connection(lambda: One(standing, options.outstanding, options.rest), host, port)
            except OSError:
                standing.closed += 1

    await asyncio.gather(*[connect(number) for number in range(options.connections)])
    while True:
        if standing.connected + standing.closed >= options.connections:
            sys.stdout.write(msgspec.json.encode(standing).decode() + "\n")
            sys.stdout.flush()
        await asyncio.sleep(options.every)


def main() -> None:
    """Read the command line, and stay."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--connections", type=int, default=2000)
    parser.add_argument("--outstanding", type=int, default=1, help="requests that each keeps outstanding")
    parser.add_argument("--rest", type=float, default=0.0, help="seconds between an answer and the next request")
    parser.add_argument("--every", type=float, default=0.2, help="seconds between two lines")
    parser.add_argument("--client", action="append", required=True, metavar="HOST:PORT")
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(gather(parser.parse_args()))


if __name__ == "__main__":
    main()
