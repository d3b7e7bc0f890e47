"""TLS: the options of nodes and of commands fit each other, and new files are taken up (F84)."""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import signal
import socket
import ssl
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from raftkv.errors import ConfigError
from raftkv.processes.cluster import NodeProcess
from raftkv.processes.ports import free_ports
from raftkv.server import tls
from raftkv.server.tls import Renewal, Tls, node_tls
from raftkv.transport import PeerNames, PeerSecret, SecretFile
from raftkv.transport.certificate import read_certificate
from raftkv.transport.memory import pause
from raftkv.transport.tcp import split_address
from raftkv.transport.tls import WARN_S
from raftkv.wire import FrameDecoder, HelloReply, decode_message, encode_message
from tests.certificates import Authority
from tests.cli.commands import invoke
from tests.forked import ForkedCluster
from tests.logged import capture_logs
from tests.transport.raw import hello
from tests.waiting import DEADLINE_S, until


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    """Who issues certificates for this test."""
    return Authority(tmp_path / "tls")


def options_of(ca: Authority, files: tuple[Path, Path]) -> list[str]:
    """As nodes and commands take them."""
    return ["--tls-ca", str(ca.path), "--tls-cert", str(files[0]), "--tls-key", str(files[1])]


@pytest.fixture
def options(authority: Authority) -> list[str]:
    """A certificate for this host, as options."""
    return options_of(authority, authority.issue("node"))


def test_metrics_and_health_speak_tls_when_told_to(options: list[str], tmp_path: Path) -> None:
    """`mutual`: nothing is said to whoever shows no certificate; `server`: it is enough to know the node's."""
    context = ssl.create_default_context(cafile=options[1])
    for mode in ("server", "mutual"):
        with ForkedCluster(tmp_path / mode, 1, arguments=[*options, "--http-tls", mode]) as cluster:
            (port,) = free_ports(1)
            cluster.nodes[1].arguments += ["--http", f"127.0.0.1:{port}"]
            cluster.start_all()
            assert invoke("put", "a", "1", "-a", cluster.addresses[0], *options, "--timeout", "30").exit_code == 0
            url = f"https://127.0.0.1:{port}/health"
            if mode == "mutual":
                with pytest.raises((urllib.error.URLError, OSError)):
                    urllib.request.urlopen(url, timeout=20, context=context)
                context.load_cert_chain(options[3], options[5])
            with urllib.request.urlopen(url, timeout=20, context=context) as answer:
                assert answer.status == 200
            with pytest.raises((urllib.error.URLError, OSError, http.client.HTTPException)):
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=20)


def test_https_without_a_certificate_is_refused_with_the_reason() -> None:
    """It would be plain HTTP, and look like the other."""
    result = invoke("serve", "--http", "127.0.0.1:0", "--http-tls", "server")
    assert result.exit_code == 2 and "needs tls_ca" in result.stderr
    assert invoke("serve", "--http-tls", "maybe").exit_code == 2


def test_only_who_has_a_certificate_gets_in(options, tmp_path):
    """Nodes among each other and clients with nodes; a client without one is told nothing."""
    with ForkedCluster(tmp_path / "nodes", 3, arguments=options) as cluster:
        cluster.start_all()
        address = ("-a", cluster.addresses[0])
        assert invoke("put", "a", "1", *address, *options, "--timeout", "30").exit_code == 0
        assert invoke("get", "a", *address, *options).stdout == "1\n"
        assert invoke("get", "a", *address, "--timeout", "0.5").exit_code == 3


def is_taken_for_a_node(node: NodeProcess, ca: Authority, files: tuple[Path, Path]) -> bool:
    """Whether the port for peers takes this certificate: it then waits for what is said, else it closes."""
    context = ssl.create_default_context(ssl.Purpose.SERVER_AUTH, cafile=str(ca.path))
    context.load_cert_chain(*files)
    plain = socket.create_connection(split_address(node.own.peer_address), DEADLINE_S)
    with plain, context.wrap_socket(plain, server_hostname="127.0.0.1") as stranger:
        stranger.settimeout(1.0)
        try:
            stranger.recv(1)
        except TimeoutError:
            return True
        except OSError:
            return False
        return False


