"""What a node answers to a client's hello."""

from __future__ import annotations

from raftkv.listener.interface import Service
from raftkv.listener.standing import Standing
from raftkv.wire import PROTOCOL_VERSION, ClientHello, Members, ServerHello


def unfit(hello: ClientHello, service: Service) -> str:
    """Why the client can't be served here, whoever it is; empty for one that can."""
    if hello.version != PROTOCOL_VERSION:
        return f"node {service.node_id} speaks version {PROTOCOL_VERSION}, not {hello.version}"
    elif hello.cluster_id and hello.cluster_id != service.cluster_id:
        return f"node {service.node_id} belongs to cluster {service.cluster_id!r}, not {hello.cluster_id!r}"
    return ""


def answer_hello(service: Service, standing: Standing, members: Members, refused: str) -> ServerHello:
    """Unless `refused` is empty, it says why the connection ends."""
    return ServerHello(
        PROTOCOL_VERSION,
        service.cluster_id,
        service.node_id,
        service.fingerprint,
        refused,
        members,
        cancels=True,
        asks_who=standing.is_asked,
        user=standing.user or "",
    )
