"""Links over TLS: only who has the cluster's certificate gets in."""

from __future__ import annotations

import asyncio
import random
import socket
import ssl
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from raftkv.errors import ConfigError
from raftkv.transport import Credentials, TcpTransport, TlsFiles
from raftkv.transport.certificate import read_certificate
from raftkv.transport.limits import TransportLimits
from raftkv.transport.mesh import Mesh
from raftkv.transport.reasons import Reason
from raftkv.transport.tls import load
from raftkv.wire import DigestReport
from tests.certificates import Authority, run
from tests.logged import capture_logs
from tests.transport.raw import Raw, connect
from tests.transport.worlds import CONFIG, TcpWorld, UvloopWorld, tell

KINDS = pytest.mark.parametrize("kind", [TcpWorld, UvloopWorld], ids=["tcp", "uvloop"])


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """Who has issued certificates of "good" and "other", and one of "old" that has run out."""
    made = Authority(tmp_path_factory.mktemp("tls"))
    made.issue("good")
    made.issue("other", hosts="DNS:other.test")
    made.issue("old", days=-2)
    return made


@pytest.fixture(scope="module")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """An authority that nobody believes."""
    made = Authority(tmp_path_factory.mktemp("strange"), "strange-ca")
    made.issue("foreign")
    return made


def files(authority: Authority, name: str, issuer: Authority | None = None) -> TlsFiles:
    """What a node is given that believes `authority`."""
    folder = (issuer or authority).folder
    return TlsFiles(str(authority.path), str(folder / f"{name}.pem"), str(folder / f"{name}.key"))


def tls_world(kind: type[TcpWorld], given: Callable[[int], TlsFiles]) -> type[TcpWorld]:
    """A world whose nodes have certificates each."""

    class TlsWorld(kind):
        def __init__(self) -> None:
            super().__init__()
            self.credentials: dict[int, Credentials] = {}

        def transport(self, node_id: int, address: str | None, limits: TransportLimits) -> Mesh:
            made = self.credentials.setdefault(node_id, Credentials(given(node_id)))
            host, _, port = (address or "127.0.0.1:0").rpartition(":")
            return TcpTransport(
                node_id,
                host,
                int(port),
                config=CONFIG,
                ssl_server=made.server,
                ssl_client=made.client,
                draw=random.Random(node_id).randrange,
                limits=limits,
            )

    return TlsWorld


@KINDS
def test_nodes_talk_over_tls_and_strangers_do_not(kind: type[TcpWorld], authority: Authority) -> None:
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

    tell(story, tls_world(kind, lambda _: files(authority, "good")))


@KINDS
def test_who_does_not_get_through_the_handshake_is_in_the_log(kind: type[TcpWorld], authority: Authority) -> None:
    """Such a connection never comes to be; an operator still has to learn of it, and from where it came (F84)."""
    addresses = []

    async def story(world: TcpWorld) -> None:
        await world.start(1, handshake_s=0.2, ping_s=0.05, silence_s=0.4)
        for words in (b"no TLS at all", b"GET / HTTP/1.1\r\n\r\n", b""):
            stranger = await connect(world.nodes[1].address)
            addresses.append("{}:{}".format(*stranger.transport.get_extra_info("sockname")))
            stranger.transport.write(words)
            await stranger.closed()
        await world.until(lambda: world.nodes[1].stats.handshake_refused == 3)

    with capture_logs() as lines:
        tell(story, tls_world(kind, lambda _: files(authority, "good")))
    said = [line for line in lines if line["event"] == "stranger_refused"]
    assert [(line["kind"], line["address"]) for line in said] == [("tls", address) for address in addresses]
    assert [line["reason"] for line in said[:2]] == [
        "TLS: it does not speak TLS",
        "TLS: it does not speak TLS but HTTP",
    ]


@KINDS
def test_a_crowd_that_begins_no_handshake_keeps_no_peer_out(kind: type[TcpWorld], authority: Authority) -> None:
    """The one that has taken longest has to go, and the log says so; a peer needs some ms for it."""

    async def story(world: TcpWorld) -> None:
        await world.start(1, strangers_max=3)
        strangers = [await connect(world.nodes[1].address) for _ in range(5)]
        await strangers[0].closed()
        await strangers[1].closed()
        two = await world.start(2)
        world.nodes[2].set_peers({1: world.nodes[1].address})
        world.nodes[1].set_peers({2: world.nodes[2].address})
        assert not any(each.gone.is_set() for each in strangers[3:])
        await two.until(lambda: world.nodes[2].links()[1].connected)
        await strangers[2].closed()
        for each in strangers:
            each.transport.abort()

    with capture_logs() as lines:
        tell(story, tls_world(kind, lambda _: files(authority, "good")))
    reasons = [line["reason"] for line in lines if line["event"] == "stranger_refused"]
    assert any("it is the oldest" in each for each in reasons)


