"""The network between nodes: its interface, TCP, and a network in memory."""

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
