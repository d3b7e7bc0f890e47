"""Refuses to listen where other machines reach a port that nothing protects."""

from __future__ import annotations

from raftkv.addresses import is_loopback
from raftkv.errors import ConfigError
from raftkv.server.settings import Found, Plan, parse_address
from raftkv.transport import Resolver


async def check_exposure(plan: Plan, *, clients_are_checked: bool, peers_are_checked: bool) -> None:
    """Raises `ConfigError`, which says what to do, unless the plan says that it shall be so."""
    if plan.insecure:
        return
    ways = plan.protections
    if not peers_are_checked and await _is_exposed(plan.peer_listen):
        raise ConfigError(
            f"{_beginning('peer_listen', plan.peer_listen)}, and whoever reaches it could pose as a node: give TLS "
            f"({ways.tls}) or a cluster secret ({ways.secret}), listen on loopback (127.0.0.1), or, where nobody else "
            f"gets in, say so ({ways.insecure})"
        )
    if not clients_are_checked and await _is_exposed(plan.listen):
        raise ConfigError(
            f"{_beginning('listen', plan.listen)}, and whoever reaches it could read and change everything: give TLS "
            f"({ways.tls}; a cluster secret, {ways.secret}, is for the port of nodes alone), listen on loopback "
            f"(127.0.0.1), or, where nobody else gets in, say so ({ways.insecure})"
        )


def _beginning(name: str, given: Found[str]) -> str:
    return f"{name} = {given.value!r} (from {given.source}) is no loopback address"


async def _is_exposed(given: Found[str]) -> bool:
    try:
        hosts = await Resolver().hosts(parse_address(given.value)[0])
    except OSError:
        return False  # nobody can listen there, and whoever tries says why
    return not all(map(is_loopback, hosts))