@KINDS
def test_who_shows_no_certificate_is_refused(kind: type[TcpWorld], authority: Authority) -> None:
    """It knows the authority, and speaks TLS: that makes nobody a node (F84)."""
    context = ssl.create_default_context(ssl.Purpose.SERVER_AUTH, cafile=str(authority.path))

    async def story(world: TcpWorld) -> None:
        await world.start(1)
        stranger = Raw()
        host, _, port = world.nodes[1].address.rpartition(":")
        await asyncio.get_running_loop().create_connection(lambda: stranger, host, int(port), ssl=context)
        await stranger.closed()
        assert world.nodes[1].stats.handshake_refused == 1

    with capture_logs() as lines:
        tell(story, tls_world(kind, lambda _: files(authority, "good")))
    assert [line["reason"] for line in lines if line["event"] == "stranger_refused"] == ["TLS: it shows no certificate"]


def unreached(kind: type[TcpWorld], given: Callable[[int], TlsFiles]) -> tuple[str, list[Any]]:
    """What node 1 says of why it can't reach node 2, which does not dial, and what node 2 says in the log."""
    why = []

    async def story(world: TcpWorld) -> None:
        await world.start(1)
        await world.start(2)
        world.nodes[1].set_peers({2: world.nodes[2].address})
        await world.until(lambda: world.nodes[1].links()[2].unreached)
        await world.until(lambda: world.nodes[2].stats.handshake_refused)
        found = world.nodes[1].links()[2].unreached
        assert found is not None and found.reason is Reason.TLS
        why.append(found.text)

    with capture_logs() as lines:
        tell(story, tls_world(kind, given))
    said = [line for line in lines if line["event"] == "peer_unreachable"]
    assert [(line["kind"], line["reason"]) for line in said] == [("tls", why[0])]
    return why[0], [line for line in lines if line["event"] == "stranger_refused"]


@KINDS
def test_a_dialler_whose_certificate_has_run_out_hears_why(kind: type[TcpWorld], authority: Authority) -> None:
    """Which certificate, whose name, which date (F84): at the acceptor of the other's, at the dialler of its own."""
    why, lines = unreached(kind, lambda node: files(authority, "old" if node == 1 else "good"))
    ended = read_certificate(ssl.PEM_cert_to_DER_cert((authority.folder / "old.pem").read_text()))
    assert ended is not None
    named = f"certificate of 'old' for 127.0.0.1, issued by 'ca', valid from {ended.not_before:%Y-%m-%d %H:%M} until "
    assert why == f"TLS: the other side refuses the {named}{ended.not_after:%Y-%m-%d %H:%M} UTC: certificate expired"
    assert lines[0]["reason"].startswith(f"TLS: certificate has expired: it shows the {named}")
    assert lines[0]["address"].startswith("127.0.0.1:")


@KINDS
def test_an_acceptor_whose_certificate_has_run_out_hears_why(kind: type[TcpWorld], authority: Authority) -> None:
    """The other way round: the dialler tells of what it was shown, the acceptor of what it shows (F84)."""
    why, lines = unreached(kind, lambda node: files(authority, "old" if node == 2 else "good"))
    assert why.startswith("TLS: certificate has expired: it shows the certificate of 'old'")
    assert lines[0]["reason"].startswith("TLS: the other side refuses the certificate of 'old'")
    assert lines[0]["reason"].endswith("certificate expired")


@KINDS
def test_a_certificate_for_another_host_or_of_another_authority_is_named(
    kind: type[TcpWorld], authority: Authority, stranger: Authority
) -> None:
    """The member's address must be in the certificate that answers there, and somebody known must have issued it."""
    why, _ = unreached(kind, lambda node: files(authority, "other" if node == 2 else "good"))
    assert "not valid for '127.0.0.1'" in why
    assert "certificate of 'other' for other.test" in why
    why, lines = unreached(
        kind, lambda node: files(authority, "foreign", stranger) if node == 1 else files(authority, "good")
    )
    assert "refuses the certificate of 'foreign'" in why
    assert why.endswith("unknown ca")
    assert "it shows the certificate of 'foreign' for 127.0.0.1, issued by 'strange-ca'" in lines[0]["reason"]


