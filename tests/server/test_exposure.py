"""Beyond loopback nothing listens unprotected, unless somebody says so."""

from __future__ import annotations

import asyncio
import socket
import ssl
from pathlib import Path
from typing import Any

import pytest

from raftkv.errors import ConfigError
from raftkv.kv import KeyValue
from raftkv.model import Member
from raftkv.processes.ports import free_ports
from raftkv.server.exposure import Protected, check_bound, check_exposure
from raftkv.server.server import Listen, Server
from raftkv.server.settings import HTTP_TLS_MODES, Found, Plan, Settings
from raftkv.server.tls import Tls
from tests.certificates import Authority
from tests.cli.commands import invoke

NOTHING = Protected()
FAR, NEAR = "10.1.2.3:7001", "127.0.0.1:7001"


def check(
    listen: str = NEAR, peers: str = NEAR, http: str = NEAR, *, protected: Protected = NOTHING, **more: bool
) -> None:
    """Check a plan whose ports have this protection."""
    plan = Plan(
        listen=Found(listen, "--listen"), peer_listen=Found(peers, "--peer-listen"), http=Found(http, "--http"), **more
    )
    asyncio.run(check_exposure(plan, protected))


@pytest.mark.parametrize("address", [NEAR, "127.0.0.9:1", "[::1]:7001", "localhost:7001", "a..b:1"])
def test_loopback_is_free_for_all(address: str) -> None:
    """As a number or a name; a name that stands for nothing is refused later, with its own text."""
    check(address, address, address)


@pytest.mark.parametrize("address", [FAR, "0.0.0.0:7001", "[::]:7001", "[2001:db8::1]:7001", "[fe80::1]:7001"])
def test_what_others_reach_is_refused_with_the_ways_out(address: str) -> None:
    """Each port by its name, with where its address was given."""
    for given in ({"listen": address}, {"peers": address}, {"http": address}):
        with pytest.raises(ConfigError, match="is no loopback address") as caught:
            check(**given)
        other = "http_sign_in='all'" if "http" in given else "peer_secret_file="
        for way in ("Tls.from_files", other, "loopback", "insecure=True"):
            assert way in str(caught.value)
    with pytest.raises(ConfigError, match=r"^listen = .* \(from --listen\)"):
        check(address)
    with pytest.raises(ConfigError, match=r"^peer_listen = .* \(from --peer-listen\).*could pose as a node"):
        check(peers=address)


def test_what_protects_one_port_does_not_protect_the_other() -> None:
    """The secret is for nodes: clients show none; and what looks at pages has neither."""
    check(FAR, FAR, FAR, protected=Protected(clients=True, peers=True, http=True))
    check(FAR, FAR, FAR, insecure=True)
    check(peers=FAR, protected=Protected(peers=True))
    check(FAR, protected=Protected(clients=True))
    check(http=FAR, protected=Protected(http=True))
    with pytest.raises(ConfigError, match=r"^listen"):
        check(FAR, FAR, FAR, protected=Protected(peers=True, http=True))
    with pytest.raises(ConfigError, match=r"^peer_listen"):
        check(FAR, FAR, FAR, protected=Protected(clients=True, http=True))
    with pytest.raises(ConfigError, match=r"^http = .*\(from --http\).*could see how the cluster is"):
        check(FAR, FAR, FAR, protected=Protected(clients=True, peers=True))


def contexts() -> dict[str, ssl.SSLContext | None]:
    """What `--http` may speak: nothing, HTTPS that asks for no certificate, and HTTPS that does."""
    server, mutual = (ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER) for _ in range(2))
    mutual.verify_mode = ssl.CERT_REQUIRED
    return {"off": None, "server": server, "mutual": mutual}


