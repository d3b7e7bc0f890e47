"""Transfers: whatever the channel does to the messages, the follower ends with the leader's files, or a reason."""

from __future__ import annotations

import random

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raftkv.errors import SnapshotCorruption
from raftkv.snapshot import (
    ChunkPlan,
    Refusal,
    SenderStage,
    SnapshotChunk,
    SnapshotDone,
    SnapshotNeed,
    SnapshotOffer,
)
from tests.snapshot.worlds import SETTINGS, Channel, Ends, contents, meta, open_store, publish, read_files


def test_a_whole_snapshot_arrives():
    """Files of no byte and of many; afterwards it is published, and the sender knows."""
    ends = Ends()
    channel = ends.channel().run()
    assert channel.sender.stage is SenderStage.DONE
    assert channel.arrived == ends.snapshot
    assert ends.is_complete()
    assert channel.sent_bytes == sum(map(len, ends.files.values()))
    progress = channel.sender.progress
    assert (progress.sent_bytes, progress.files_done) == (progress.total_bytes, progress.files)


def test_progress_is_told_by_names_that_others_know():
    """A node's status is read by clients of other versions, and by scripts."""
    told = msgspec.json.decode(msgspec.json.encode(Ends().channel().run().sender.progress))
    assert list(told) == ["index", "sent_bytes", "total_bytes", "files_done", "files"]


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    loss=st.sampled_from([0, 0.05, 0.3]),
    repeat=st.sampled_from([0, 0.3]),
    reorder=st.sampled_from([0, 0.1, 0.5]),
    sizes=st.lists(st.sampled_from([0, 1, 100, 4096, 9_000, 20_000]), min_size=1, max_size=6),
)
def test_any_channel_will_do(seed, loss, repeat, reorder, sizes):
    """Messages lost, repeated and reordered: the same files arrive, or the sender gives up and a new one finishes."""
    dice = random.Random(seed)
    ends = Ends(contents(seed, sizes))
    for _ in range(20):
        channel = ends.channel(dice, loss=loss, repeat=repeat, reorder=reorder).run()
        if channel.sender.stage is SenderStage.DONE:
            break
        channel.sender.close()
    assert ends.is_complete()


def test_memory_stays_flat():
    """Never more chunks under way than the window allows, whatever the snapshot's size."""
    ends = Ends(contents(1, (0, 0, 300_000, 300_000)))
    channel = ends.channel().run()
    assert ends.is_complete()
    assert channel.in_flight_max <= SETTINGS.window_chunks


@pytest.mark.parametrize("how", ["the process ends", "the power goes out"])
def test_a_transfer_is_resumed_wherever_it_was_cut(how):
    """F66, NuRaft#118: cut after any number of messages; what was received is not sent again, but for what was lost."""
    whole = sum(map(len, contents(1).values()))
    turns, done = 0, False
    while not done:
        turns += 3
        ends = Ends()
        first = ends.channel()
        for _ in range(turns):
            if not first.turn():
                break
        done = first.sender.stage is SenderStage.DONE
        ends.restart(None if how == "the process ends" else random.Random(turns))
        second = ends.channel().run()
        assert ends.is_complete(), f"cut after {turns} turns"
        assert second.sender.stage is SenderStage.DONE
        if how == "the process ends":
            assert first.sent_bytes + second.sent_bytes <= whole + SETTINGS.window_chunks * SETTINGS.chunk_bytes * 2
    assert turns > 20


def test_power_lost_at_any_operation_of_the_receiver():
    """F60: before each operation on its disk, with any part of what was not synced: the next transfer finishes."""
    number, finished = 0, False
    while not finished:
        number += 1
        ends = Ends(contents(1, (0, 10, 5_000, 9_000)))
        left = number

        def fault(kind, path):
            nonlocal left
            left -= 1
            if left <= 0:
                raise ZeroDivisionError

        ends.disk.fault = fault
        try:
            ends.channel().run()
            finished = True
        except ZeroDivisionError:
            ends.restart(random.Random(number))
            for snapshot in ends.target.list():
                assert ends.target.verify(snapshot).is_sound
            assert ends.channel().run().sender.stage is SenderStage.DONE
        assert ends.is_complete(), f"operation {number}"
    assert number > 20


