"""Refuses to listen where other machines reach a port that nothing protects.

What the settings name is looked up and judged before anything is touched. A name may mean something else a moment
later, or be known only then, so what was really bound is judged again before anybody is served there.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, TypeAlias

import msgspec

from raftkv.addresses import is_loopback, join
from raftkv.errors import ConfigError
from raftkv.server.settings import Found, Plan, parse_address
from raftkv.server.tls import Tls
from raftkv.transport import Resolver
from raftkv.transport.tls import asks_for_certificates

Port: TypeAlias = Literal["listen", "peer_listen", "http"]
"""A port by the name of its setting."""


class Protected(msgspec.Struct, frozen=True, kw_only=True):
    """Whether something keeps strangers out of each port."""

    clients: bool = False
    peers: bool = False
    http: bool = False

    @classmethod
    def of(cls, plan: Plan, tls: Tls, *, has_secret: bool) -> Protected:
        """By what a node's ports speak. HTTPS that asks for no certificate keeps nobody out by itself, and without it
        passwords and tokens could be read on their way."""
        http = tls.http
        return cls(
            clients=tls.clients is not None,
            peers=tls.peers is not None or has_secret,
            http=http is not None and (asks_for_certificates(http) or plan.http_sign_in == "all"),
        )


async def check_exposure(plan: Plan, protected: Protected) -> None:
    """Raises `ConfigError`, which says what to do, unless the plan says that it shall be so."""
    if plan.insecure:
        return
    if not protected.peers and await _is_exposed(plan.peer_listen):
        raise ConfigError(_refusal("peer_listen", plan, plan.peer_listen))
    if not protected.clients and await _is_exposed(plan.listen):
        raise ConfigError(_refusal("listen", plan, plan.listen))
    if plan.http is not None and not protected.http and await _is_exposed(plan.http):
        raise ConfigError(_refusal("http", plan, plan.http))


def check_bound(port: Port, hosts: Iterable[str], plan: Plan, protected: Protected) -> None:
    """The same for a port that listens at these numeric hosts by now. Raises `ConfigError`."""
    is_protected = {"listen": protected.clients, "peer_listen": protected.peers, "http": protected.http}[port]
    given = {"listen": plan.listen, "peer_listen": plan.peer_listen, "http": plan.http}[port]
    if plan.insecure or is_protected or given is None:
        return
    for host in hosts:
        if not is_loopback(host):
            raise ConfigError(_refusal(port, plan, given, join(host, parse_address(given.value)[1])))


def _refusal(port: Port, plan: Plan, given: Found[str], bound: str = "") -> str:
    """What is wrong with where a port is to listen, and what to do; `bound` is the address that it came to."""
    ways = plan.protections
    came_to = f", which came to {bound}," if bound else ""
    beginning = f"{port} = {given.value!r} (from {given.source}){came_to} is no loopback address"
    otherwise = f"listen on loopback (127.0.0.1), or, where nobody else gets in, say so ({ways.insecure})"
    match port:
        case "peer_listen":
            return (
                f"{beginning}, and whoever reaches it could pose as a node: give TLS ({ways.tls}) or a cluster secret "
                f"({ways.secret}), {otherwise}"
            )
        case "listen":
            return (
                f"{beginning}, and whoever reaches it could read and change everything: give TLS ({ways.tls}; a "
                f"cluster secret, {ways.secret}, is for the port of nodes alone), {otherwise}"
            )
        case "http":
            return (
                f"{beginning}, and whoever reaches it could see how the cluster is, or read passwords on their way: "
                f"ask for certificates ({ways.http_mutual}), or let all sign in over HTTPS ({ways.http_users}), "
                f"{otherwise}"
            )


async def _is_exposed(given: Found[str]) -> bool:
    try:
        hosts = await Resolver().hosts(parse_address(given.value)[0])
    except OSError:
        return False  # nobody can listen there now; should it be known in a moment, `check_bound` looks at it
    return not all(map(is_loopback, hosts))
