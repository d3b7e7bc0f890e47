"""What a node's process needs to know, checked; and where each of it was given, as an error has to say it."""

from __future__ import annotations

from typing import Generic, TypeVar

import msgspec

from raftkv.addresses import is_wildcard
from raftkv.addresses import parse as address_parts
from raftkv.config import Config
from raftkv.errors import ConfigError, InvalidArgument
from raftkv.model import Member, NodeId

T = TypeVar("T")

HTTP_TLS_MODES = ("off", "server", "mutual")
"""Plain HTTP; HTTPS with the node's certificate; the same, for those who show a certificate themselves."""

HTTP_SIGN_IN_MODES = ("pages", "all")
"""Users sign in, once they have to anywhere, to see the page and the status; or always, and for metrics as well."""

DEFAULT_LISTEN = "127.0.0.1:7001"
DEFAULT_PEER_LISTEN = "127.0.0.1:8001"
DEFAULT_MACHINE = "raftkv.kv:KeyValue"


class Found(msgspec.Struct, Generic[T], frozen=True):
    """A setting's value, and where it was given, as an error has to say it."""

    value: T
    source: str
    is_given: bool = True
    """Whether somebody has said it, so that nothing else can know better."""


class Protections(msgspec.Struct, frozen=True):
    """How each way to protect a node's ports is said."""

    tls: str
    secret: str
    insecure: str
    http_mutual: str
    http_users: str


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """Which node it is to be, with everything around it; checked."""

    node_id: NodeId = 1
    data_dir: str = "raftkv-data"
    listen: Found[str] = Found(DEFAULT_LISTEN, "the default", False)
    peer_listen: Found[str] = Found(DEFAULT_PEER_LISTEN, "the default", False)
    http: Found[str] | None = None
    """Where metrics and health are served; None: nowhere."""
    http_sign_in: str = "pages"
    """`HTTP_SIGN_IN_MODES`."""
    members: tuple[Member, ...] = ()
    """The founders; empty when the node joins, or is the only founder."""
    join: bool = False
    cluster_name: str = ""
    """Empty: as in the directory, and "raftkv" for a new cluster."""
    rebuild: bool = False
    insecure: bool = False
    """Whether ports may be reached from other machines although nothing protects them."""
    config: Config = Config()
    given: dict[str, str] = {}
    """Where each value of `config` is from that somebody has given."""

    @property
    def is_alone(self) -> bool:
        """Whether it is the only founder of its cluster, if the directory is new."""
        return not self.members and not self.join

    @property
    def naming_hint(self) -> str:
        """How to say where others reach it."""
        return f"name it in members: Member({self.node_id}, 'HOST:PEER_PORT', 'HOST:CLIENT_PORT')"

    @property
    def protections(self) -> Protections:
        return Protections(
            "tls=Tls.from_files(…)",
            "Listen(peer_secret_file=…)",
            "Listen(insecure=True)",
            http_mutual="tls=Tls.from_files(…, http='mutual')",
            http_users="tls=Tls.from_files(…, http='server') and Listen(http_sign_in='all')",
        )


class Settings(Plan, frozen=True, kw_only=True):
    """Everything that `raftkv serve` needs to know, checked."""

    http_tls: str = "off"
    """`HTTP_TLS_MODES`."""
    machine: str = DEFAULT_MACHINE
    log_json: bool = False
    log_level: str = "info"
    tls_ca: str | None = None
    tls_cert: str | None = None
    tls_key: str | None = None
    tls_peer_ca: str | None = None
    tls_peer_names: tuple[str, ...] | None = None
    """For `peer_names_of`."""
    peer_secret_file: str | None = None
    """Where the secret is that nodes prove to each other; None: they prove none."""

    @property
    def naming_hint(self) -> str:
        return f"say it with --member {self.node_id}=HOST:PEER_PORT/HOST:CLIENT_PORT"

    @property
    def protections(self) -> Protections:
        return Protections(
            "--tls-ca, --tls-cert, --tls-key",
            "--peer-secret-file",
            "--insecure",
            http_mutual="--http-tls mutual",
            http_users="--http-tls server --http-sign-in all",
        )


def parse_address(text: str) -> tuple[str, int]:
    """Split "host:port" (or "[v6]:port"); raises `ValueError` that says what is allowed."""
    try:
        return address_parts(text, lowest_port=0)
    except InvalidArgument:
        raise ValueError("must be HOST:PORT, such as 127.0.0.1:7001") from None


def lone_founder(plan: Plan, peer_port: int | None = None, client_port: int | None = None) -> Member:
    """A new cluster's only member, when nobody named any, at the ports that were chosen where 0 was asked for.

    Raises `ConfigError` when others could never reach it.
    """
    addresses = []
    for name, given, port in (
        ("listen", plan.listen, client_port),
        ("peer_listen", plan.peer_listen, peer_port),
    ):
        if is_wildcard(parse_address(given.value)[0]):
            raise ConfigError(
                f"{name} = {given.value!r} (from {given.source}) is no address that others could use: "
                f"{plan.naming_hint}"
            )
        addresses.append(with_port(given.value, port))
    member = Member(plan.node_id, addresses[1], addresses[0])
    if port_is_shared(member):
        raise ConfigError(
            f"listen = {member.client_address!r} (from {plan.listen.source}) is where it listens for other nodes, "
            f"too (peer_listen, from {plan.peer_listen.source}): each needs an address of its own"
        )
    return member


def with_port(address: str, port: int | None) -> str:
    """The address with the port that was chosen, if 0 was asked for."""
    return f"{address.rpartition(':')[0]}:{port}" if port is not None and parse_address(address)[1] == 0 else address


def port_is_shared(member: Member) -> bool:
    """Whether nodes and clients would be sent to one port; 0 stands for any."""
    return member.peer_address == member.client_address and parse_address(member.peer_address)[1] != 0
