"""What both ends of a transfer share: settings, and how far it is."""

from __future__ import annotations

import msgspec

from raftkv.config import MIB, Config
from raftkv.model import Index


class TransferSettings(msgspec.Struct, frozen=True, kw_only=True):
    """The settings of a transfer; times are in seconds of the caller's clock."""

    chunk_bytes: int = MIB
    """Chunks grow to this as long as answers come quickly, and shrink where the network is slow."""
    window_chunks: int = 8
    """Chunks under way at once. They are all the memory that a transfer takes, at either end."""
    rate_bytes_s: int = 0
    """The limit; 0 for none."""
    stall_s: float = 10.0
    """Given up after this long without progress; there is no limit on the total."""
    retry_s: float = 2.5
    """When nothing is heard for this long, the snapshot is offered again, and the transfer goes on from the answer."""

    @classmethod
    def of(cls, config: Config) -> TransferSettings:
        """The settings of a transfer between nodes with this configuration."""
        return cls(
            chunk_bytes=config.chunk_bytes,
            rate_bytes_s=config.snapshot_rate_bytes_s,
            stall_s=config.snapshot_stall_s,
            retry_s=min(2.5, config.snapshot_stall_s / 4),
        )


class TransferProgress(msgspec.Struct, frozen=True, kw_only=True):
    """How far a transfer is, as a node's status tells it. Bytes that the receiver had before count as sent."""

    index: Index
    sent_bytes: int
    total_bytes: int
    files_done: int
    files: int
