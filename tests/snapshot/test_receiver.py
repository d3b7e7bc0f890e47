"""The follower's end alone: which chunks count, what is durable, and what is left when a transfer ends."""

from __future__ import annotations

import msgspec
import pytest
import xxhash

from raftkv.disk.simulated import SimDisk
from raftkv.errors import DiskError
from raftkv.snapshot import (
    Manifest,
    Refusal,
    SealedManifest,
    SenderStage,
    SnapshotAck,
    SnapshotChunk,
    SnapshotFile,
)
from raftkv.snapshot.staging import SYNC_BYTES, SYNC_FILES, Staging
from tests.snapshot.worlds import CLUSTER, Ends, contents, meta, publish

LETTERS = {"000001.sst": bytes(range(200)), "000002.sst": bytes(reversed(range(200)))}
"""Two files whose bytes are all different."""


class Talk:
    """A receiver that is told chunk by chunk."""

    def __init__(self, files=None):
        self.ends = Ends(files if files is not None else LETTERS)
        self.offer = self.ends.sender().poll(0.0)
        self.digest = self.ends.source.manifest(self.ends.snapshot).digest
        self.begin()

    def begin(self):
        """Offer, and look for what is there; returns what is missing."""
        self.ends.receiver.on_offer(self.offer)
        return self.look()

    def look(self):
        """Let the receiver look for what is there; returns the answer when it has."""
        while self.ends.receiver.is_preparing:
            (self.answer,) = self.ends.receiver.prepare().replies
        return self.answer

    def chunk(self, *pieces, sequence=0, number=None, digest=None):
        """A chunk with these (file, offset, size) of the leader's snapshot."""
        files = list(self.ends.files.values())
        data = b"".join(files[file][offset : offset + size] for file, offset, size in pieces)
        chunk = SnapshotChunk(1, 2, 1, digest or self.digest, number or self.answer.round, sequence, [*pieces], 0, data)
        return msgspec.structs.replace(chunk, checksum=chunk.compute_checksum())

    def tell(self, *pieces, **which):
        """Hand over a chunk; returns the step."""
        return self.ends.receiver.on_chunk(self.chunk(*pieces, **which))

    @property
    def received(self):
        """Bytes of the transfer that is under way."""
        return self.ends.receiver.progress.sent_bytes


def test_a_chunk_is_acknowledged_by_its_own_number():
    """Which makes room for the next one at the leader."""
    talk = Talk()
    assert talk.received == 0
    for sequence in range(3):
        (ack,) = talk.tell((0, 10 * sequence, 10), sequence=sequence).replies
        assert isinstance(ack, SnapshotAck)
        assert (ack.round, ack.sequence) == (talk.answer.round, sequence)
    assert talk.received == 30


@pytest.mark.parametrize("known", [1, 2, 50, 199])
def test_only_what_is_new_in_a_chunk_is_written(known):
    """A repeated part is known already: nothing is written twice, and the file is right."""
    talk = Talk()
    talk.tell((0, 0, known))
    talk.tell((0, 0, 200), sequence=1)
    assert talk.received == 200
    talk.tell((1, 0, known), (0, 0, 200), sequence=2)
    step = talk.tell((0, 0, 200), (1, 0, 200), sequence=3)
    assert step.snapshot == talk.ends.snapshot
    assert talk.ends.is_complete()


def test_a_chunk_of_another_transfer_is_not_looked_at():
    """Nor one that comes while the receiver looks for what it has: it does not know yet where to go on."""
    talk = Talk()
    assert talk.tell((0, 0, 50), digest=b"x" * 16).replies == ()
    assert talk.received == 0
    newer = Ends({**LETTERS, "000003.sst": b"new"}, snapshot=meta(20))
    talk.ends.receiver.on_offer(newer.sender().poll(0.0))
    assert talk.ends.receiver.is_preparing
    digest = newer.source.manifest(newer.snapshot).digest
    assert talk.tell((0, 0, 50), number=1, digest=digest).replies == ()
    assert talk.received == 0
    talk.look()
    assert talk.answer.missing == [(0, 0), (1, 0), (2, 0)]


def test_silence_is_noticed_whatever_it_interrupts():
    """No chunk, and nothing examined, for the whole time: then it is stalled, and not before. Anything new begins the
    time anew, and a transfer that ends is none that stalls."""
    talk = Talk()
    receiver = talk.ends.receiver
    assert not receiver.is_stalled(100.0, 10.0)
    assert not receiver.is_stalled(109.0, 10.0)
    talk.tell((0, 0, 50))
    assert not receiver.is_stalled(109.5, 10.0)
    assert not receiver.is_stalled(119.0, 10.0)
    assert receiver.is_stalled(119.5, 10.0)
    receiver.suspend()
    assert not receiver.is_stalled(200.0, 10.0)
    talk.begin()
    assert not receiver.is_stalled(300.0, 10.0)
    assert receiver.is_stalled(310.0, 10.0)


