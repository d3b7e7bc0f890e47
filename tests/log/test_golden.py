"""The bytes of what is on disk: other versions of raftkv must read them, so that none changes by accident."""

from __future__ import annotations

import pytest

from raftkv.disk.simulated import SimDisk
from raftkv.log import Identity, VoteFile, save_owned
from raftkv.log.manifest import LogManifest, write_manifest
from raftkv.log.segment import Segment
from raftkv.model import HardState, LogStart, Member, Membership, SnapshotMeta
from raftkv.snapshot.manifest import Manifest, SealedManifest, SnapshotFile

OWNER = Identity(cluster_id="c", node_id=2, incarnation="i")
PATH = "/d/file"


def vote(disk: SimDisk) -> None:
    """Both copies of a term and a vote."""
    VoteFile.create(disk, PATH, OWNER, HardState(term=7, vote=3)).close()


def owned(disk: SimDisk) -> None:
    """A small file that says whose it is."""
    save_owned(disk, PATH, b"RKVtest\n", OWNER, {"a": 1})


def manifest(disk: SimDisk) -> None:
    """The list of a log's segments."""
    write_manifest(disk, PATH, LogManifest(owner=OWNER, numbers=[1, 2], end=512))


def segment(disk: SimDisk) -> None:
    """The header of a segment."""
    Segment.create(disk, PATH, 3, LogStart(index=9, term=2, chain=5, time_ms=11), 0, OWNER).close()


def snapshot(disk: SimDisk) -> None:
    """The manifest of a snapshot."""
    members = Membership(voters=(1,), members=(Member(1, "a:1", "a:2"),))
    meta = SnapshotMeta(index=9, term=2, chain=5, time_ms=11, membership=members)
    found = Manifest(cluster_id="c", snapshot=meta, key_count=4, files=(SnapshotFile("x", 3, b"0123456789abcdef"),))
    disk.write_atomic(PATH, SealedManifest.seal(found).data)


GOLDEN = {  # what is written, without the zeros between
    "vote": [
        "524b56766f74650a0200000017000000bbf90c15f3c5ccf2950193a16302a1690082a47465726d07a4766f746503",
        "524b56766f74650a0200000017000000bbf90c15f3c5ccf2950193a16302a1690082a47465726d07a4766f746503",
    ],
    "owned": [
        "524b56746573740a020000000b000000b077f0fb000b86969293a16302a16981a16101",
    ],
    "manifest": [
        "524b566c6973740a020000000d000000e183199d0394fe089393a16302a169920102cd02",
    ],
    "segment": [
        "524b567365676d0a0200000026000000e896a7fcdee623c79393a16302a1690384a5696e64657809a47465726d02a5636861"
        "696e05a774696d655f6d730b",
    ],
    "snapshot": [
        "524b56736e61700a01000000ce0000001768bc3052df61552315ed979e0d45f984aa636c75737465725f6964a163a8736e61"
        "7073686f7486a5696e64657809a47465726d02a5636861696e05a774696d655f6d730baa6d656d6265727368697085a6766f"
        "746572739101a86f7574676f696e6790a86c6561726e65727390a76d656d626572739183a76e6f64655f696401ac70656572"
        "5f61646472657373a3613a31ae636c69656e745f61646472657373a3613a32a772656d6f76656490a664696765737400a96b"
        "65795f636f756e7404a566696c65739193a17803c41030313233343536373839616263646566",
    ],
}


@pytest.mark.parametrize("write", [vote, owned, manifest, segment, snapshot])
def test_the_bytes_on_disk_are_what_they_always_were(write):
    """A change of these is a change of the format, with a new version of it."""
    disk = SimDisk()
    disk.mkdir("/d")
    write(disk)
    pieces = [piece.strip(b"\0").hex() for piece in disk.read_bytes(PATH).split(bytes(64))]
    assert [piece for piece in pieces if piece] == GOLDEN[write.__name__]
