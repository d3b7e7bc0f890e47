"""Files that say whose they are."""

from __future__ import annotations

import msgspec
import pytest
import xxhash

from raftkv.disk.simulated import SimDisk
from raftkv.errors import Corruption, FormatError, WrongDataDir
from raftkv.log import Identity, check_owner, load_owned, save_owned
from raftkv.log.owned import load_own
from raftkv.log.sealed import seal

MAGIC = b"RKVtest\n"
PATH = "/d/file"
OWNER = Identity(cluster_id="c", node_id=2, incarnation="i")


@pytest.fixture
def disk():
    """One with a directory."""
    found = SimDisk()
    found.mkdir("/d")
    return found


def test_what_is_saved_is_there_with_its_owner_after_a_crash(disk):
    """Durable on return."""
    save_owned(disk, PATH, MAGIC, OWNER, {"a": 1})
    disk.crash()
    found = load_owned(disk, PATH, MAGIC, dict[str, int])
    assert (found.owner, found.value) == (OWNER, {"a": 1})
    assert load_owned(disk, "/d/none", MAGIC, dict[str, int]) is None


@pytest.mark.parametrize(
    ("other", "is_same"),
    [
        (OWNER, True),
        (Identity("", 2, "i"), True),
        (Identity("d", 2, "i"), False),
        (Identity("c", 3, "i"), False),
        (Identity("c", 2, "j"), False),
        (Identity("", 2, "j"), False),
    ],
)
def test_a_directory_is_one_cluster_node_and_incarnation(other, is_same):
    """F77: but what was written before a node joined a cluster names none."""
    assert OWNER.is_same(other) == other.is_same(OWNER) == is_same
    if is_same:
        check_owner(PATH, other, OWNER)
        return
    with pytest.raises(WrongDataDir, match=f"{PATH} belongs to node {other.node_id} of .* Put this node's own back"):
        check_owner(PATH, other, OWNER)


def test_damage_is_noticed_at_every_byte(disk):
    """F9."""
    save_owned(disk, PATH, MAGIC, OWNER, [1, 2])
    for at in range(disk.size(PATH)):
        disk.flip(PATH, at)
        with pytest.raises(Corruption, match=PATH):
            load_owned(disk, PATH, MAGIC, list[int])
        disk.flip(PATH, at)


def test_other_versions_are_named(disk):
    """F24: the one before had no envelope, a later one has the same."""
    body = msgspec.msgpack.encode([1])
    disk.write_atomic(PATH, xxhash.xxh3_64_digest(body) + body)
    with pytest.raises(FormatError, match=r"has format version 1, .* reads version 2"):
        load_owned(disk, PATH, MAGIC, list[int])
    disk.write_atomic(PATH, seal(MAGIC, body, version=3))
    with pytest.raises(FormatError, match="has format version 3, this raftkv reads version 2"):
        load_owned(disk, PATH, MAGIC, list[int])


def test_something_else_under_a_right_checksum(disk):
    """No version writes that."""
    save_owned(disk, PATH, MAGIC, OWNER, "text")
    with pytest.raises(Corruption, match="holds something that no version of raftkv writes"):
        load_owned(disk, PATH, MAGIC, list[int])


def test_only_its_own_is_loaded(disk):
    """F77: another's stops the node, and what is not there is no error."""
    assert load_own(disk, PATH, MAGIC, OWNER, list[int]) is None
    save_owned(disk, PATH, MAGIC, OWNER, [1, 2])
    assert load_own(disk, PATH, MAGIC, OWNER, list[int]) == [1, 2]
    with pytest.raises(WrongDataDir, match=PATH):
        load_own(disk, PATH, MAGIC, Identity("c", 3, "i"), list[int])


def test_a_file_that_is_too_short_for_anything_is_damaged(disk):
    """Eight bytes that are the checksum of nothing are no file of the first version either."""
    disk.write_atomic(PATH, xxhash.xxh3_64_digest(b""))
    with pytest.raises(Corruption, match=PATH):
        load_owned(disk, PATH, MAGIC, list[int])