@pytest.mark.parametrize(("mode", "sign_in"), [("off", "pages"), ("off", "all"), ("server", "pages")])
def test_what_anybody_could_look_at_or_listen_to_is_refused(mode: str, sign_in: str) -> None:
    """Forty addresses each: neither users without HTTPS nor HTTPS without users, whoever else has certificates."""
    tls = Tls(http=contexts()[mode], clients=contexts()["mutual"])
    for number in range(1, 41):
        plan = Settings(http=Found(f"10.1.2.{number}:9100", "--http"), http_sign_in=sign_in)
        with pytest.raises(ConfigError, match=r"--http-tls mutual.*--http-tls server --http-sign-in all.*--insecure"):
            asyncio.run(check_exposure(plan, Protected.of(plan, tls, has_secret=True)))
        with pytest.raises(ConfigError, match=rf"which came to 10\.9\.9\.{number}:9100, is no loopback"):
            check_bound("http", ["127.0.0.1", f"10.9.9.{number}"], plan, Protected.of(plan, tls, has_secret=True))


@pytest.mark.parametrize(("mode", "sign_in"), [("mutual", "pages"), ("mutual", "all"), ("server", "all")])
def test_what_keeps_strangers_from_looking_is_enough(mode: str, sign_in: str) -> None:
    """A certificate that is asked for; or HTTPS, where all sign in."""
    plan = Settings(http=Found(FAR, "--http"), http_sign_in=sign_in)
    protected = Protected.of(plan, Tls(http=contexts()[mode]), has_secret=False)
    asyncio.run(check_exposure(plan, protected))
    check_bound("http", ["10.1.2.3"], plan, protected)


@pytest.mark.parametrize("mode", HTTP_TLS_MODES)
def test_the_certificates_that_serve_asks_for_are_asked_for(mode: str, tmp_path: Path) -> None:
    """What `--http-tls mutual` makes of files counts as such, and the others do not."""
    authority = Authority(tmp_path)
    cert, key = map(str, authority.issue("node"))
    tls = Tls.from_files(ca=str(authority.path), cert=cert, key=key, http=mode)
    found = Protected.of(Settings(http=Found(FAR, "--http")), tls, has_secret=False)
    assert found == Protected(clients=True, peers=True, http=mode == "mutual")


@pytest.mark.parametrize("port", ["listen", "peer_listen", "http"])
def test_a_name_that_is_known_only_later_is_refused_by_what_was_bound(
    port: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It could not be looked up when the plan was checked, and then it stands for all of the machine: nobody is served,
    nothing is founded, and the address is free again."""
    number, asked = free_ports(1)[0], 0
    look_up = socket.getaddrinfo

    def late(host: str, *more: Any, **options: Any) -> Any:
        nonlocal asked
        if host != "late.example":
            return look_up(host, *more, **options)
        asked += not options.get("flags")
        if asked <= 1:
            raise socket.gaierror(socket.EAI_AGAIN, "try again")
        return look_up("0.0.0.0", *more, **options)  # noqa: S104  # that is what must be refused

    monkeypatch.setattr(socket, "getaddrinfo", late)
    others = {"listen": "127.0.0.1:0", "peer_listen": "127.0.0.1:0"}
    given = {**others, port: f"late.example:{number}"}
    plan = Listen(clients=given["listen"], peers=given["peer_listen"])
    server = Server(KeyValue, data_dir=tmp_path / "data", listen=plan, http=given.get("http"))
    with pytest.raises(
        ConfigError, match=rf"^{port} = 'late.example:{number}'.*, which came to 0\.0\.0\.0:{number}, is"
    ):
        asyncio.run(server.start())
    assert asked == 2 and not (tmp_path / "data").exists()
    with socket.create_server(("127.0.0.1", number)):
        pass


def test_the_command_line_is_told_in_its_own_words() -> None:
    """Options, not arguments."""
    plan = Settings(listen=Found(FAR, "--listen"))
    with pytest.raises(ConfigError, match=r"--tls-ca, --tls-cert, --tls-key.*--peer-secret-file.*--insecure"):
        asyncio.run(check_exposure(plan, NOTHING))


def test_a_server_that_others_could_reach_founds_nothing(tmp_path: Path) -> None:
    """Neither alone nor with others; it has touched nothing."""
    near = [f"127.0.0.1:{port}" for port in free_ports(2)]
    for more in (
        {"listen": Listen(peers="10.1.2.3:8001")},
        {"members": [Member(1, "10.1.2.3:8001", near[0])]},
        {"members": [Member(1, near[0], "10.1.2.3:7001")]},
        {"http": "0.0.0.0:0"},
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
