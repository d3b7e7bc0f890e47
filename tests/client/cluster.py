"""Scripted servers: one log and one machine behind several addresses, of which one leads."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from raftkv.kv import KeyValue
from raftkv.listener.answers import outcome_response, result_response
from raftkv.wire import (
    PROTOCOL_VERSION,
    FrameDecoder,
    Members,
    Request,
    RequestKind,
    Response,
    ServerHello,
    Status,
    decode_client_hello,
    decode_request,
    encode_members,
    encode_response,
    encode_server_hello,
)
from tests.client.network import Network, Pipe
from tests.listener.service import Log

Script = Callable[[Request], Response | None]

ADDRESSES = ["10.0.0.1:1", "10.0.0.2:1", "10.0.0.3:1"]


class FakeServer(asyncio.Protocol):
    """One connection of a scripted server."""

    def __init__(self, node: FakeNode) -> None:
        self.node = node
        self._decoder = FrameDecoder(1 << 24)
        self._greeted = False
        self.transport: Pipe

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, Pipe)
        self.transport = transport
        self.node.connections.append(self)

    def data_received(self, data: bytes) -> None:
        for frame in self._decoder.feed(data):
            if not self._greeted:
                decode_client_hello(frame)
                self._greeted = True
                members = self.node.members or self.node.cluster.members
                hello = ServerHello(PROTOCOL_VERSION, self.node.cluster_id, 1, KeyValue.fingerprint(), members=members)
                asyncio.get_running_loop().call_later(self.node.hello_after_s, self._greet, encode_server_hello(hello))
                continue
            request = decode_request(frame)
            self.node.requests.append(request)
            response = self.node.script(request)
            if response is not None and not self.transport.is_closing():
                self.transport.write(encode_response(response))

    def _greet(self, hello: bytes) -> None:
        if not self.transport.is_closing():
            self.transport.write(hello)


class FakeNode:
    """A server that does what its `script` says: by default what a node of the cluster does."""

    def __init__(self, cluster: FakeCluster, address: str) -> None:
        self.cluster = cluster
        self.address = address
        self.cluster_id = "cluster"
        self.members: Members | None = None
        """Whom it takes for the members, if not those of the cluster."""
        self.hello_after_s = 0.0
        self.requests: list[Request] = []
        self.connections: list[FakeServer] = []
        self.script: Script = self.behave

    def behave(self, request: Request) -> Response | None:
        """Answer as a correct node does."""
        cluster = self.cluster
        if request.kind is RequestKind.STATUS:  # asked for a sign of life
            return Response(request.id, Status.OK)
        if request.kind is RequestKind.MEMBERS and cluster.leader == self.address:
            return Response(request.id, Status.OK, encode_members(cluster.members or Members()))
        if request.kind is RequestKind.QUERY and (request.stale or cluster.leader == self.address):
            return result_response(request.id, cluster.log.index, cluster.log.query(request.payload))
        if cluster.leader != self.address:
            return Response(request.id, Status.NOT_LEADER, b"not the leader", leader=cluster.leader or "")
        index, outcome = cluster.log.apply(request.payload)
        return outcome_response(request.id, index, outcome)

    def break_connections(self) -> None:
        """The network, or the process, goes away."""
        for connection in self.connections:
            connection.transport.abort()
        self.connections.clear()

    def close_connections(self) -> None:
        """What was answered still leaves; what is asked meanwhile is done, and its answer lost."""
        for connection in self.connections:
            connection.transport.close()
        self.connections.clear()

    def die(self) -> None:
        """Nobody listens any more."""
        del self.cluster.network.listeners[self.address]
        self.break_connections()


class FakeCluster:
    """Several nodes over one log, without any consensus: whoever is `leader` appends."""

    def __init__(self, addresses: list[str] | None = None) -> None:
        self.network = Network()
        self.log = Log(KeyValue)
        self.members: Members | None = None
        """What its nodes tell of the members; None stands for nodes that are too old to tell."""
        self.nodes = [FakeNode(self, address) for address in (addresses or ADDRESSES)]
        self.leader: str | None = self.nodes[0].address
        for node in self.nodes:
            self.network.listeners[node.address] = lambda node=node: FakeServer(node)  # type: ignore[misc]

    @property
    def addresses(self) -> list[str]:
        return [node.address for node in self.nodes]

    def requests(self) -> int:
        return sum(len(node.requests) for node in self.nodes)
