"""What both sides of a handshake have in common."""

from __future__ import annotations

from raftkv.errors import HandshakeRefused, PeerRemoved
from raftkv.transport.interface import TransportHandler
from raftkv.wire import Hello, Removal


def check_version(handler: TransportHandler, hello: Hello) -> None:
    """Raises `HandshakeRefused` when the other side speaks another version of the protocol."""
    own = handler.hello()
    if hello.version != own.version:
        raise HandshakeRefused(
            f"node {own.node_id} speaks version {own.version} of the protocol, node {hello.node_id} version "
            f"{hello.version}: run versions of raftkv on both that speak the same"
        )


def removal_of(handler: TransportHandler, refusal: HandshakeRefused) -> Removal | None:
    """For the reply to a node that was refused because it is no member any more; None for other refusals."""
    if not isinstance(refusal, PeerRemoved):
        return None
    own = handler.hello()
    return Removal(own.cluster_id, own.node_id, own.incarnation, refusal.index, refusal.term, refusal.leads)