def test_files_that_are_there_already_are_not_sent():
    """By content, whatever they are called: from an older snapshot, and from a transfer that was given up (F66)."""
    shared = contents(1, (10, 20, 50_000, 40_000))
    ends = Ends({**shared, "000099.sst": b"new" * 1000})
    publish(ends.target, meta(5), {"000001.sst": shared["000010.sst"], "000002.sst": shared["000011.sst"]})
    channel = ends.channel().run()
    assert ends.is_complete()
    assert channel.sent_bytes == 3000 + 10 + 20


def test_an_empty_file_that_is_there_already_is_made_here_too():
    """RocksDB's logs are empty, and in every snapshot: one was found elsewhere, and never made in its new place."""
    files = {"000001.log": b"", "CURRENT": b"", "000010.sst": b"x" * 100}
    ends = Ends({**files, "000011.sst": b"new"})
    publish(ends.target, meta(5), files)
    ends.channel().run()
    assert ends.is_complete()
    ends.target.link_to(ends.snapshot, "/state")
    assert ends.disk.listdir("/state") == sorted(ends.files)


def test_a_file_that_only_looks_the_same_is_sent():
    """Same name and size, another content: its checksum tells."""
    ends = Ends()
    publish(ends.target, meta(5), contents(2))
    channel = ends.channel().run()
    assert ends.is_complete()
    assert channel.sent_bytes == sum(map(len, ends.files.values()))


def test_a_damaged_local_file_is_not_taken_over():
    """What rots here is fetched from the leader: files are checked before they are linked."""
    ends = Ends()
    publish(ends.target, meta(5), ends.files)
    ends.disk.flip(f"{ends.target.path(meta(5))}/000011.sst", 20_000, 1)
    ends.channel().run()
    assert ends.is_complete()


def test_an_offer_of_what_is_there_is_answered_at_once():
    """The leader may ask again, after a lost answer or a restart: done, and nothing is sent."""
    ends = Ends()
    ends.channel().run()
    again = ends.channel().run()
    assert again.sender.stage is SenderStage.DONE
    assert again.sent_bytes == 0
    assert again.arrived == ends.snapshot


def test_a_newer_snapshot_takes_the_place_of_an_older_one():
    """Zeebe#11496: the leader has a newer one in the middle of a transfer; the files that arrived are made use of."""
    ends = Ends()
    first = ends.channel()
    while first.sender.progress.sent_bytes < 20_000:
        first.turn()
    newer = {**ends.files, "000014.sst": b"more" * 1000}
    ends.snapshot, ends.files = meta(20), newer
    publish(ends.source, ends.snapshot, newer)
    second = ends.channel().run()
    assert ends.is_complete()
    assert second.sent_bytes < sum(map(len, newer.values())) - 15_000
    for message in first.to_receiver:
        ends.receiver.on_chunk(message) if not isinstance(message, SnapshotOffer) else None
    assert ends.target.list() == [meta(20)]


def test_the_rate_is_kept():
    """A limit of bytes a second, over the whole transfer."""
    slow = msgspec.structs.replace(SETTINGS, rate_bytes_s=10_000, stall_s=60.0)
    ends = Ends(contents(1, (0, 0, 50_000, 50_000)), settings=slow)
    channel = ends.channel().run()
    assert ends.is_complete()
    assert 9.0 <= channel.now <= 13.0


