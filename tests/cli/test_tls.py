"""TLS: the options of nodes and of commands fit each other."""

from __future__ import annotations

import shutil
import subprocess

import pytest

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


def test_only_who_has_a_certificate_gets_in(options, tmp_path):
    """Nodes among each other and clients with nodes; a client without one is told nothing."""
    with ProcessCluster(tmp_path / "nodes", 3, arguments=options) as cluster:
        cluster.start_all()
        address = ("-a", cluster.addresses[0])
        assert invoke("put", "a", "1", *address, *options, "--timeout", "30").exit_code == 0
        assert invoke("get", "a", *address, *options).stdout == "1\n"
        assert invoke("get", "a", *address, "--timeout", "0.5").exit_code == 3
