"""Beyond loopback nothing listens unprotected, unless somebody says so."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from raftkv.errors import ConfigError
from raftkv.kv import KeyValue
from raftkv.model import Member
from raftkv.processes.ports import free_ports
from raftkv.server.exposure import check_exposure
from raftkv.server.server import Listen, Server
from raftkv.server.settings import Found, Plan, Settings
from tests.cli.commands import invoke

FAR, NEAR = "10.1.2.3:7001", "127.0.0.1:7001"


def check(listen: str = NEAR, peers: str = NEAR, *, clients: bool = False, nodes: bool = False, **more: bool) -> None:
    """Check a plan; `clients` and `nodes`: whether something protects these ports."""
    plan = Plan(listen=Found(listen, "--listen"), peer_listen=Found(peers, "--peer-listen"), **more)
    asyncio.run(check_exposure(plan, clients_are_checked=clients, peers_are_checked=nodes))


@pytest.mark.parametrize("address", [NEAR, "127.0.0.9:1", "[::1]:7001", "localhost:7001", "a..b:1"])
def test_loopback_is_free_for_all(address: str) -> None:
    """As a number or a name; a name that stands for nothing is refused later, with its own text."""
    check(address, address)


@pytest.mark.parametrize("address", [FAR, "0.0.0.0:7001", "[::]:7001", "[2001:db8::1]:7001", "[fe80::1]:7001"])
def test_what_others_reach_is_refused_with_the_ways_out(address: str) -> None:
    """Each port by its name, with where its address was given."""
    for given in ({"listen": address}, {"peers": address}):
        with pytest.raises(ConfigError, match="is no loopback address") as caught:
            check(**given)
        for way in ("Tls.from_files", "peer_secret_file=", "loopback", "insecure=True"):
            assert way in str(caught.value)
    with pytest.raises(ConfigError, match=r"^listen = .* \(from --listen\)"):
        check(address)
    with pytest.raises(ConfigError, match=r"^peer_listen = .* \(from --peer-listen\).*could pose as a node"):
        check(peers=address)


def test_what_protects_one_port_does_not_protect_the_other() -> None:
    """The secret is for nodes: clients show none."""
    check(FAR, FAR, clients=True, nodes=True)
    check(FAR, FAR, insecure=True)
    check(peers=FAR, nodes=True)
    check(FAR, clients=True)
    with pytest.raises(ConfigError, match=r"^listen"):
        check(FAR, FAR, nodes=True)
    with pytest.raises(ConfigError, match=r"^peer_listen"):
        check(FAR, FAR, clients=True)


def test_the_command_line_is_told_in_its_own_words() -> None:
    """Options, not arguments."""
    plan = Settings(listen=Found(FAR, "--listen"))
    with pytest.raises(ConfigError, match=r"--tls-ca, --tls-cert, --tls-key.*--peer-secret-file.*--insecure"):
        asyncio.run(check_exposure(plan, clients_are_checked=False, peers_are_checked=False))


def test_a_server_that_others_could_reach_founds_nothing(tmp_path: Path) -> None:
    """Neither alone nor with others; it has touched nothing."""
    near = [f"127.0.0.1:{port}" for port in free_ports(2)]
    for more in (
        {"listen": Listen(peers="10.1.2.3:8001")},
        {"members": [Member(1, "10.1.2.3:8001", near[0])]},
        {"members": [Member(1, near[0], "10.1.2.3:7001")]},
    ):
        with pytest.raises(ConfigError, match="no loopback address"):
            asyncio.run(Server(KeyValue, data_dir=tmp_path / "data", **more).start())
    assert not (tmp_path / "data").exists()


def test_an_address_of_the_membership_is_looked_at_as_well(tmp_path: Path) -> None:
    """A node that was here before listens where the membership says, and nobody has said so at this start."""

    async def found() -> None:
        async with Server(KeyValue, data_dir=tmp_path / "data"):
            pass

    asyncio.run(found())
    moved = invoke("member", "rewrite", str(tmp_path / "data"), "1=10.1.2.3:8001/10.1.2.3:7001")
    assert moved.exit_code == 0, moved.output
    result = invoke("serve", "--data-dir", str(tmp_path / "data"))
    assert result.exit_code == 2
    assert "peer_listen = '10.1.2.3:8001' (from the membership) is no loopback address" in result.stderr
