"""The network between nodes: its interface, TCP, and a network in memory."""

from raftkv.transport.interface import LinkStatus, Transport, TransportHandler, TransportStats
from raftkv.transport.limits import TransportLimits
from raftkv.transport.listening import listen
from raftkv.transport.memory import MemoryNetwork, MemoryTransport
from raftkv.transport.mesh import Mesh
from raftkv.transport.refusals import NO_TLS, Refusals, address_text
from raftkv.transport.resolver import Resolver
from raftkv.transport.streams import ProtocolFactory, Refused, Shut
from raftkv.transport.tcp import TcpStreams, TcpTransport
from raftkv.transport.tls import Credentials, TlsFiles
from raftkv.transport.tls_server import TlsServer

__all__ = [
    "NO_TLS",
    "Credentials",
    "LinkStatus",
    "MemoryNetwork",
    "MemoryTransport",
    "Mesh",
    "ProtocolFactory",
    "Refusals",
    "Refused",
    "Resolver",
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
    "listen",
]
