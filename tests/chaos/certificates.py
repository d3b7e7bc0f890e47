"""Certificates for tests, made by the `openssl` command."""

from __future__ import annotations

import shutil
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")


SETTINGS = """
[ca]
default_ca = it
[it]
database = {folder}/index
new_certs_dir = {folder}
rand_serial = yes
unique_subject = no
default_md = sha256
policy = any
certificate = {folder}/{ca}.pem
private_key = {folder}/{ca}.key
x509_extensions = hosts
[any]
commonName = supplied
[hosts]
subjectAltName = {hosts}
"""


def missing() -> str | None:
    """Why none can be made here; None if they can."""
    return None if shutil.which("openssl") else "there is no openssl to make certificates with"


def run(*command: str | Path) -> None:
    """The `openssl` command."""
    subprocess.run(["openssl", *map(str, command)], check=True, capture_output=True)


class Authority:
    """Issues certificates for this host into a folder: `name`.pem and `name`.key."""

    def __init__(self, folder: Path, name: str = "ca", *, days: int = 400) -> None:
        """Raises `AssertionError` where none can be made."""
        assert (reason := missing()) is None, reason
        self.folder, self.name = folder, name
        self.path = folder / f"{name}.pem"
        folder.mkdir(parents=True, exist_ok=True)
        made = ("-keyout", folder / f"{name}.key", "-out", self.path)
        run("req", "-x509", *KEY, "-days", str(days), "-subj", f"/CN={name}", *made)

    def issue(self, name: str, *, days: float = 100, hosts: str = "IP:127.0.0.1") -> tuple[Path, Path]:
        """A certificate and its key; one of a negative number of days has run out. Made anew when asked for again."""
        key, request, cert = (self.folder / f"{name}.{end}" for end in ("key", "csr", "pem"))
        settings = self.folder / f"{name}.conf"
        settings.write_text(SETTINGS.format(folder=self.folder, ca=self.name, hosts=hosts))
        (self.folder / "index").touch()
        run("req", *KEY, "-subj", f"/CN={name}", "-keyout", key, "-out", request)
        end = datetime.now(UTC) + timedelta(days=days)
        dates = [f"{each:%y%m%d%H%M%SZ}" for each in (min(end, datetime.now(UTC)) - timedelta(days=1), end)]
        command = ("ca", "-batch", "-notext", "-config", settings, "-startdate", dates[0], "-enddate", dates[1])
        # Written beside and renamed: whoever looks sees the old one or the new one.
        run(*command, "-in", request, "-out", cert.with_suffix(".new"))
        cert.with_suffix(".new").rename(cert)
        return cert, key
