"""A client that says exactly what it is told to, right or wrong."""

from __future__ import annotations

import asyncio

from raftkv.wire import (
    PROTOCOL_VERSION,
    ClientHello,
    FrameDecoder,
    Request,
    RequestKind,
    Response,
    ServerHello,
    SignIn,
    decode_response,
    decode_server_hello,
    encode_client_hello,
    encode_request,
)
from tests.client.network import Network, Pipe


class RawClient(asyncio.Protocol):
    """Sends raw bytes, keeps what comes back."""

    def __init__(self) -> None:
        self._decoder = FrameDecoder(1 << 24)
        self.hello: ServerHello | None = None
        self.responses: list[Response] = []
        self.arrivals: list[int] = []
        """How many answers came in each piece of data."""
        self.lost = False
        self.transport: Pipe

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, Pipe)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        before = len(self.responses)
        for frame in self._decoder.feed(data):
            if self.hello is None:
                self.hello = decode_server_hello(frame)
            else:
                self.responses.append(decode_response(frame))
        self.arrivals.append(len(self.responses) - before)

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True

    def send(self, data: bytes) -> None:
        self.transport.write(data)

    def ask(
        self, request_id: int, payload: bytes, kind: RequestKind = RequestKind.COMMAND, *, stale: bool = False
    ) -> None:
        self.send(encode_request(Request(request_id, kind, payload, stale, 1000)))


async def connect(network: Network, address: str, *, greet: bool = True, sign_in: SignIn | None = None) -> RawClient:
    """Connect to a listener on the network in memory."""
    client = RawClient()
    host, _, port = address.rpartition(":")
    await network.dial(lambda: client, host, int(port))
    if greet:
        client.send(encode_client_hello(ClientHello(PROTOCOL_VERSION, "", sign_in)))
        await settle()
    return client


async def settle(turns: int = 20) -> None:
    """Let everything that is on its way arrive."""
    for _ in range(turns):
        await asyncio.sleep(0)