@KINDS
def test_new_files_are_used_for_new_connections_and_old_ones_stand(kind: type[TcpWorld], authority: Authority) -> None:
    """A node whose certificate has run out gets in with the next one, without a start, and disturbs nobody (F84)."""

    def given(node: int) -> TlsFiles:
        return files(authority, "old" if node == 3 else "good")

    async def story(world: Any) -> None:
        one, two = await world.pair()
        three = await world.start(3)
        world.introduce(1, 2, 3)
        await world.until(lambda: world.nodes[3].links()[1].unreached)
        world.credentials[3].take(load(files(authority, "good")))
        await three.until(lambda: {1, 2} <= {*three.connected})
        await one.until(lambda: 3 in one.connected)
        assert one.connected.count(2) == 1
        assert not one.lost
        assert world.nodes[1].send(2, DigestReport(1, 1))
        await two.until(lambda: two.messages)

    tell(story, tls_world(kind, given))


def test_certificates_say_when_they_run_out(authority: Authority) -> None:
    """Each that a node relies on, its own and the authority's, in seconds from now (F84)."""
    found = {(each.role, each.name): each for each in Credentials(files(authority, "old")).status()}
    assert {*found} == {("node", "old"), ("authority", "ca")}
    assert -3 * 86400 < found["node", "old"].expires_s < -86400
    left = found["authority", "ca"].not_after - datetime.now(UTC)
    assert timedelta(days=398) < left < timedelta(days=401)


@pytest.mark.parametrize("wrong", ["tls_ca", "tls_cert", "tls_key"])
@pytest.mark.parametrize("how", ["missing", "empty", "other"])
def test_a_file_that_is_wrong_is_named(authority: Authority, tmp_path: Path, wrong: str, how: str) -> None:
    """Missing, empty, or something else: the setting, the path, and what should be there (F84)."""
    path = tmp_path / "it"
    if how != "missing":
        path.write_text("" if how == "empty" else (authority.folder / "other.key").read_text())
    right = files(authority, "good")
    names = {"tls_ca": right.ca, "tls_cert": right.cert, "tls_key": right.key} | {wrong: str(path)}
    with pytest.raises(ConfigError) as caught:
        load(TlsFiles(names["tls_ca"], names["tls_cert"], names["tls_key"]))
    assert f"{wrong} = {str(path)!r}" in str(caught.value)
    assert ("PEM file there" if how == "missing" else "must") in str(caught.value)


def test_a_key_with_a_password_is_refused_without_a_question(authority: Authority) -> None:
    """OpenSSL would ask at the terminal, and the node would wait there for ever."""
    right, locked = files(authority, "good"), authority.folder / "locked.key"
    run("pkcs8", "-topk8", "-in", right.key, "-out", locked, "-passout", "pass:secret")
    with pytest.raises(ConfigError, match="without a password"):
        load(TlsFiles(right.ca, right.cert, str(locked)))


def test_what_is_no_certificate_is_none(authority: Authority) -> None:
    """Whoever dials may send anything as its certificate: cut or changed at any place, it is read or it is not."""
    der = ssl.PEM_cert_to_DER_cert((authority.folder / "good.pem").read_text())
    found = read_certificate(der)
    assert found is not None
    assert (found.name, found.names, found.issuer) == ("good", ("127.0.0.1",), "ca")
    dice = random.Random(1)
    for at in range(len(der)):
        assert read_certificate(der[:at]) is None
        changed = bytearray(der)
        changed[at] = dice.randrange(256)
        read_certificate(bytes(changed))


def test_a_context_of_files_lets_nobody_in_by_itself(authority: Authority) -> None:
    """Also whoever wraps a plain socket with it gets the newest files, and demands a certificate."""
    made = Credentials(files(authority, "good"))
    for context in (made.server, made.client):
        assert context.verify_mode is ssl.CERT_REQUIRED
    here, there = socket.socketpair()
    with here, there, pytest.raises(ssl.SSLError):
        here.settimeout(5)
        there.sendall(b"no TLS at all, and more than a record's head")
        made.client.wrap_socket(here, server_hostname="127.0.0.1")
