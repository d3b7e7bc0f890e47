"""Translates a `SyncObjConf` into raftkv's settings: some fields act, some are accepted, some are refused."""

from __future__ import annotations

import ipaddress
import socket
import ssl as tls
import warnings
from typing import Any

import msgspec
import pysyncobj

from raftkv.addresses import parse
from raftkv.config import Config
from raftkv.errors import ConfigError, InvalidArgument
from raftkv.syncobj.codec import CODECS

_OWN = {"codec": "pickle", "dataDir": None, "peerTLS": None}


class SyncObjConf(pysyncobj.SyncObjConf):  # type: ignore[misc]
    """PySyncObj's settings, and three more by keyword.

    `codec`: "pickle" (any objects), or "msgpack" (plain data; bytes from the network execute nothing).
    `dataDir`: where this node keeps its log and state. By default it is named after `journalFile` or `fullDumpFile`.
    `peerTLS`: two `ssl.SSLContext`s, to be dialled with and to dial. Both must demand certificates.
    """

    def __init__(self, **kwargs: Any) -> None:
        for name, default in _OWN.items():
            setattr(self, name, kwargs.get(name, default))
        known = {*vars(pysyncobj.SyncObjConf()), *_OWN}
        if unknown := sorted(set(kwargs) - known):
            raise ConfigError(f"SyncObjConf: {unknown} are no settings")
        super().__init__(**kwargs)


_HONOURED = {
    "appendEntriesPeriod",
    "autoTick",
    "autoTickPeriod",
    "bindAddress",
    "bindRetryTime",
    "commandsQueueSize",
    "commandsWaitLeader",
    "dynamicMembershipChange",
    "fullDumpFile",
    "journalFile",
    "logCompactionMinEntries",
    "logCompactionMinTime",
    "maxBindRetries",
    "onCodeVersionChanged",
    "onReady",
    "onStateChanged",
    "raftMinTimeout",
    *_OWN,
}
_REFUSED = ("serializer", "deserializer", "serializeChecker")


class HostSettings(msgspec.Struct, frozen=True, kw_only=True):
    """The settings of a `SyncObj`'s node, as they follow from its `SyncObjConf`."""

    address: str
    """As its peers know it."""
    host: str
    port: int
    """Where it listens."""
    config: Config
    ssl_server: tls.SSLContext | None
    ssl_client: tls.SSLContext | None
    data_dir: str | None
    """None: a temporary directory, removed at the end."""

    @classmethod
    def of(cls, conf: Any, address: str) -> HostSettings:
        """Raises `ConfigError`; warns once, naming every field that is set and has no effect."""
        codec = getattr(conf, "codec", "pickle")
        if codec not in CODECS:
            raise ConfigError(f"codec = {codec!r}: must be one of {', '.join(CODECS)}")
        server, client = getattr(conf, "peerTLS", None) or (None, None)
        host, port = split(conf.bindAddress or address)
        if codec == "pickle" and not is_loopback(host):
            _demand_certificates(host, server, client)
        _warn(conf)
        directory = getattr(conf, "dataDir", None)
        if directory is None and (named := conf.journalFile or conf.fullDumpFile) is not None:
            directory = f"{named}.raftkv"
        return cls(
            address=address,
            host=host,
            port=port,
            config=_config(conf),
            ssl_server=server,
            ssl_client=client,
            data_dir=directory,
        )


def _config(conf: Any) -> Config:
    election_ms = max(50, round(conf.raftMinTimeout * 1000))
    heartbeat_ms = max(10, min(round(conf.appendEntriesPeriod * 1000), election_ms // 5))
    return Config(
        tick_ms=min(15, heartbeat_ms),
        heartbeat_ms=heartbeat_ms,
        election_timeout_ms=election_ms,
    )


def _warn(conf: Any) -> None:
    refused = [name for name in _REFUSED if getattr(conf, name, None) is not None]
    if refused:
        raise ConfigError(
            f"{', '.join(refused)}: the state is what is in the attributes of the object and its consumers; "
            "what is kept elsewhere can't be part of a snapshot"
        )
    default = vars(pysyncobj.SyncObjConf())
    ignored = [n for n, value in sorted(vars(conf).items()) if n not in _HONOURED and value != default.get(n)]
    if ignored:
        warnings.warn(f"SyncObjConf: {', '.join(ignored)} have no effect on raftkv", stacklevel=5)


def _demand_certificates(host: str, server: tls.SSLContext | None, client: tls.SSLContext | None) -> None:
    for context in (server, client):
        if context is None or context.verify_mode is not tls.CERT_REQUIRED:
            raise ConfigError(
                f"this node listens on {host}, where strangers may reach it, and unpickling what they send would "
                "execute it: give `peerTLS` two contexts that demand certificates (verify_mode = CERT_REQUIRED), "
                "or set codec = 'msgpack', or listen on loopback"
            )


def split(address: str) -> tuple[str, int]:
    """The host and port of "host:port". Raises `ConfigError`."""
    try:
        return parse(address)
    except InvalidArgument as exc:
        raise ConfigError(str(exc)) from None


def is_loopback(host: str) -> bool:
    """Whether only processes of this machine can reach a listener on `host`."""
    try:
        found = socket.getaddrinfo(host, None)
    except OSError:
        return False
    return all(ipaddress.ip_address(str(info[4][0]).partition("%")[0]).is_loopback for info in found)