def test_an_interrupted_transfer_holds_nothing_open():
    """Its files stay for the next offer; no descriptor does, and a newer snapshot may take its place."""
    talk = Talk({"000001.sst": b"a", **contents(1)})
    talk.tell((1, 0, 1000), (0, 0, 1))
    assert talk.ends.disk.open_files()
    talk.ends.receiver.suspend()
    assert talk.ends.disk.open_files() == []
    assert talk.ends.receiver.progress is None
    assert talk.tell((1, 1000, 1000)).replies == ()
    talk.ends.receiver.suspend()
    publish(talk.ends.target, meta(50), contents(9))
    talk.ends.target.prune([])
    assert not [name for name in talk.ends.disk.listdir("/t") if name.startswith("staging")]


def test_a_finished_transfer_holds_nothing_open():
    """Whatever the chunks' order: also when files take turns, and when one came wrong and came again."""
    talk = Talk()
    talk.tell((0, 0, 100))
    talk.tell((1, 0, 100), sequence=1)
    talk.tell((0, 100, 100), sequence=2)
    spoiled = msgspec.structs.replace(talk.chunk((1, 100, 100), sequence=3), data=bytes(100))
    spoiled.checksum = spoiled.compute_checksum()
    (talk.answer,) = talk.ends.receiver.on_chunk(spoiled).replies
    assert talk.answer.missing == [(1, 0)]
    assert talk.tell((1, 0, 200)).snapshot == talk.ends.snapshot
    assert talk.ends.is_complete()
    assert talk.ends.disk.open_files() == []


def test_a_file_that_comes_wrong_is_asked_for_once_more():
    """A resumed part may have been torn: that is mended. Wrong twice, the leader's copy is (F70)."""
    talk = Talk()
    for _ in range(2):
        spoiled = msgspec.structs.replace(talk.chunk((0, 0, 200)), data=bytes(200))
        spoiled.checksum = spoiled.compute_checksum()
        (talk.answer,) = talk.ends.receiver.on_chunk(spoiled).replies
    assert talk.answer.reason is Refusal.BAD_FILE


def test_a_transfer_that_cannot_be_cleared_away_has_ended_all_the_same():
    """The disk fails while a full one is cleared: the node is told, and no later chunk goes into closed files."""
    talk = Talk()

    def fault(kind, path):
        if kind == "remove":
            raise DiskError("the disk is broken")

    talk.tell((0, 0, 100))
    talk.ends.disk.capacity_bytes = talk.ends.disk.used_bytes()
    talk.ends.disk.fault = fault
    with pytest.raises(DiskError, match="broken"):
        talk.tell((0, 100, 100), sequence=1)
    assert talk.ends.receiver.progress is None


def test_what_an_earlier_process_received_and_never_synced_is_synced():
    """It was killed with a whole file in the page cache: when the snapshot is published, that is durable too (F60)."""
    ends = Ends({"000001.sst": b"small", "000002.sst": bytes(20_000)})
    channel = ends.channel()
    while channel.sender.progress.sent_bytes < 10_000:
        channel.turn()
    ends.restart()
    assert ends.channel().run().sender.stage is SenderStage.DONE
    ends.disk.crash()
    ends.restart()
    assert ends.is_complete()


def test_what_else_lies_among_the_files_goes():
    """A file that the snapshot does not have would be damage to it."""
    talk = Talk()
    talk.tell((0, 0, 100))
    talk.ends.receiver.suspend()
    (staging,) = (name for name in talk.ends.disk.listdir("/t") if name.startswith("staging"))
    talk.ends.disk.write_synced(f"/t/{staging}/MANIFEST.tmp", b"torn")
    talk.begin()
    talk.tell((0, 100, 100), (1, 0, 200))
    assert talk.ends.target.verify(talk.ends.snapshot).is_sound


HARMS = {
    "gone": lambda disk, path: disk.lose(path),
    "cut short": lambda disk, path: disk.cut_short(path, 100),
    "rotten": lambda disk, path: disk.flip(path, 100),
}


@pytest.mark.parametrize("harm", HARMS)
def test_a_useless_copy_does_not_hide_a_good_one(harm):
    """One of two snapshots here has lost a file, or a part of it: the other one's is taken, and none when both have.
    What was published is left as it is."""
    ends = Ends(LETTERS)
    for index in (4, 5):
        publish(ends.target, meta(index), LETTERS)
    for index, sent_bytes in ((4, 0), (5, 200)):
        HARMS[harm](ends.disk, f"{ends.target.path(meta(index))}/000001.sst")
        before = {path: data for path, data in ends.disk.image().items() if path.startswith("/t/")}
        assert ends.channel().run().sent_bytes == sent_bytes
        assert ends.is_complete()
        assert before.items() <= ends.disk.image().items()
        ends.target.drop(ends.snapshot)


