"""What clients and other nodes must show, from files; and new files taken up while the process runs."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Sequence
from typing import Protocol

import msgspec

from raftkv.errors import ConfigError
from raftkv.logs import EventLog
from raftkv.transport import Credentials, PeerNames, TlsFiles
from raftkv.transport.threads import DaemonThreads
from raftkv.transport.tls import WARN_S

logger = EventLog(__name__)

LOOK_S = 5.0
"""How often files are looked at; a few `stat` calls."""

REMIND_S = 24 * 3600.0
"""How often the log says again that a certificate runs out."""


class NodeTls(msgspec.Struct, frozen=True):
    """What a node's ports demand; the same for clients and peers, unless nodes have an authority of their own."""

    clients: Credentials
    peers: Credentials
    http: Credentials | None = None
    """For metrics and health; None when they don't speak TLS."""
    names: PeerNames | None = None
    """What the certificate of a node that dials must be for; None for any of the authority of nodes."""

    @property
    def every(self) -> list[Credentials]:
        """Each once."""
        found = [self.clients, self.peers, *([self.http] if self.http is not None else [])]
        return list({id(each): each for each in found}.values())


def node_tls(
    ca: str | None,
    cert: str | None,
    key: str | None,
    peer_ca: str | None = None,
    http: str = "off",
    peer_names: Sequence[str] | None = None,
) -> NodeTls | None:
    """From a node's files; None without any. Raises `ConfigError` that names what is wrong.

    `peer_names` are for `peer_names_of`.

    `http` is for metrics and health: `off`; `server` shows this node's certificate and asks for none, as probes and
    monitors often have none; `mutual` asks for one of the authority of clients.
    """
    files = _files(ca, cert, key)
    if files is None:
        demands = {"tls_peer_ca": peer_ca, "http_tls": http if http != "off" else None, "tls_peer_names": peer_names}
        for setting, given in demands.items():
            if given is not None:
                raise ConfigError(f"{setting} = {given!r}: needs tls_ca, tls_cert and tls_key")
        return None
    clients = peers = Credentials(files)
    if peer_ca is not None:
        peers = Credentials(msgspec.structs.replace(files, ca=peer_ca, ca_setting="tls_peer_ca"))
    by_mode = {"off": None, "mutual": clients}
    at_http = by_mode[http] if http in by_mode else Credentials(files, demands=False)
    return NodeTls(clients, peers, at_http, peer_names_of(peer_names, has_own_authority=peer_ca is not None))


def peer_names_of(given: Sequence[str] | None, *, has_own_authority: bool) -> PeerNames | None:
    """Which certificates are nodes': with names, those that have one of them.

    `any` takes all of the authority, which is the default where nodes have one of their own; `member` takes those for
    the host at which the membership has the node, which is the default elsewhere. Raises `ConfigError`.
    """
    given = given if given is not None else ("any" if has_own_authority else "member",)
    for word in ("any", "member"):
        if word in given and len(given) > 1:
            raise ConfigError(f"tls_peer_names = {list(given)!r}: {word!r} stands alone, or there are names")
    if not given or not all(given):
        raise ConfigError(f"tls_peer_names = {list(given)!r}: must be any, member, or names separated by commas")
    if given[0] == "any":
        return None
    return PeerNames(() if given[0] == "member" else tuple(given))


class Tls(msgspec.Struct, frozen=True, kw_only=True):
    """What a node's ports speak; one that is not given speaks no TLS.

    ```python
    Server(Inventory, data_dir="data", tls=Tls.from_files(ca="ca.pem", cert="node.pem", key="node.key"))
    ```
    """

    clients: ssl.SSLContext | None = None
    peers: tuple[ssl.SSLContext, ssl.SSLContext] | None = None
    """For the links between nodes: a context to be dialled with, and one to dial."""
    http: ssl.SSLContext | None = None
    """For metrics and health."""
    peer_names: PeerNames | None = None
    """What the certificate of a node that dials must be for; None for any of the authority of nodes."""
    asking: ssl.SSLContext | None = None
    """To ask the other nodes where they listen for clients, for the page that shows the cluster."""
    renewed: tuple[Credentials, ...] = ()
    """Whose files are looked at while the node runs, and taken up when they are others."""

    @classmethod
    def from_files(
        cls,
        *,
        ca: str,
        cert: str,
        key: str,
        peer_ca: str | None = None,
        http: str = "off",
        peer_names: Sequence[str] | None = None,
    ) -> Tls:
        """From PEM files, which are taken up anew when they change: who shows no certificate of `ca` is not let in.

        With `peer_ca`, nodes have an authority of their own; without, a node's certificate must be for its host in the
        membership, or have one of `peer_names`. `http` is for metrics and health: `off`; `server` shows this node's
        certificate and asks for none; `mutual` asks for one of `ca`. Raises `ConfigError`.
        """
        return cls.of(node_tls(ca, cert, key, peer_ca, http, peer_names))

    @classmethod
    def of(cls, made: NodeTls | None) -> Tls:
        """What was made of a node's files; nothing speaks TLS without."""
        if made is None:
            return cls()
        return cls(
            clients=made.clients.server,
            peers=(made.peers.server, made.peers.client),
            http=made.http.server if made.http is not None else None,
            peer_names=made.names,
            asking=made.clients.client,
            renewed=tuple(made.every),
        )


