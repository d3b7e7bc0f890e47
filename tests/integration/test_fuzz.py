"""Malformed frames, slow strangers and other protocols, at the ports of real nodes under load."""

from __future__ import annotations

import asyncio
import contextlib
import random
import shutil
import socket
import ssl
import struct
import subprocess
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raftkv.client import Admin
from raftkv.listener import ClientLimits
from raftkv.processes.cluster import NodeProcess
from raftkv.transport.tcp import split_address
from raftkv.wire import PROTOCOL_VERSION, Hello, encode_frame
from tests.chaos.clients import MACHINE, recorded
from tests.chaos.malformed import STREAMS, ClientTalk, PeerTalk, http_piece
from tests.chaos.probe import events
from tests.chaos.stage import DEADLINE_S, ChaosStage
from tests.chaos.strangers import Malformed, SlowStrangers, VanishingCrowd
from tests.forked import ForkedCluster
from tests.integration.nodes import start, tell, with_http

PEER_TALK = PeerTalk(Hello(PROTOCOL_VERSION, "another cluster", 900, "i", 1, "n", "Workload/x", False, 0))


def is_healthy(address: str) -> bool:
    """What a monitor sees."""
    with urllib.request.urlopen(f"http://{address}/health", timeout=DEADLINE_S) as answer:
        return answer.status == 200


def test_strangers_cost_nobody_but_themselves(tmp_path: Path) -> None:
    """20,000 malformed frames of all kinds at all ports, slow strangers, a small crowd that vanishes: no node dies or
    grows, every frame gets a reaction, clients are served, the log names some and counts the rest (fuzz)."""

    async def story() -> None:
        cluster = ForkedCluster(tmp_path, 3, arguments=MACHINE)
        https = with_http(cluster)
        with cluster:
            stage = start(cluster, tmp_path)
            await stage.leader()
            malformed = Malformed(stage.dice, 20_000)
            async with recorded(cluster.addresses) as clients:
                for fault in (
                    malformed,
                    SlowStrangers(stage.dice, each=15),
                    VanishingCrowd(stage.dice, connections=200),
                ):
                    await fault.inject(stage)
                    await clients.more(20)
                    await fault.heal(stage)
                    assert stage.fired[fault.kind], f"{fault.describe()} did nothing"
            assert malformed.told is not None
            kinds = {f"{port}/{kind}" for port in ("peer", "client") for kind in (*STREAMS, "nesting", "order")}
            assert set(malformed.told.heard) >= kinds
            assert all(is_healthy(address) for address in https)

    tell(story())


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[NodeProcess, str]]:
    """One node and its HTTP port."""
    cluster = ForkedCluster(tmp_path_factory.mktemp("target"), 1, arguments=MACHINE)
    (http,) = with_http(cluster)
    with cluster:
        asyncio.run(_until_served(start(cluster, cluster.directory)))
        yield cluster.nodes[1], http


async def _until_served(stage: ChaosStage) -> None:
    await stage.leader()


async def _status(node: NodeProcess) -> str:
    async with Admin([node.own.client_address]) as admin:
        return str((await admin.status())["role"])


@st.composite
def sayings(draw: st.DrawFn) -> list[bytes]:
    """What a stranger says, piece by piece: malformed frames, true ones, and either of them damaged."""
    dice = draw(st.randoms(use_true_random=False))
    client = ClientTalk()
    makers = [
        lambda: client.greeting(),
        lambda: client.piece(dice, greeted=True).data,
        lambda: client.request(dice, dice.randrange(9)).data,
        lambda: PEER_TALK.greeting(),
        lambda: PEER_TALK.piece(dice, greeted=False).data,
        lambda: http_piece(dice).data,
        lambda: encode_frame(draw(st.binary(max_size=64))),
        lambda: draw(st.binary(min_size=1, max_size=64)),
    ]
    said = [draw(st.sampled_from(makers))() for _ in range(draw(st.integers(1, 4)))]
    if draw(st.booleans()):
        at = draw(st.integers(0, len(said) - 1))
        cut = draw(st.integers(1, len(said[at])))
        said[at] = said[at][:cut]
    return said


