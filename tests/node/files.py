"""What is in the files of a node in a simulated world."""

from __future__ import annotations

from raftkv.node.peers import met


def load_known(node):
    """Whom it has met, as its file says."""
    return met.load_known(node.body.world.disk, node.body.paths.peers, node.opened.vote.identity)