def test_a_transfer_without_progress_is_given_up_and_a_slow_one_is_not():
    """Zeebe#14671: ten seconds without a byte end it; a thousand seconds with some bytes don't."""
    ends = Ends()
    dead = ends.channel(loss=1.0).run()
    assert dead.sender.stage is SenderStage.FAILED
    assert "took nothing" in dead.sender.failure
    assert SETTINGS.stall_s <= dead.now <= SETTINGS.stall_s + 2
    crawling = msgspec.structs.replace(SETTINGS, rate_bytes_s=1_000)
    patient = Ends(contents(1, (0, 0, 0, 60_000)), settings=crawling)
    channel = patient.channel().run()
    assert channel.now > 3 * SETTINGS.stall_s
    assert patient.is_complete()


def test_going_in_circles_is_no_progress():
    """A receiver that asks for the same bytes again and again does not keep a transfer alive."""
    ends = Ends()
    sender = ends.sender()
    offer = sender.poll(0.0)
    digest = ends.source.manifest(ends.snapshot).digest
    now, number = 0.0, 0
    while not sender.is_over:
        now, number = now + 0.5, number + 1
        need = SnapshotNeed(2, 1, 1, digest, offer.attempt, number, [(0, 0)] if False else [(2, 0)])
        sender.step(need, now)
        while isinstance(sender.poll(now), ChunkPlan):
            pass
        assert now < 60
    assert sender.stage is SenderStage.FAILED


@pytest.mark.parametrize(
    ("prepare", "reason"),
    [
        (lambda ends: ends.new_receiver(cluster_id="another"), Refusal.WRONG_CLUSTER),
        (lambda ends: setattr(ends.disk, "capacity_bytes", ends.disk.used_bytes() + 9_000), Refusal.DISK_FULL),
        (lambda ends: ends.new_receiver(reserve_bytes=1 << 50), Refusal.DISK_FULL),
    ],
)
def test_refusals_have_reasons(prepare, reason):
    """Another cluster's snapshot, and no space for it: said in words, and nothing is left behind."""
    ends = Ends()
    prepare(ends)
    channel = Channel(ends.sender(), ends.receiver).run()
    assert channel.sender.stage is SenderStage.FAILED
    assert channel.sender.refusal is reason
    assert ends.target.list() == []
    assert not [name for name in ends.disk.listdir("/t") if name.startswith("staging")]


def test_a_node_without_a_cluster_takes_any():
    """A brand-new node learns its cluster from the snapshot's leader."""
    ends = Ends()
    ends.new_receiver(cluster_id="")
    Channel(ends.sender(), ends.receiver).run()
    assert ends.is_complete()


def test_a_damaged_snapshot_at_the_leader_is_found_by_the_follower():
    """F70: a flipped bit in the source: the file is asked for once more, then refused by name; nothing is published."""
    ends = Ends()
    ends.source.disk.flip(f"{ends.source.path(ends.snapshot)}/000011.sst", 100, 1)
    channel = ends.channel().run()
    assert channel.sender.refusal is Refusal.BAD_FILE
    assert "000011.sst" in channel.sender.failure
    assert ends.target.list() == []


def test_a_file_missing_at_the_leader_is_its_own_error():
    """The sender's read says so, and the leader can take another snapshot."""
    ends = Ends()
    sender = ends.sender()
    ends.source.disk.remove(f"{ends.source.path(ends.snapshot)}/000011.sst")
    with pytest.raises(SnapshotCorruption, match="is missing"):
        Channel(sender, ends.receiver).run()
    assert ends.target.list() == []


@pytest.mark.parametrize("position", [0, 40, -1])
def test_a_damaged_manifest_is_refused(position):
    """Whatever is wrong with the offer, no directory is made for it."""
    ends = Ends()
    offer = ends.sender().poll(0.0)
    data = bytearray(offer.manifest)
    data[position] ^= 1
    step = ends.receiver.on_offer(msgspec.structs.replace(offer, manifest=bytes(data)))
    assert step.replies[0].reason in (Refusal.BAD_MANIFEST, Refusal.FORMAT)
    assert ends.disk.listdir("/t") == []