def test_a_client_is_no_node_where_nodes_have_an_authority_of_their_own(authority: Authority, tmp_path: Path) -> None:
    """Without `--tls-peer-ca` whoever has a certificate may pose as a node; with it only whom that authority knows."""
    nodes = Authority(tmp_path / "nodes-tls", "nodes-ca")
    node, client = nodes.issue("node"), authority.issue("client")
    apart = [*options_of(authority, node), "--tls-peer-ca", str(nodes.path)]
    with ForkedCluster(tmp_path / "nodes", 1, arguments=apart) as cluster:
        cluster.start_all()
        speaks = options_of(nodes, client)
        assert invoke("put", "a", "1", "-a", cluster.addresses[0], *speaks, "--timeout", "30").exit_code == 0
        assert is_taken_for_a_node(cluster.nodes[1], nodes, node)
        assert not is_taken_for_a_node(cluster.nodes[1], nodes, client)
        until(lambda: "it shows the certificate of 'client'" in cluster.nodes[1].log_path.read_text())


def test_a_certificate_that_has_run_out_is_named_and_replaced_without_a_restart(
    authority: Authority, tmp_path: Path
) -> None:
    """A node with an old one is reached by nobody, and status says why, as a client does that knows no other; with a
    new file it is, and lives (F84)."""
    with ForkedCluster(tmp_path / "nodes", 3) as cluster:
        for node in cluster.nodes.values():
            days = -1 if node.node_id == 3 else 100
            node.arguments += options_of(authority, authority.issue(f"n{node.node_id}", days=days))
        cluster.start_all()
        speaks = options_of(authority, authority.issue("client"))
        one = ("-a", cluster.addresses[0], *speaks)
        assert invoke("put", "a", "1", *one, "--timeout", "30").exit_code == 0

        def problems() -> str:
            return "; ".join(json.loads(invoke("status", *one, "--json").stdout)["problems"])

        until(
            lambda: (
                "can't connect to node 3: TLS: certificate has expired: it shows the certificate of 'n3'" in problems()
            )
        )
        alone = invoke("get", "a", "-a", cluster.addresses[2], *speaks, "--timeout", "2")
        assert alone.exit_code == 3
        assert "TLS: certificate has expired: it shows the certificate of 'n3'" in alone.stderr
        before = [node.process for node in cluster.nodes.values()]
        authority.issue("n3")
        for node in cluster.nodes.values():
            node.signal(signal.SIGHUP)
        until(lambda: problems() == "")
        assert [node.process for node in cluster.nodes.values()] == before
        assert all(node.is_running for node in cluster.nodes.values())
        until(lambda: "tls_files_taken" in cluster.nodes[3].log_path.read_text())
        assert [node.terminate() for node in cluster.nodes.values()] == [0, 0, 0]


async def renewing(renewal: Renewal, story: Callable[[Callable[[Callable[[], Any]], Any]], Any]) -> None:
    """Tell a story while files are looked at again and again."""

    async def wait(condition: Callable[[], Any]) -> None:
        async with asyncio.timeout(DEADLINE_S):
            while not condition():
                await pause(0.005)

    task = asyncio.create_task(renewal.run())
    try:
        await story(wait)
    finally:
        task.cancel()


