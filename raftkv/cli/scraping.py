"""A scrape configuration for Prometheus, by which it asks nodes for their metrics and shows what they demand of it."""

from __future__ import annotations

import json
from collections.abc import Sequence

import msgspec

from raftkv.addresses import is_loopback, parse
from raftkv.errors import InvalidArgument


class Scrape(msgspec.Struct, frozen=True, kw_only=True):
    """Whom it asks, and what it shows; raises `InvalidArgument` for what can't be, or would tell a token to others."""

    targets: Sequence[str]
    """HOST:PORT of each node's `--http`."""
    token_file: str | None = None
    """The token of a user who has the right `metrics`; of mode 0600, for the user that Prometheus runs as."""
    tls_ca: str | None = None
    """With it, nodes are asked by HTTPS, and must show a certificate of this authority."""
    tls_cert: str | None = None
    tls_key: str | None = None

    def __post_init__(self) -> None:
        hosts = [parse(target)[0] for target in self.targets]
        if (self.tls_cert is None) is not (self.tls_key is None):
            raise InvalidArgument("tls_cert and tls_key belong together: give both, or none")
        if self.tls_cert is not None and self.tls_ca is None:
            raise InvalidArgument("tls_cert is shown by HTTPS alone: give tls_ca as well")
        far = [host for host in hosts if not is_loopback(host)]
        if self.token_file is not None and self.tls_ca is None and far:
            raise InvalidArgument(f"whoever is on the way to {far[0]} could read the token: give tls_ca, for HTTPS")

    def text(self) -> str:
        """It as YAML. Texts are written as JSON has them, which is YAML too."""
        lines = [
            "# Made by `raftkv monitoring prometheus`. The job belongs into prometheus.yml, or the name of this file",
            "# into its scrape_config_files (Prometheus 2.43).",
            "scrape_configs:",
            "  - job_name: raftkv",
        ]
        if self.tls_ca is not None:
            lines += ["    scheme: https", "    tls_config:", f"      ca_file: {json.dumps(self.tls_ca)}"]
        if self.tls_cert is not None:
            lines += [f"      cert_file: {json.dumps(self.tls_cert)}", f"      key_file: {json.dumps(self.tls_key)}"]
        if self.token_file is not None:
            lines += ["    authorization:", f"      credentials_file: {json.dumps(self.token_file)}"]
        lines += ["    static_configs:", f"      - targets: {json.dumps(list(self.targets))}"]
        return "\n".join(lines) + "\n"
