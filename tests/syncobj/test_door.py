"""One port for both protocols, and who is let in."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import socket
import ssl
import subprocess

import msgspec
import pytest

from raftkv.client import BlockingClient
from raftkv.config import Config
from raftkv.errors import ConfigError, FrameError, Unavailable
from raftkv.syncobj import SyncObj, SyncObjConf
from raftkv.syncobj.batteries import ReplCounter
from raftkv.syncobj.door import DoorStreams, first_frame, is_client_hello
from raftkv.syncobj.machine import SyncObjMachine
from raftkv.transport import Shut, TransportLimits
from raftkv.wire import ClientHello, Hello, encode_client_hello, encode_message
from tests.syncobj.clusters import DEADLINE_S, addresses, eventually, others


def door(host, port, **limits):
    """A port for peers and clients; `limits` are those of it that matter."""
    return DoorStreams(
        host,
        int(port),
        limits=msgspec.structs.replace(TransportLimits.of(Config()), **limits),
        retry_s=1.0,
        retries_max=1,
        on_refused=str,
        ssl_server=None,
        ssl_client=None,
    )


@pytest.mark.parametrize("length", range(0, 300, 7))
def test_a_peers_hello_is_never_taken_for_a_clients(length):
    """Whatever its length: the first byte of a peer's frame is the length of what follows, and may be any."""
    hello = Hello(1, "c" * length, 1, "i", 1, "n", "SyncObj/0", False, 0, "127.0.0.1:1")
    assert not is_client_hello(first_frame(encode_message(hello), 1_000))
    assert is_client_hello(first_frame(encode_client_hello(ClientHello(1, "c" * length)), 1_000))


def test_a_frame_is_waited_for_and_not_for_ever_long():
    """Every beginning of a hello is waited on, the whole one is taken, a too long one refused."""
    frame = encode_client_hello(ClientHello(1))
    assert all(first_frame(frame[:size], 1_000) is None for size in range(len(frame)))
    assert first_frame(frame + b"more", 1_000) == first_frame(frame, 1_000)
    with pytest.raises(FrameError):
        first_frame(b"\xff" * 12, 1_000)


def test_a_client_is_turned_away_until_the_node_is_there():
    """A node takes its address before it has read its directory; whom it can't serve yet tries again elsewhere."""
    served, hello = [], encode_client_hello(ClientHello(1))

    class Client(asyncio.Protocol):
        def data_received(self, data):
            served.append(data)
            self.transport.close()

        def connection_made(self, transport):
            self.transport = transport

    async def knock(place):
        reader, writer = await asyncio.open_connection(*place)
        writer.write(hello)
        with contextlib.suppress(ConnectionError):
            assert await reader.read() == b""
        writer.close()

    async def story():
        (place,) = addresses(1)
        host, port = place.split(":")
        streams = door(host, port)
        await streams.listen(Shut, lambda kind, reason, address: None)
        await knock((host, port))
        assert not served
        streams.clients = Client
        await knock((host, port))
        assert served == [hello]
        streams.close()

    asyncio.run(asyncio.wait_for(story(), DEADLINE_S))


def test_who_says_nothing_keeps_nobody_out():
    """Beyond so many that have not said their first words, the oldest of them goes."""
    hello = encode_client_hello(ClientHello(1))

    async def story():
        served = asyncio.get_running_loop().create_future()

        class Client(asyncio.Protocol):
            def data_received(self, data):
                served.set_result(data)

        (place,) = addresses(1)
        host, port = place.split(":")
        streams = door(host, port, strangers_max=2)
        await streams.listen(Shut, lambda kind, reason, address: None)
        streams.clients = Client
        mute = [await asyncio.open_connection(host, port) for _ in range(3)]
        with contextlib.suppress(ConnectionError):
            assert await mute[0][0].read() == b""
        _, writer = await asyncio.open_connection(host, port)
        writer.write(hello)
        assert await served == hello and len(streams.strangers) == 1
        for _, each in (*mute, (None, writer)):
            each.close()
        streams.close()

    asyncio.run(asyncio.wait_for(story(), DEADLINE_S))


def test_garbage_at_the_door_harms_nobody():
    """It is shown out, and the node goes on."""
    (place,) = addresses(1)
    counter = ReplCounter()
    node = SyncObj(place, [], consumers=[counter])
    try:
        host, port = place.split(":")
        with socket.create_connection((host, int(port)), DEADLINE_S) as stranger:
            stranger.sendall(b"GET / HTTP/1.1\r\n\r\n")
            assert stranger.recv(100) == b""
        assert counter.inc(sync=True, timeout=DEADLINE_S) == 1
    except ConnectionResetError:
        assert counter.inc(sync=True, timeout=DEADLINE_S) == 1
    finally:
        node.destroy()


@pytest.fixture(scope="module")
def contexts(tmp_path_factory):
    """A certificate of the cluster's own, which both sides must show."""
    if shutil.which("openssl") is None:
        pytest.skip("no openssl to make a certificate with")
    directory = tmp_path_factory.mktemp("tls")
    certificate, key = directory / "certificate.pem", directory / "key.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
    subprocess.run([*command, "-keyout", key, "-out", certificate], check=True, capture_output=True)
    made = []
    for purpose in (ssl.Purpose.CLIENT_AUTH, ssl.Purpose.SERVER_AUTH):
        context = ssl.create_default_context(purpose, cafile=str(certificate))
        context.load_cert_chain(certificate, key)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_REQUIRED
        made.append(context)
    return tuple(made)


def test_with_certificates_nodes_may_listen_anywhere_and_strangers_get_nowhere(contexts):
    """Peers and calls go over TLS; a client without a certificate is not served."""
    places = addresses(2)
    counters = [ReplCounter(), ReplCounter()]
    nodes = []
    try:
        for place, counter in zip(places, counters, strict=True):
            bind = place.replace("127.0.0.1", "0.0.0.0")  # noqa: S104 (that is what is tested)
            conf = SyncObjConf(peerTLS=contexts, bindAddress=bind)
            nodes.append(SyncObj(place, others(place, places), conf, consumers=[counter]))
        for number, counter in enumerate(counters, 1):
            assert counter.inc(sync=True, timeout=DEADLINE_S) == number
        eventually(lambda: all(node.hasQuorum for node in nodes))
        with BlockingClient(SyncObjMachine, places, deadline_s=0.5) as client, pytest.raises(Unavailable):
            client.barrier()
    finally:
        for node in nodes:
            node.destroy()


def test_certificates_that_are_not_demanded_are_no_certificates(contexts):
    """TLS alone keeps nobody out."""
    server, _ = contexts
    lenient = ssl.create_default_context()
    lenient.check_hostname = False
    lenient.verify_mode = ssl.CERT_NONE
    with pytest.raises(ConfigError, match="CERT_REQUIRED"):
        SyncObj("0.0.0.0:7777", [], SyncObjConf(peerTLS=(server, lenient)))


def test_nodes_with_different_codecs_do_not_meet():
    """What one sends the other could not read, or must not: they refuse each other's hello."""
    places = addresses(2)
    nodes = [
        SyncObj(place, others(place, places), SyncObjConf(codec=codec))
        for place, codec in zip(places, ("pickle", "msgpack"), strict=True)
    ]
    try:
        links = nodes[0]._node.transport.links
        assert "runs the state machine SyncObj-" in eventually(lambda: next(iter(links().values())).refused)
        assert nodes[0]._getLeader() is None
    finally:
        for node in nodes:
            node.destroy()