def test_new_files_are_taken_by_themselves_when_they_fit(authority: Authority, monkeypatch: pytest.MonkeyPatch) -> None:
    """A certificate whose key has not come yet is not taken, said once, and taken with its key (F84)."""
    monkeypatch.setattr(tls, "LOOK_S", 0.01)
    cert, key = authority.issue("node")
    made = node_tls(str(authority.path), str(cert), str(key), None)
    assert made is not None
    new_cert, new_key = authority.issue("new")

    async def story(wait: Any) -> None:
        os.replace(new_cert, cert)
        await wait(lambda: any(line["event"] == "tls_files_not_taken" for line in lines))
        assert made.peers.loaded.own.name == "node"
        assert all("tls_key" in each.not_taken for each in made.peers.status()), "the status says it, too"
        os.replace(new_key, key)
        await wait(lambda: made.peers.loaded.own.name == "new")
        await wait(lambda: any(line["event"] == "tls_files_taken" for line in lines))  # said after a thread took them
        assert not any(each.not_taken for each in made.peers.status())

    with capture_logs() as lines:
        asyncio.run(renewing(Renewal(made.every), story))
    refused, taken = [line for line in lines if line["event"].startswith("tls_files")]
    assert f"tls_key = {str(key)!r}" in refused["reason"]
    assert "certificate of 'new'" in taken["certificate"]


def test_a_certificate_that_has_run_out_does_not_replace_one_that_is_valid(authority: Authority) -> None:
    """The wrong file put in place by mistake; at a start, and in the place of one that has run out too, it is taken."""
    cert, key = authority.issue("slip")
    made = node_tls(str(authority.path), str(cert), str(key), None)
    assert made is not None
    (credentials,) = made.every
    valid = credentials.loaded.own
    authority.issue("slip", days=-2)
    with pytest.raises(ConfigError, match=r"tls_cert = .* has run out"):
        credentials.renew()
    assert credentials.loaded.own == valid
    late = node_tls(str(authority.path), str(cert), str(key), None)
    assert late is not None
    (credentials,) = late.every
    authority.issue("slip", days=-1)
    credentials.renew()
    assert credentials.loaded.own == read_certificate(ssl.PEM_cert_to_DER_cert(cert.read_text()))


