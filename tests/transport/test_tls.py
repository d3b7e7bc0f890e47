"""Links over TLS: only who has the cluster's certificate gets in."""

from __future__ import annotations

import random
import shutil
import ssl
import subprocess
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from raftkv.transport import TcpTransport
from raftkv.transport.limits import Limits
from raftkv.transport.mesh import Mesh
from raftkv.wire import DigestReport
from tests.transport.raw import connect
from tests.transport.worlds import CONFIG, TcpWorld, UvloopWorld, tell


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A certificate for this host, signed by itself, and its key."""
    if shutil.which("openssl") is None:
        pytest.skip("no openssl to make a certificate with")
    folder = tmp_path_factory.mktemp("tls")
    cert, key = folder / "cert.pem", folder / "key.pem"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    command += ["-days", "2", "-subj", "/CN=node", "-addext", "subjectAltName=IP:127.0.0.1"]
    subprocess.run([*command, "-keyout", str(key), "-out", str(cert)], check=True, capture_output=True)
    return cert, key


def tls_world(kind: type[TcpWorld], certificate: tuple[Path, Path]) -> type[TcpWorld]:
    """A world whose nodes show each other that certificate, and take no other."""
    cert, key = certificate

    def context(purpose: ssl.Purpose) -> ssl.SSLContext:
        made = ssl.create_default_context(purpose, cafile=str(cert))
        made.load_cert_chain(cert, key)
        made.verify_mode = ssl.CERT_REQUIRED
        return made

    class TlsWorld(kind):
        def transport(self, node_id: int, address: str | None, limits: Limits) -> Mesh:
            return TcpTransport(
                node_id,
                "127.0.0.1",
                0,
                config=CONFIG,
                ssl_server=context(ssl.Purpose.CLIENT_AUTH),
                ssl_client=context(ssl.Purpose.SERVER_AUTH),
                draw=random.Random(node_id).randrange,
                limits=limits,
            )

    return TlsWorld


@pytest.mark.parametrize("kind", [TcpWorld, UvloopWorld], ids=["tcp", "uvloop"])
def test_nodes_talk_over_tls_and_strangers_do_not(kind: type[TcpWorld], certificate: tuple[Path, Path]) -> None:
    """Messages arrive, a node that dies is lost, and one that speaks no TLS is nobody."""

    async def story(world: TcpWorld) -> None:
        one, two = await world.pair()
        sent = [DigestReport(i, i) for i in range(2000)]
        assert all(world.nodes[1].send(2, message) for message in sent)
        await two.until(lambda: len(two.messages) == len(sent))
        assert [message for _, message in two.messages] == sent
        stranger = await connect(world.nodes[1].address)
        stranger.transport.write(b"no TLS at all")
        await stranger.closed()
        assert not one.lost
        await world.stop(2)
        await one.until(lambda: one.lost)
        assert [peer for peer, _ in one.lost] == [2]

    tell(story, tls_world(kind, certificate))


@pytest.mark.parametrize("kind", [TcpWorld, UvloopWorld], ids=["tcp", "uvloop"])
def test_who_does_not_get_through_the_handshake_is_in_the_log(
    kind: type[TcpWorld], certificate: tuple[Path, Path]
) -> None:
    """Such a connection never comes to be; an operator still has to learn of it (TLS expiry)."""

    async def story(world: TcpWorld) -> None:
        await world.start(1, handshake_s=0.2, ping_s=0.05, silence_s=0.4)
        for _ in range(3):
            stranger = await connect(world.nodes[1].address)
            stranger.transport.write(b"no TLS at all")
            await stranger.closed()
        await world.until(lambda: world.nodes[1].stats.handshake_refused == 3)

    with capture_logs() as lines:
        tell(story, tls_world(kind, certificate))
    assert [line["kind"] for line in lines if line["event"] == "stranger_refused"] == ["tls"] * 3
