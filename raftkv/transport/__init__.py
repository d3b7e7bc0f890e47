"""The network between nodes: the port, TCP, and a network in memory."""

from raftkv.transport.limits import Limits
from raftkv.transport.memory import MemoryNetwork, MemoryTransport
from raftkv.transport.mesh import Mesh
from raftkv.transport.port import LinkStatus, Transport, TransportHandler, TransportStats
from raftkv.transport.resolver import Resolver
from raftkv.transport.streams import ProtocolFactory, Shut
from raftkv.transport.tcp import TcpStreams, TcpTransport

__all__ = [
    "Limits",
    "LinkStatus",
    "MemoryNetwork",
    "MemoryTransport",
    "Mesh",
    "ProtocolFactory",
    "Resolver",
    "Shut",
    "TcpStreams",
    "TcpTransport",
    "Transport",
    "TransportHandler",
    "TransportStats",
]