def test_a_new_secret_is_taken_by_itself_when_it_is_right(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that others may read is not taken, said once and in the status, and taken when its mode is right."""
    monkeypatch.setattr(tls, "LOOK_S", 0.01)
    path = tmp_path / "secret"
    path.write_bytes(b"the first secret of all")
    path.chmod(0o600)
    kept = SecretFile(str(path))
    new = PeerSecret([b"the second secret of all"])

    async def story(wait: Any) -> None:
        beside = tmp_path / "beside"
        beside.write_bytes(b"the second secret of all\n")
        beside.chmod(0o644)
        beside.rename(path)
        await wait(lambda: "chmod 600" in kept.not_taken)
        assert not new.is_proof(kept.prove(b"said"), b"said")
        path.chmod(0o600)
        await wait(lambda: new.is_proof(kept.prove(b"said"), b"said"))
        await wait(lambda: not kept.not_taken)

    with capture_logs() as lines:
        asyncio.run(renewing(Renewal([kept]), story))
    refused, taken = [line for line in lines if line["event"].startswith("peer_secret")]
    assert refused["event"] == "peer_secret_not_taken" and "mode 0644" in refused["reason"]
    assert taken["event"] == "peer_secret_taken" and taken["path"] == str(path)
    assert not any("secret of all" in str(line) for line in lines)


def test_which_certificates_are_nodes(authority: Authority) -> None:
    """Without an authority of their own, those for their hosts; with one, all; and whatever is said."""
    cert, key = map(str, authority.issue("node"))
    ca = str(authority.path)

    def names(peer_ca: str | None = None, given: tuple[str, ...] | None = None) -> PeerNames | None:
        return Tls.from_files(ca=ca, cert=cert, key=key, peer_ca=peer_ca, peer_names=given).peer_names

    assert names() == PeerNames() and names(ca) is None
    assert names(None, ("any",)) is None and names(ca, ("member",)) == PeerNames()
    assert names(ca, ("n1", "n2")) == PeerNames(("n1", "n2"))
    for wrong, said in ((("any", "n1"), "'any' stands alone"), ((), "must be any, member, or names")):
        with pytest.raises(ConfigError, match=said):
            names(None, wrong)


def answer_to(node: NodeProcess, ca: Authority, files: tuple[Path, Path]) -> str:
    """What a node says to a hello behind this certificate."""
    context = ssl.create_default_context(ssl.Purpose.SERVER_AUTH, cafile=str(ca.path))
    context.load_cert_chain(*files)
    plain = socket.create_connection(split_address(node.own.peer_address), DEADLINE_S)
    with plain, context.wrap_socket(plain, server_hostname="127.0.0.1") as stranger:
        stranger.settimeout(DEADLINE_S)
        stranger.sendall(encode_message(msgspec.structs.replace(hello(9), address="127.0.0.1:9")))
        decoder = FrameDecoder(1 << 20)
        while not (payloads := decoder.feed(stranger.recv(65536))):
            pass
    reply = decode_message(payloads[0])
    assert isinstance(reply, HelloReply)
    return reply.refused


def test_a_client_is_no_node_although_both_have_one_authority(authority: Authority, tmp_path: Path) -> None:
    """Its certificate opens the port for clients, and is refused as a node's at the other one, with the reason."""
    node, client = authority.issue("node"), authority.issue("alice", hosts="DNS:alice")
    with ForkedCluster(tmp_path / "nodes", 1, arguments=options_of(authority, node)) as cluster:
        cluster.start_all()
        speaks = options_of(authority, client)
        assert invoke("put", "a", "1", "-a", cluster.addresses[0], *speaks, "--timeout", "30").exit_code == 0
        refused = "node 9 shows a certificate for alice, and not for 127.0.0.1"
        assert refused in answer_to(cluster.nodes[1], authority, client)
        assert "belongs to the cluster" in answer_to(cluster.nodes[1], authority, node)


def test_the_log_warns_before_a_certificate_runs_out(authority: Authority, monkeypatch: pytest.MonkeyPatch) -> None:
    """Thirty days before, once a day, of each; a new one ends it (F84)."""
    monkeypatch.setattr(tls, "LOOK_S", 0.01)
    cert, key = authority.issue("node", days=WARN_S // 86400 - 1)
    made = node_tls(str(authority.path), str(cert), str(key), str(authority.path))
    assert made is not None
    renewal = Renewal(made.every)

    async def story(wait: Any) -> None:
        await wait(lambda: any(line["event"] == "certificate_runs_out" for line in lines))
        authority.issue("node")
        await wait(lambda: all(each.loaded.own.not_after > warned for each in made.every))

    warned = made.peers.loaded.own.not_after
    with capture_logs() as lines:
        asyncio.run(renewing(renewal, story))
    said = [line for line in lines if line["event"] == "certificate_runs_out"]
    assert [(line["name"], line["role"], line["days"]) for line in said] == [("node", "node", WARN_S // 86400 - 2)]


def test_what_is_missing_is_named(authority: Authority, tmp_path: Path) -> None:
    """Each file with its option; a part of the options is too little."""
    cert, key = map(str, authority.issue("node"))
    ca, nowhere = str(authority.path), str(tmp_path / "nowhere.pem")
    assert node_tls(None, None, None, None) is None
    for given, named in (
        ((nowhere, cert, key, None), "tls_ca"),
        ((ca, nowhere, key, None), "tls_cert"),
        ((ca, cert, nowhere, None), "tls_key"),
        ((ca, cert, key, nowhere), "tls_peer_ca"),
    ):
        with pytest.raises(ConfigError, match=f"{named} = {nowhere!r}: No such file or directory: put the PEM file"):
            node_tls(*given)
    with pytest.raises(ConfigError, match="all three are needed"):
        node_tls(ca, None, key, None)
    with pytest.raises(ConfigError, match="needs tls_ca, tls_cert and tls_key"):
        node_tls(None, None, None, ca)
