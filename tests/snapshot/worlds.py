"""Snapshots of made-up files, and a channel between a sender and a receiver that is as bad as one likes."""

from __future__ import annotations

import posixpath
import random

from raftkv.disk.simulated import SimDisk
from raftkv.log import Identity
from raftkv.model import Membership, SnapshotMeta
from raftkv.snapshot import (
    ChunkPlan,
    Receipts,
    SnapshotChunk,
    SnapshotOffer,
    SnapshotReceiver,
    SnapshotSender,
    SnapshotStore,
    TransferSettings,
)

CLUSTER = "cluster"
OWNER = Identity(cluster_id=CLUSTER, node_id=1, incarnation="i1")
SETTINGS = TransferSettings(chunk_bytes=4096, window_chunks=4, stall_s=10.0, retry_s=1.0)


def meta(index, term=1, digest=None):
    """What a snapshot at `index` says of itself."""
    return SnapshotMeta(index, term, index * 7, index * 10, Membership.of((1, 2, 3)), digest or index * 3)


def contents(seed, sizes=(0, 1, 5_000, 30_000)):
    """Files of random bytes, immutable ones and others."""
    dice = random.Random(seed)
    names = ["CURRENT", "MANIFEST-000004", "000010.sst", "000011.sst", "000012.sst", "000013.sst"]
    return {name: dice.randbytes(size) for name, size in zip(names, sizes, strict=False)}


def write_files(disk, directory, files):
    """Make a directory with these files."""
    disk.mkdir(directory)
    for name, data in files.items():
        disk.write_synced(posixpath.join(directory, name), data)


def open_store(disk, directory):
    """The snapshots in a directory, with the record of which are this node's beside it."""
    disk.mkdir(posixpath.dirname(directory))
    return SnapshotStore.open(disk, directory, Receipts.open(disk, directory + ".receipts", OWNER))


def publish(store, snapshot, files, cluster_id=CLUSTER):
    """Make a snapshot of these files, as a node does."""
    draft = store.begin()
    write_files(store.disk, draft, files)
    return store.publish(draft, snapshot, cluster_id=cluster_id)


def read_files(store, snapshot):
    """The files of a published snapshot."""
    directory = store.path(snapshot)
    names = [name for name in store.disk.listdir(directory) if name != "MANIFEST"]
    return {name: store.disk.read_bytes(posixpath.join(directory, name)) for name in names}


class Channel:
    """Carries messages both ways in virtual time; each may be lost, repeated or held back, as the dice say."""

    def __init__(self, sender, receiver, dice=None, *, loss=0.0, repeat=0.0, reorder=0.0):
        self.sender: SnapshotSender = sender
        self.receiver: SnapshotReceiver = receiver
        self.dice = dice or random.Random(0)
        self.loss, self.repeat, self.reorder = loss, repeat, reorder
        self.now = 0.0
        self.to_receiver, self.to_sender = [], []
        self.arrived = None
        self.sent_bytes = 0
        self.in_flight_max = 0

    def _carry(self, queue, message):
        if self.dice.random() < self.loss:
            return
        for _ in range(2 if self.dice.random() < self.repeat else 1):
            at = self.dice.randrange(len(queue) + 1) if self.dice.random() < self.reorder else len(queue)
            queue.insert(at, message)

    def poll(self):
        """Send what the sender wants sent now; returns whether it was anything."""
        sent = False
        while (action := self.sender.poll(self.now)) is not None:
            sent = True
            message = self.sender.read(action) if isinstance(action, ChunkPlan) else action
            if isinstance(message, SnapshotChunk):
                self.sent_bytes += len(message.data)
            self._carry(self.to_receiver, message)
            self.in_flight_max = max(self.in_flight_max, sum(isinstance(m, SnapshotChunk) for m in self.to_receiver))
        return sent

    def deliver(self):
        """Hand over one message in either direction; returns whether there was one."""
        if self.to_sender and (not self.to_receiver or self.dice.random() < 0.5):
            self.sender.step(self.to_sender.pop(0), self.now)
            return True
        if not self.to_receiver:
            return False
        message = self.to_receiver.pop(0)
        on = self.receiver.on_offer if isinstance(message, SnapshotOffer) else self.receiver.on_chunk
        self._take(on(message))
        while self.receiver.is_preparing:
            self._take(self.receiver.prepare())
        return True

    def _take(self, step):
        for reply in step.replies:
            self._carry(self.to_sender, reply)
        if step.snapshot is not None:
            self.arrived = step.snapshot

    def turn(self):
        """One thing happens: a message, or time passes until the sender wants something."""
        if self.poll() or self.deliver():
            return True
        at = self.sender.wake_at(self.now)
        if at is None:
            return False
        self.now = max(self.now, at)
        return True

    def run(self, turns_max=20_000):
        """Until the sender is done or has given up."""
        for _ in range(turns_max):
            if not self.turn():
                return self
        raise AssertionError(f"no end after {turns_max} turns")


class Ends:
    """A leader with one snapshot, and a follower with none."""

    def __init__(self, files=None, *, settings=SETTINGS, snapshot=None):
        self.files = files if files is not None else contents(1)
        self.snapshot = snapshot or meta(10)
        self.source = open_store(SimDisk(), "/s")
        publish(self.source, self.snapshot, self.files)
        self.settings = settings
        self.disk = SimDisk()
        self.target = open_store(self.disk, "/t")
        self.receiver = self.new_receiver()

    def new_receiver(self, cluster_id=CLUSTER, **settings):
        """The follower's process begins (again)."""
        self.receiver = SnapshotReceiver(self.target, node_id=2, cluster_id=cluster_id, **settings)
        return self.receiver

    def sender(self, now=0.0, term=1, source=None):
        """The leader begins a transfer."""
        return SnapshotSender(
            source or self.source, self.snapshot, node_id=1, to=2, term=term, settings=self.settings, now=now
        )

    def channel(self, dice=None, **faults):
        """A fresh transfer over a channel."""
        return Channel(self.sender(), self.receiver, dice, **faults)

    def restart(self, crash=None):
        """The follower's process, or its power, goes away and comes back."""
        if crash is None:
            self.disk.kill()
        else:
            self.disk.crash(crash)
        self.disk.fault = None
        self.target = open_store(self.disk, "/t")
        self.new_receiver()

    def is_complete(self):
        """Whether the follower has published the very same files."""
        return self.target.latest() == self.snapshot and read_files(self.target, self.snapshot) == self.files