@settings(max_examples=120, deadline=None)
@given(st.sampled_from(["client", "peer", "http"]), sayings())
def test_nothing_that_is_said_to_a_node_ends_it(target: tuple[NodeProcess, str], port: str, said: list[bytes]) -> None:
    """Whatever hypothesis makes of frames: the connection ends when its other end has, and the node goes on."""
    node, http = target
    address = {"client": node.own.client_address, "peer": node.own.peer_address, "http": http}[port]
    with socket.create_connection(split_address(address), DEADLINE_S) as stranger:
        try:
            for data in said:
                stranger.sendall(data)
            stranger.shutdown(socket.SHUT_WR)
            while stranger.recv(65536):
                pass
        except OSError as exc:  # the node has closed it already
            assert not isinstance(exc, TimeoutError)
    assert node.is_running
    assert asyncio.run(_status(node)) == "leader"


def test_slow_and_silent_strangers_hold_up_nobody(target: tuple[NodeProcess, str]) -> None:
    """150 at each port who say nothing, half a frame, or hang up on one side only, and a port scan: others are
    served meanwhile, and all of them are closed by the node's own clock (slow loris, half-open)."""
    node, http = target
    said = {
        node.own.client_address: [b"", b"\x10", ClientTalk().greeting() + encode_frame(bytes(99))[:50]],
        node.own.peer_address: [b"", b"\x10", PEER_TALK.greeting()[:30]],
        http: [b"", b"GET / HT", b"GET / HTTP/1.1\r\nX-A: b\r\n"],
    }
    with contextlib.ExitStack() as held:
        strangers: list[socket.socket] = []
        for address, beginnings in said.items():
            for number in range(150):
                one = held.enter_context(socket.create_connection(split_address(address), DEADLINE_S))
                one.sendall(beginnings[number % 3])
                strangers.append(one)
            for _ in range(100):  # a port scan
                socket.create_connection(split_address(address), DEADLINE_S).close()
        assert is_healthy(http)
        assert asyncio.run(_status(node)) == "leader"
        # A frame of a client that said hello may take 30 s; everybody else has some seconds.
        patient = strangers[2:150:3]
        assert all(_ends(one) for one in strangers if one not in patient)
    assert events(node)["stranger_refused"] and events(node)["client_refused"]


def _ends(stranger: socket.socket) -> bool:
    """Whether the node closes it."""
    stranger.settimeout(DEADLINE_S)
    try:
        while stranger.recv(65536):
            pass
    except TimeoutError:
        return False
    except ConnectionError:
        return True
    return True


@pytest.fixture
def certificate(tmp_path: Path) -> list[str]:
    """A certificate for this host, signed by itself, as options."""
    if shutil.which("openssl") is None:
        pytest.skip("no openssl to make a certificate with")
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    command += ["-days", "2", "-subj", "/CN=node", "-addext", "subjectAltName=IP:127.0.0.1"]
    subprocess.run([*command, "-keyout", str(key), "-out", str(cert)], check=True, capture_output=True)
    return ["--tls-ca", str(cert), "--tls-cert", str(cert), "--tls-key", str(key)]


def test_plain_text_at_a_port_with_tls_is_refused_in_few_words(tmp_path: Path, certificate: list[str]) -> None:
    """Frames, HTTP and noise without TLS: closed, no flood of stack traces, and those with a certificate served."""
    with ForkedCluster(tmp_path / "nodes", 1, arguments=[*MACHINE, *certificate]) as cluster:
        cluster.start_all()
        node = cluster.nodes[1]
        context = ssl.create_default_context(cafile=certificate[1])
        context.load_cert_chain(certificate[3], certificate[5])

        async def served() -> str:
            async with Admin([node.own.client_address], ssl=context) as admin:
                return str((await admin.status(DEADLINE_S))["role"])

        asyncio.run(served())
        for address in (node.own.client_address, node.own.peer_address):
            for number in range(60):
                with socket.create_connection(split_address(address), DEADLINE_S) as stranger:
                    stranger.sendall(
                        [ClientTalk().greeting(), b"GET / HTTP/1.1\r\n\r\n", struct.pack("<QQ", 1, 2)][number % 3]
                    )
                    assert _ends(stranger)
        with socket.create_connection(split_address(node.own.client_address), DEADLINE_S) as mute:
            mute.sendall(b"\x16\x03\x01\x02")  # the beginning of a handshake that does not go on
            mute.settimeout(4 * ClientLimits().hello_timeout_s)
            assert mute.recv(1) == b""
        assert asyncio.run(served()) == "leader"

        async def said() -> bool | None:
            return (events(node)["client_refused"] > 0 and events(node)["stranger_refused"] > 0) or None

        asyncio.run(ChaosStage(cluster, random.Random(1), tmp_path).until(said, "the log naming those without TLS"))
        assert node.log_path.read_text().count("\n") < 60
