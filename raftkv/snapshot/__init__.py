"""Snapshots: kept and verified on disk, sent and received in chunks, resumable at any byte."""

import typing

from raftkv.lazy import exports as _exports

if typing.TYPE_CHECKING:
    from raftkv.snapshot.manifest import Manifest, SealedManifest, SnapshotFile
    from raftkv.snapshot.messages import (
        Refusal,
        SnapshotAck,
        SnapshotChunk,
        SnapshotDone,
        SnapshotMessage,
        SnapshotNeed,
        SnapshotOffer,
        SnapshotPreparing,
        SnapshotRefused,
        SnapshotReply,
    )
    from raftkv.snapshot.receipts import Receipts
    from raftkv.snapshot.receiver import ReceiverStep, SnapshotReceiver
    from raftkv.snapshot.sender import ChunkPlan, SenderStage, SnapshotSender
    from raftkv.snapshot.store import SnapshotStore
    from raftkv.snapshot.transfer import TransferProgress, TransferSettings
    from raftkv.snapshot.verify import Content, DirectoryReport, Inspect, SnapshotReport, verify_directory
else:
    __getattr__, __dir__ = _exports(
        __name__,
        {
            "raftkv.snapshot.manifest": "Manifest SealedManifest SnapshotFile",
            "raftkv.snapshot.messages": (
                "Refusal SnapshotAck SnapshotChunk SnapshotDone SnapshotMessage SnapshotNeed SnapshotOffer "
                "SnapshotPreparing SnapshotRefused SnapshotReply"
            ),
            "raftkv.snapshot.receipts": "Receipts",
            "raftkv.snapshot.receiver": "ReceiverStep SnapshotReceiver",
            "raftkv.snapshot.sender": "ChunkPlan SenderStage SnapshotSender",
            "raftkv.snapshot.store": "SnapshotStore",
            "raftkv.snapshot.transfer": "TransferProgress TransferSettings",
            "raftkv.snapshot.verify": "Content DirectoryReport Inspect SnapshotReport verify_directory",
        },
    )

__all__ = [
    "ChunkPlan",
    "Content",
    "DirectoryReport",
    "Inspect",
    "Manifest",
    "Receipts",
    "ReceiverStep",
    "Refusal",
    "SealedManifest",
    "SenderStage",
    "SnapshotAck",
    "SnapshotChunk",
    "SnapshotDone",
    "SnapshotFile",
    "SnapshotMessage",
    "SnapshotNeed",
    "SnapshotOffer",
    "SnapshotPreparing",
    "SnapshotReceiver",
    "SnapshotRefused",
    "SnapshotReply",
    "SnapshotReport",
    "SnapshotSender",
    "SnapshotStore",
    "TransferProgress",
    "TransferSettings",
    "verify_directory",
]
