"""A node's snapshots at work: when one is taken, how it gets to a follower, and what it replaces there.

What a snapshot *is* (files, manifest, checksums, the protocol of a transfer) is `raftkv.snapshot`.
"""

from raftkv.node.snapshots.snapshotter import Snapshotter

__all__ = ["Snapshotter"]
