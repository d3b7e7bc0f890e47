"""Directories of one node at three times, of another node of its cluster, and of a node of another cluster."""

from __future__ import annotations

import asyncio
import posixpath
from types import SimpleNamespace

from raftkv.kv import KeyValue
from raftkv.node.directory import close_directory, open_directory
from raftkv.node.paths import Options
from raftkv.state import MemoryStates
from raftkv.testing import play
from raftkv.testing.world.settings import CONFIG

ROOT = "/data"
AT_ONCE = 20
OWN = 2
"""The node whose directory is looked at."""


class Images:
    """Disks of nodes that have ended well. The node took a snapshot at each of the three times.

    `foreign` is of a node of the same id in a cluster of two, with more entries and later terms.
    """

    def __init__(self):
        self.older, self.now, self.newer, self.copied = _grow(3, rounds=(240, 240, 240))
        self.foreign = _grow(2, rounds=(700, 700))[1]

    def of(self, condition):
        """The disk to take a file from."""
        return getattr(self, condition)


def _grow(size, rounds):
    """The node's disk after each round of writes, and at last another node's."""
    found = []

    async def story(cluster):
        for count in rounds:
            await cluster.start()
            await cluster.until_leader()
            client = cluster.client()
            for first in range(0, count, AT_ONCE):
                await asyncio.gather(
                    *(
                        client.remote.put(b"key-%05d" % number, b"%d" % size * 64)
                        for number in range(first, first + AT_ONCE)
                    )
                )
            await cluster.until_equal()
            await cluster.nodes[OWN].node.orders.take_snapshot()
            await client.remote.put(b"last", b"0")
            await cluster.until_equal()
            await cluster.nodes[1].node.orders.take_snapshot()
            await client.close()
            for sim in cluster.nodes.values():
                await sim.stop()
            found.append(cluster.nodes[OWN].disk.copy())
        found.append(cluster.nodes[1].disk.copy())

    play(KeyValue, story, size=size, seed=7, started=False)
    return found


def paths_under(disk, path):
    """A file, or all files in a directory."""
    return [each for each in disk.image() if each == path or each.startswith(path + "/")]


def put(disk, target, source, path):
    """Have at `target` what `source` has at `path`, file or directory, and nothing else."""
    if disk.is_dir(target):
        disk.remove_tree(target)
    for each in paths_under(source, path):
        place = target + each.removeprefix(path)
        disk.mkdir(posixpath.dirname(place))
        disk.write_atomic(place, source.image()[each])


def open_here(disk, **options):
    """Open the node's directory as a start does; what it raises, or what was found, and it is closed again."""
    world = SimpleNamespace(disk=disk, states=MemoryStates(disk), nonce="nonce")
    opened = open_directory(Options(node_id=OWN, data_dir=ROOT, config=CONFIG, **options), world)
    close_directory(opened)
    return opened
