"""What is in the files of a node in a simulated world."""

from __future__ import annotations

from raftkv.node import met


def load_known(node):
    """Whom it has met, as its file says."""
    return met.load_known(node.world.disk, node.paths.peers, node.opened.vote.identity)