@given(st.data())
@settings(max_examples=40, deadline=None)
def test_damaged_chunks_change_nothing(data):
    """A chunk whose checksum or place is wrong is not written; the transfer goes on and the files are right."""
    ends = Ends(contents(1, (0, 10, 5_000, 9_000)))
    channel = ends.channel()
    while not channel.to_receiver or isinstance(channel.to_receiver[0], SnapshotOffer):
        channel.turn()
    chunk = channel.to_receiver[0]
    field = data.draw(st.sampled_from(["data", "pieces", "checksum", "sequence"]))
    changed = {
        "data": {"data": b"x" * len(chunk.data)},
        "pieces": {"pieces": [(data.draw(st.integers(-1, 9)), data.draw(st.integers(-1, 10**6)), len(chunk.data))]},
        "checksum": {"checksum": chunk.checksum ^ 1},
        "sequence": {"sequence": chunk.sequence + data.draw(st.integers(1, 5))},
    }[field]
    damaged = msgspec.structs.replace(chunk, **changed)
    if field == "pieces":
        damaged.checksum = damaged.compute_checksum()
        if damaged.pieces == chunk.pieces:
            return
        before = ends.receiver.progress.sent_bytes
        ends.receiver.on_chunk(damaged)
        assert ends.receiver.progress.sent_bytes in (before, before + len(chunk.data))
    else:
        before = ends.receiver.progress.sent_bytes
        ends.receiver.on_chunk(damaged)
        if field != "sequence":
            assert ends.receiver.progress.sent_bytes == before
    for _ in range(5):
        if channel.run().sender.stage is SenderStage.DONE:
            break
        channel = ends.channel()
    assert ends.is_complete()


def test_a_lost_chunk_is_asked_for_at_once():
    """The next one shows that it is missing: no time-out is waited for (F66)."""
    ends = Ends(contents(1, (0, 10, 20_000, 90_000)))
    channel = ends.channel()
    while sum(isinstance(message, SnapshotChunk) for message in channel.to_receiver) < 2:
        channel.turn()
    first, second = channel.to_receiver[:2]
    (answer,) = ends.receiver.on_chunk(second).replies
    assert isinstance(answer, SnapshotNeed)
    assert answer.round > second.round
    assert (first.pieces[0][0], first.pieces[0][1]) in answer.missing


def test_answers_of_another_term_or_transfer_change_nothing():
    """F66: what a former leader's follower says is not taken for this one's."""
    ends = Ends()
    sender = ends.sender(term=2)
    sender.poll(0.0)
    digest = ends.source.manifest(ends.snapshot).digest
    for wrong in (SnapshotDone(2, 1, 1, digest), SnapshotDone(3, 1, 2, digest), SnapshotDone(2, 1, 2, b"another")):
        sender.step(wrong, 0.0)
        assert sender.stage is SenderStage.OFFERING
    sender.step(SnapshotDone(2, 1, 2, digest), 0.0)
    assert sender.stage is SenderStage.DONE


def test_a_snapshot_that_is_sent_stays():
    """NuRaft#118: pruning does not take what is on its way; afterwards it may go."""
    ends = Ends()
    channel = ends.channel()
    channel.turn()
    publish(ends.source, meta(20), contents(2))
    ends.source.prune(ends.source.retire(1))
    channel.run()
    assert ends.is_complete()
    channel.sender.close()
    channel.sender.close()
    ends.source.prune(ends.source.retire(1))
    assert ends.source.list() == [meta(20)]


def test_leftovers_of_a_transfer_go_when_something_newer_is_there():
    """What was being received and is of no use any more does not fill the disk."""
    ends = Ends()
    channel = ends.channel()
    while channel.sender.progress.sent_bytes < 10_000:
        channel.turn()
    ends.restart()
    publish(ends.target, meta(50), contents(9))
    ends.target.prune(ends.target.retire(2))
    assert not [name for name in ends.disk.listdir("/t") if name.startswith("staging")]
    assert read_files(open_store(ends.disk, "/t"), meta(50)) == contents(9)
