"""A backup's file: whole or not there, taken up where it ended, and no damage to it goes unnoticed."""

from __future__ import annotations

import errno
import os
from functools import partial

import msgspec
import pytest

from raftkv.disk import RealDisk
from raftkv.disk.simulated import SimDisk
from raftkv.errors import FormatError, InvalidArgument, SnapshotCorruption
from raftkv.snapshot.backup import (
    PART,
    BackupHead,
    BackupWriter,
    SealedHead,
    begun_digest,
    check_backup,
    pieces,
    read_head,
    unpack_backup,
)
from tests.power import cut_off
from tests.snapshot.worlds import CLUSTER, contents, meta, open_store, publish

PATH = "/backups/a"


def made(seed=1):
    """The head of a backup of some files, and its content."""
    disk = SimDisk()
    store = open_store(disk, "/data/snapshots")
    files = contents(seed)
    sealed = store.manifest(publish(store, meta(10 + seed), files))
    head = BackupHead(
        cluster_id=CLUSTER,
        cluster_name="name",
        node_id=1,
        machine="KeyValue",
        version=1,
        schema="s",
        raftkv="0",
        made_ms=5,
        manifest=sealed.data,
    )
    content = b"".join(files[file.name] for file in sealed.manifest.files)
    return SealedHead.seal(head), content


def new_disk():
    """A disk with a directory for backups."""
    disk = SimDisk()
    disk.mkdir("/backups")
    return disk


def write(disk, head, content, step=777):
    """A whole backup, from where an earlier try had ended; a file that a crash has torn is written again, once."""
    writer = BackupWriter(disk, PATH, head)
    tries = 2
    try:
        while writer.position < writer.total:
            try:
                writer.append(content[writer.position : writer.position + step])
            except SnapshotCorruption:
                tries -= 1
                assert tries
        writer.finish()
        return writer
    finally:
        writer.close()


def test_a_backup_is_what_was_written_and_says_what_it_is():
    """Head, content and end; the name is there only when all of it is, and what is unpacked is what was there."""
    disk, (head, content) = new_disk(), made()
    write(disk, head, content)
    assert disk.listdir("/backups") == ["a"]
    assert disk.size(PATH) == head.size
    assert check_backup(disk, PATH).head == head.head
    assert read_head(disk, PATH).snapshot == meta(11)
    unpack_backup(disk, PATH, "/new")
    assert {name: disk.read_bytes(f"/new/{name}") for name in disk.listdir("/new")} == contents(1)


def test_every_part_of_the_content_is_found():
    """The files are read as if they lay one behind the other, empty ones and borders included."""
    head, content = made()
    files = contents(1)
    names = [file.name for file in head.manifest.files]
    for offset in (0, 1, 4_999, 5_001, len(content) - 3):
        for size in (1, 2, 6_000):
            parts = pieces(head.manifest, offset, size)
            found = b"".join(files[names[number]][at : at + length] for number, at, length in parts)
            assert found == content[offset : offset + size]


def test_no_flipped_byte_and_no_missing_end_goes_unnoticed():
    """A byte anywhere in head, content or end; the file cut off anywhere, or with something behind it."""
    disk, (head, content) = new_disk(), made()
    write(disk, head, content)
    whole = disk.read_bytes(PATH)
    places = [
        *range(0, len(head.data), 7),
        *range(len(head.data), len(whole), 997),
        *range(len(whole) - 40, len(whole)),
    ]
    for at in places:
        damaged = bytearray(whole)
        damaged[at] ^= 1
        disk.write_synced(PATH, bytes(damaged))
        with pytest.raises((SnapshotCorruption, FormatError)):
            check_backup(disk, PATH)
    for size in (0, 5, len(head.data), len(whole) - 1):
        disk.write_synced(PATH, whole[:size])
        with pytest.raises(SnapshotCorruption):
            check_backup(disk, PATH)
        with pytest.raises(SnapshotCorruption):
            unpack_backup(disk, PATH, f"/unpacked-{size}")
    disk.write_synced(PATH, whole + b"x")
    with pytest.raises(SnapshotCorruption, match="no proper end"):
        check_backup(disk, PATH)


def test_a_try_that_was_cut_off_is_taken_up_where_it_ended():
    """What is there is checked and kept; a later time of day in the head makes no other backup of it."""
    disk, (head, content) = new_disk(), made()
    writer = BackupWriter(disk, PATH, head)
    writer.append(content[:20_000])
    writer.close()
    assert begun_digest(disk, PATH) == head.digest
    later = SealedHead.seal(msgspec.structs.replace(head.head, made_ms=99))
    assert write(disk, later, content).resumed == 20_000
    assert check_backup(disk, PATH).head.made_ms == 5


