"""The network between nodes: its interface, TCP, and a network in memory."""

import typing

from raftkv.lazy import exports as _exports

if typing.TYPE_CHECKING:
    from raftkv.transport.demands import Demands
    from raftkv.transport.interface import LinkStatus, Transport, TransportHandler, TransportStats
    from raftkv.transport.limits import TransportLimits
    from raftkv.transport.listening import listen, listening_hosts
    from raftkv.transport.memory import MemoryNetwork, MemoryTransport
    from raftkv.transport.mesh import Mesh
    from raftkv.transport.peernames import PeerNames
    from raftkv.transport.refusals import NO_TLS, Refusals, address_text
    from raftkv.transport.resolver import Resolver
    from raftkv.transport.secret import PeerSecret, SecretFile
    from raftkv.transport.shown import alternative_names, common_names
    from raftkv.transport.streams import ProtocolFactory, Refused, Shut
    from raftkv.transport.tcp import TcpStreams, TcpTransport
    from raftkv.transport.tls import Credentials, TlsFiles
    from raftkv.transport.tls_server import TlsServer
else:
    __getattr__, __dir__ = _exports(
        __name__,
        {
            "raftkv.transport.demands": "Demands",
            "raftkv.transport.interface": "LinkStatus Transport TransportHandler TransportStats",
            "raftkv.transport.limits": "TransportLimits",
            "raftkv.transport.listening": "listen listening_hosts",
            "raftkv.transport.memory": "MemoryNetwork MemoryTransport",
            "raftkv.transport.mesh": "Mesh",
            "raftkv.transport.peernames": "PeerNames",
            "raftkv.transport.refusals": "NO_TLS Refusals address_text",
            "raftkv.transport.resolver": "Resolver",
            "raftkv.transport.secret": "PeerSecret SecretFile",
            "raftkv.transport.shown": "alternative_names common_names",
            "raftkv.transport.streams": "ProtocolFactory Refused Shut",
            "raftkv.transport.tcp": "TcpStreams TcpTransport",
            "raftkv.transport.tls": "Credentials TlsFiles",
            "raftkv.transport.tls_server": "TlsServer",
        },
    )

__all__ = [
    "NO_TLS",
    "Credentials",
    "Demands",
    "LinkStatus",
    "MemoryNetwork",
    "MemoryTransport",
    "Mesh",
    "PeerNames",
    "PeerSecret",
    "ProtocolFactory",
    "Refusals",
    "Refused",
    "Resolver",
    "SecretFile",
    "Shut",
    "TcpStreams",
    "TcpTransport",
    "TlsFiles",
    "TlsServer",
    "Transport",
    "TransportHandler",
    "TransportLimits",
    "TransportStats",
    "address_text",
    "alternative_names",
    "common_names",
    "listen",
    "listening_hosts",
]
