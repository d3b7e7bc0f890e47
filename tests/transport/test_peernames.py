"""Whose certificates are nodes': for the member's host, or with a name that nodes have; a client's is none."""

from __future__ import annotations

import random
import ssl
from pathlib import Path
from typing import Any

import msgspec
import pytest

from raftkv.errors import WrongCertificate
from raftkv.transport import Credentials, Demands, PeerNames, TcpTransport, TlsFiles
from raftkv.transport.certificate import read_certificate
from raftkv.transport.limits import TransportLimits
from raftkv.transport.mesh import Mesh
from raftkv.wire import DigestReport
from tests.certificates import Authority
from tests.transport.raw import hello
from tests.transport.worlds import CONFIG, TcpWorld, tell

MEMBER = PeerNames()
CLIENTS_ONLY = "extendedKeyUsage = clientAuth"


class Shown:
    """A connection whose other side has shown a certificate."""

    def __init__(self, *names: str, common: str = "someone", der: bytes = b"") -> None:
        numeric = {name for name in names if name.replace(".", "").isdigit() or ":" in name}
        self._shown = {
            "subject": ((("organizationName", "all"),), (("commonName", common),)),
            "subjectAltName": tuple(("IP Address" if name in numeric else "DNS", name) for name in names),
        }
        self._der = der

    def getpeercert(self, binary_form: bool = False) -> Any:
        return self._der if binary_form else self._shown


@pytest.mark.parametrize(
    ("shown", "told", "is_right"),
    [
        (Shown("n2.test"), "n2.test:8001", True),
        (Shown("N2.Test."), "n2.test:8001", True),
        (Shown("other.test", "n2.test"), "n2.test:8001", True),
        (Shown("*.test"), "n2.test:8001", True),
        (Shown("10.0.0.2"), "10.0.0.2:8001", True),
        (Shown("0:0:0:0:0:0:0:1"), "[::1]:8001", True),
        (Shown(common="n2.test"), "n2.test:8001", True),
        (Shown("n3.test"), "n2.test:8001", False),
        (Shown("*.test"), "a.n2.test:8001", False),
        (Shown("*.test"), "test:8001", False),
        (Shown("*.0.0.2"), "10.0.0.2:8001", False),
        (Shown("10.0.0.3"), "10.0.0.2:8001", False),
        (Shown("alice.test", common="n2.test"), "n2.test:8001", False),
        (Shown("alice"), "n2.test:8001", False),
        (Shown(common="alice"), "n2.test:8001", False),
    ],
)
def test_a_members_certificate_is_for_where_the_membership_has_it(shown: Any, told: str, is_right: bool) -> None:
    """As a dialler checks it: the host, a star for one label of a name, the common name where there is no other."""
    if is_right:
        MEMBER.check(shown, hello(2), told)
        return
    with pytest.raises(WrongCertificate, match=r"node 2 shows a certificate for .*, and not for .*--tls-peer-names"):
        MEMBER.check(shown, hello(2), told)


def test_who_shows_none_is_no_node() -> None:
    """Neither without TLS nor with a TLS that asks for none."""

    class Bare(Shown):
        def getpeercert(self, binary_form: bool = False) -> Any:
            return None if binary_form else {}

    for connection in (None, Bare()):
        with pytest.raises(WrongCertificate, match="node 2 shows no certificate"):
            MEMBER.check(connection, hello(2), "n2.test:8001")  # type: ignore[arg-type]


def test_names_that_nodes_have_are_enough_and_needed() -> None:
    """As host or as common name, wherever the node is."""
    names = PeerNames(("raftkv-node", "n9.test"))
    names.check(Shown("10.0.0.2", common="raftkv-node"), hello(2), "10.0.0.3:8001")  # type: ignore[arg-type]
    names.check(Shown("n9.test"), hello(2), None)  # type: ignore[arg-type]
    with pytest.raises(WrongCertificate, match=r"for 10\.0\.0\.2, alice, and not for raftkv-node or n9\.test"):
        names.check(Shown("10.0.0.2", common="alice"), hello(2), "10.0.0.2:8001")  # type: ignore[arg-type]