def test_another_snapshot_begins_it_anew():
    """Nothing of the earlier one gets into it, though that was longer."""
    disk, (head, content), (other, other_content) = new_disk(), made(1), made(2)
    writer = BackupWriter(disk, PATH, head)
    writer.append(content)
    writer.close()
    assert write(disk, other, other_content).resumed == 0
    assert check_backup(disk, PATH).digest == other.digest


def test_what_a_crash_has_torn_is_fetched_again():
    """The power goes out at each operation on the disk: the next try ends with a backup that is sound."""
    number, was_cut_off = 0, True
    while was_cut_off:
        number += 1
        disk, (head, content) = new_disk(), made()
        was_cut_off = cut_off(disk, number, partial(write, disk, head, content))
        if disk.exists(PATH):
            assert check_backup(disk, PATH).digest == head.digest
        else:
            write(disk, head, content)
            assert check_backup(disk, PATH).digest == head.digest
    assert number > 10


def test_damage_to_a_file_that_was_fetched_is_found_when_it_is_taken_up():
    """From that file's beginning on it is fetched again."""
    disk, (head, content) = new_disk(), made()
    writer = BackupWriter(disk, PATH, head)
    writer.append(content[:20_000])
    writer.close()
    part = bytearray(disk.read_bytes(PATH + PART))
    part[len(head.data) + 2_000] ^= 1
    disk.write_synced(PATH + PART, bytes(part))
    assert write(disk, head, content).resumed <= 2_000
    assert check_backup(disk, PATH).digest == head.digest


def test_a_file_that_comes_wrong_is_asked_for_again():
    """The writer goes back to that file's beginning and says which it is."""
    disk, (head, content) = new_disk(), made()
    writer = BackupWriter(disk, PATH, head)
    wrong = bytearray(content)
    wrong[3_000] ^= 1
    with pytest.raises(SnapshotCorruption, match=r"does not match its checksum in the manifest"):
        writer.append(bytes(wrong))
    at = writer.position
    assert at <= 3_000
    writer.append(content[at:])
    writer.finish()
    writer.close()
    assert check_backup(disk, PATH).digest == head.digest


def test_a_file_that_is_there_is_never_replaced():
    """Neither at the beginning nor at the end, when somebody else has made it meanwhile; nor do two write one file."""
    disk, (head, content) = new_disk(), made()
    writer = BackupWriter(disk, PATH, head)
    with pytest.raises(InvalidArgument, match="being written by another process"):
        BackupWriter(disk, PATH, head)
    writer.append(content)
    disk.write_synced(PATH, b"mine")
    with pytest.raises(InvalidArgument, match="exists already"):
        writer.finish()
    writer.close()
    with pytest.raises(InvalidArgument, match="exists already"):
        BackupWriter(disk, PATH, head)
    assert disk.read_bytes(PATH) == b"mine"


def test_what_is_no_backup_says_so():
    """A file of something else, a directory, and nothing at all."""
    disk = new_disk()
    disk.write_synced(PATH, b"hello" * 100)
    with pytest.raises(SnapshotCorruption, match="no backup"):
        read_head(disk, PATH)
    with pytest.raises(InvalidArgument, match="is a directory"):
        read_head(disk, "/backups")
    with pytest.raises(InvalidArgument, match="no such file"):
        read_head(disk, "/backups/none")


def test_a_backup_that_may_only_be_read_is_checked_and_shown(tmp_path, monkeypatch):
    """On a medium that takes no writes, or as a file of somebody else: nobody asks to write it."""
    disk, (head, content) = new_disk(), made()
    write(disk, head, content)
    path = str(tmp_path / "a")
    RealDisk().write_synced(path, disk.read_bytes(PATH))
    opened = os.open

    def open_of_read_only(name, flags, *more, **named):
        if name == path and flags & (os.O_RDWR | os.O_WRONLY):
            raise OSError(errno.EROFS, "Read-only file system")
        return opened(name, flags, *more, **named)

    monkeypatch.setattr(os, "open", open_of_read_only)
    assert check_backup(RealDisk(), path).digest == read_head(RealDisk(), path).digest == head.digest
    assert unpack_backup(RealDisk(), path, str(tmp_path / "state")).digest == head.digest
