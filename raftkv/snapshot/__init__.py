"""Snapshots: kept and verified on disk, sent and received in chunks, resumable at any byte."""

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