def client_context(ca: str | None, cert: str | None, key: str | None) -> ssl.SSLContext | None:
    """For connecting to nodes; None without files. Raises `ConfigError`."""
    files = _files(ca, cert, key)
    return Credentials(files).client if files is not None else None


def _files(ca: str | None, cert: str | None, key: str | None) -> TlsFiles | None:
    if ca is None and cert is None and key is None:
        return None
    if ca is None or cert is None or key is None:
        raise ConfigError(f"tls_ca = {ca!r}, tls_cert = {cert!r}, tls_key = {key!r}: all three are needed, or none")
    return TlsFiles(ca, cert, key)


class Watched(Protocol):
    """Files that may be replaced while they are in use."""

    kind: str
    """How the log's events on them begin."""
    not_taken: str
    """Why the present files could not be taken up; empty when they are in use."""

    def is_replaced(self) -> bool:
        """Whether the files are others than were read; in a thread, as they may lie on a network that hangs."""

    def renew(self) -> None:
        """Read them again; in a thread. Raises `ConfigError` and `OSError`."""

    def describe(self) -> dict[str, str]:
        """What was read, for the log."""


class Renewal:
    """Takes up new certificates, keys and secrets as they come, and says when a certificate will run out.

    Whoever replaces files may be half-way through: what does not fit together is not taken, and looked at again.
    """

    def __init__(self, every: Sequence[Watched]) -> None:
        self._every = every
        self._asked = asyncio.Event()
        self._threads: DaemonThreads[object] = DaemonThreads("raftkv-tls-files", 1)
        self._refused: dict[int, str] = {}
        self._said: dict[str, float] = {}

    def look(self) -> None:
        """Look at the files at once, and read them even if they look the same."""
        self._asked.set()

    async def run(self) -> None:
        """Until it is cancelled."""
        while True:
            force = self._asked.is_set()
            self._asked.clear()
            for at, watched in enumerate(self._every):
                await self._renew(at, watched, force)
            self._warn()
            try:
                async with asyncio.timeout(LOOK_S):
                    await self._asked.wait()
            except TimeoutError:
                continue

    async def _renew(self, at: int, watched: Watched, force: bool) -> None:
        # In a thread that nobody waits for: files may lie on a network that hangs.
        try:
            if force or await self._threads.run(watched.is_replaced):
                await self._threads.run(watched.renew)
                logger.info(f"{watched.kind}_taken", **watched.describe())
        except (ConfigError, OSError) as exc:
            watched.not_taken = str(exc)
            if self._refused.get(at) != str(exc):
                self._refused[at] = str(exc)
                hint = "what was read before goes on being used"
                logger.warning(f"{watched.kind}_not_taken", reason=str(exc), hint=hint)
            return
        watched.not_taken = ""
        self._refused.pop(at, None)

    def _warn(self) -> None:
        """A certificate that runs out stops nothing at once: nodes part when they connect again."""
        now = asyncio.get_running_loop().time()
        shown = [each for each in self._every if isinstance(each, Credentials)]
        for each in {status.name: status for one in shown for status in one.status()}.values():
            said = self._said.get(each.name)
            if each.expires_s >= WARN_S:
                self._said.pop(each.name, None)
            elif said is None or now - said >= REMIND_S:
                self._said[each.name] = now
                logger.warning(
                    "certificate_runs_out",
                    role=each.role,
                    name=each.name,
                    not_after=f"{each.not_after:%Y-%m-%d %H:%M} UTC",
                    days=int(each.expires_s // 86400),
                    hint="replace its file; it is taken up without a restart",
                )
