"""What a node does with snapshots: it takes them, sends them to followers, receives them and installs them.

What a snapshot *is* (files, manifest, checksums, the protocol of a transfer) is in `raftkv.snapshot`.
"""

from raftkv.node.snapshots.snapshotter import Snapshotter

__all__ = ["Snapshotter"]