@pytest.mark.parametrize(("usage", "is_right"), [("", True), ("serverAuth", True), ("clientAuth", False)])
def test_a_node_that_is_not_known_needs_a_certificate_for_its_host_and_for_servers(
    usage: str, is_right: bool, tmp_path: Path
) -> None:
    """A leader that was added while this node was down, or the first one that a joining node meets."""
    authority = Authority(tmp_path)
    hosts = "DNS:n7.test" + (f"\nextendedKeyUsage = clientAuth, {usage}" if is_right and usage else "")
    cert, _ = authority.issue("n7", hosts=hosts if is_right else f"DNS:n7.test\n{CLIENTS_ONLY}")
    der = ssl.PEM_cert_to_DER_cert(cert.read_text())
    assert read_certificate(der).is_for_servers is is_right
    shown: Any = Shown("n7.test", der=der)
    says = msgspec.structs.replace(hello(7), address="n7.test:8001")
    with pytest.raises(WrongCertificate, match=r"and not for n8\.test"):
        MEMBER.check(shown, msgspec.structs.replace(says, address="n8.test:8001"), None)
    if is_right:
        MEMBER.check(shown, says, None)
        return
    with pytest.raises(WrongCertificate, match="for clients only"):
        MEMBER.check(shown, says, None)
    MEMBER.check(shown, says, "n7.test:8001")


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """Who has issued certificates of two nodes, which are on loopback, and of a client, who is nowhere."""
    made = Authority(tmp_path_factory.mktemp("names"))
    for name in ("n1", "n2"):
        made.issue(name)
    made.issue("alice", hosts="DNS:alice")
    return made


def names_world(authority: Authority, shows: dict[int, str], names: PeerNames | None) -> type[TcpWorld]:
    """Nodes that show these certificates, and demand these names."""

    class NamesWorld(TcpWorld):
        def transport(self, node_id: int, address: str | None, limits: TransportLimits) -> Mesh:
            name = shows[node_id]
            folder = authority.folder
            made = Credentials(TlsFiles(str(authority.path), str(folder / f"{name}.pem"), str(folder / f"{name}.key")))
            return TcpTransport(
                node_id,
                "127.0.0.1",
                0,
                config=CONFIG,
                ssl_server=made.server,
                ssl_client=made.client,
                draw=random.Random(node_id).randrange,
                limits=limits,
                demands=Demands(names=names),
            )

    return NamesWorld


def test_a_client_with_a_certificate_of_the_authority_is_no_node(authority: Authority) -> None:
    """It says that it is node 2, with TLS and all; node 1 tells it why not, and hears nothing."""

    async def story(world: TcpWorld) -> None:
        one = await world.start(1)
        await world.start(2)
        world.introduce(1, 2)
        await world.until(lambda: world.nodes[2].links()[1].refused)
        assert "node 2 shows a certificate for alice, and not for 127.0.0.1" in world.nodes[2].links()[1].refused
        assert not world.nodes[2].send(1, DigestReport(1, 1)) and not one.messages and not one.lost

    tell(story, names_world(authority, {1: "n1", 2: "alice"}, MEMBER))


@pytest.mark.parametrize("names", [MEMBER, PeerNames(("n1", "n2")), None], ids=["member", "names", "any"])
def test_nodes_with_their_own_certificates_talk(authority: Authority, names: PeerNames | None) -> None:
    """Both ways, whatever is demanded of the two."""

    async def story(world: TcpWorld) -> None:
        one, two = await world.pair()
        assert world.nodes[1].send(2, DigestReport(1, 1)) and world.nodes[2].send(1, DigestReport(2, 2))
        await two.until(lambda: two.messages)
        await one.until(lambda: one.messages)

    tell(story, names_world(authority, {1: "n1", 2: "n2"}, names))
