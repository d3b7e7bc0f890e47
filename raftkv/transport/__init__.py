"""The network between nodes: the port, TCP, and a network in memory."""

from raftkv.transport.memory import MemoryNetwork, MemoryTransport
from raftkv.transport.port import LinkStatus, Transport, TransportHandler, TransportStats
from raftkv.transport.tcp import TcpTransport

__all__ = [
    "LinkStatus",
    "MemoryNetwork",
    "MemoryTransport",
    "TcpTransport",
    "Transport",
    "TransportHandler",
    "TransportStats",
]
