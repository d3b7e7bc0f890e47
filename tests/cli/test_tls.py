"""TLS: the options of nodes and of commands fit each other."""

from __future__ import annotations

import http.client
import shutil
import ssl
import subprocess
import urllib.error
import urllib.request

import pytest

from raftkv.testing.ports import free_ports
from raftkv.testing.processes import ProcessCluster
from tests.cli.commands import invoke


@pytest.fixture
def options(tmp_path):
    """A certificate for this host, signed by itself, as options."""
    if shutil.which("openssl") is None:
        pytest.skip("no openssl to make a certificate with")
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    command += ["-days", "2", "-subj", "/CN=node", "-addext", "subjectAltName=IP:127.0.0.1"]
    subprocess.run([*command, "-keyout", str(key), "-out", str(cert)], check=True, capture_output=True)
    return ["--tls-ca", str(cert), "--tls-cert", str(cert), "--tls-key", str(key)]


def test_metrics_and_health_speak_tls_when_told_to(options, tmp_path):
    """`mutual`: nothing is said to whoever shows no certificate; `server`: it is enough to know the node's."""
    context = ssl.create_default_context(cafile=options[1])
    for mode in ("server", "mutual"):
        with ProcessCluster(tmp_path / mode, 1, arguments=[*options, "--http-tls", mode]) as cluster:
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


def test_https_without_a_certificate_is_refused_with_the_reason():
    """It would be plain HTTP, and look like the other."""
    result = invoke("serve", "--http", "127.0.0.1:0", "--http-tls", "server")
    assert result.exit_code == 2 and "needs tls_ca" in result.stderr
    assert invoke("serve", "--http-tls", "maybe").exit_code == 2


def test_only_who_has_a_certificate_gets_in(options, tmp_path):
    """Nodes among each other and clients with nodes; a client without one is told nothing."""
    with ProcessCluster(tmp_path / "nodes", 3, arguments=options) as cluster:
        cluster.start_all()
        address = ("-a", cluster.addresses[0])
        assert invoke("put", "a", "1", *address, *options, "--timeout", "30").exit_code == 0
        assert invoke("get", "a", *address, *options).stdout == "1\n"
        assert invoke("get", "a", *address, "--timeout", "0.5").exit_code == 3