@pytest.mark.parametrize("longest", [10, 20, 30])
@pytest.mark.parametrize("index", [10, 20, 30])
def test_a_shorter_part_does_not_take_the_place_of_a_longer_one(index, longest):
    """Several transfers were interrupted, of snapshots that share a file: whichever goes on, it does from the longest
    part, and clears the others away."""
    parts = {10: 3_000, 20: 6_000, 30: 1_000, longest: 9_000}
    data = bytes(range(256)) * 40
    ends = Ends({"000001.sst": data}, snapshot=meta(index))
    files = ends.source.manifest(ends.snapshot).manifest.files
    for other, size in parts.items():
        staging = ends.target.stage(SealedManifest.seal(Manifest(CLUSTER, meta(other), None, files)))
        assert not list(filter(None, staging.prepare({})))
        staging.write(0, data[:size])
        ends.target.end_receiving(staging, remove=False)
    assert ends.channel().run().sent_bytes == len(data) - 9_000
    assert ends.is_complete()
    assert not [name for name in ends.disk.listdir("/t") if name.startswith("staging")]


def test_what_cannot_be_read_beside_it_does_not_hold_up_a_transfer():
    """A damaged manifest, a stranger's directory: their files are nobody's, and those of others are still found."""
    ends = Ends(LETTERS)
    ends.disk.mkdir("/t/0-note")
    for index in (4, 5):
        publish(ends.target, meta(index), LETTERS)
    ends.disk.flip(f"{ends.target.path(meta(4))}/MANIFEST", 40)
    assert ends.channel().run().sent_bytes == 0
    assert ends.is_complete()


class Watch:
    """A staging of some files, and what is asked of its disk."""

    def __init__(self, sizes):
        self.disk = SimDisk()
        self.done = []
        self.data = [bytes([number % 251]) * size for number, size in enumerate(sizes)]
        files = tuple(
            SnapshotFile(f"{number:06}.sst", len(data), xxhash.xxh3_128_digest(data))
            for number, data in enumerate(self.data)
        )
        self.staging = Staging(self.disk, "/t/staging", SealedManifest.seal(Manifest(CLUSTER, meta(1), None, files)))
        for _ in self.staging.prepare({}):
            pass
        self.disk.fault = lambda kind, path: self.done.append(kind)

    def count(self, kind):
        """How often something was done."""
        return self.done.count(kind)


def test_small_files_share_a_sync_of_their_directory():
    """Hundreds of them are no hundreds of commits of the file system's journal; nor is all left to the end."""
    watch = Watch([100] * (2 * SYNC_FILES + 10))
    for number, data in enumerate(watch.data):
        watch.staging.write(number, data)
        assert watch.count("sync_dir") == (number + 1) // SYNC_FILES
        assert len(watch.disk.open_files()) == (number + 1) % SYNC_FILES
    watch.staging.make_durable()
    assert watch.count("sync_dir") == 3
    assert watch.disk.open_files() == []


def test_a_large_file_is_synced_in_steps():
    """One sync of all of it would stall the log, on the same disk. It is opened once."""
    watch = Watch([8 * SYNC_BYTES, 100])
    opened = []
    watch.disk.open, wrapped = lambda path, **how: opened.append(path) or wrapped(path, **how), watch.disk.open
    for at in range(0, 8 * SYNC_BYTES, SYNC_BYTES // 4):
        watch.staging.write(0, watch.data[0][at : at + SYNC_BYTES // 4])
    assert watch.count("sync") == 8
    watch.staging.write(1, watch.data[1])
    watch.staging.make_durable()
    assert len(opened) == 2


def test_a_file_that_waits_for_the_rest_is_synced_with_others():
    """Another file came in between, as the last of as many as are synced together."""
    watch = Watch([100] * SYNC_FILES + [100])
    for number in range(SYNC_FILES - 1):
        watch.staging.write(number, watch.data[number])
    watch.staging.write(SYNC_FILES - 1, bytes([SYNC_FILES - 1]) * 50)
    assert watch.count("sync") == 0
    watch.staging.write(SYNC_FILES, watch.data[-1])
    assert watch.count("sync") == SYNC_FILES
    watch.staging.write(SYNC_FILES - 1, bytes([SYNC_FILES - 1]) * 50)
    watch.staging.make_durable()
    watch.disk.crash()
    for number, data in enumerate(watch.data):
        assert watch.disk.read_bytes(f"/t/staging/{number:06}.sst") == data
