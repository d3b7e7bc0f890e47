"""The vote file."""

from __future__ import annotations

import contextlib
import random

import msgspec
import pytest

from raftkv.disk.simulated import SimDisk
from raftkv.errors import Corruption, DiskError, DiskFull, FormatError, SafetyViolation
from raftkv.log import Identity, VoteFile, vote
from raftkv.log.sealed import seal
from raftkv.model import HardState
from tests.log.logs import IDENTITY, ROOT, VOTE
from tests.logged import capture_logs

SLOT = 4_096
STATES = [HardState(1, None), HardState(1, 2), HardState(2, None), HardState(5, 1)]


class PowerCut(BaseException):
    """Ends whatever runs."""


@pytest.fixture
def disk():
    """A disk with a node's directory and vote file, which holds (3, 2) and 10."""
    disk = SimDisk()
    disk.mkdir(ROOT)
    file = VoteFile.create(disk, VOTE, IDENTITY, HardState())
    file.write(HardState(3, 2), 10)
    file.close()
    return disk


def look(disk):
    """What the file says."""
    file = VoteFile.open(disk, VOTE)
    file.close()
    return file.identity, file.boot, file.hard_state, file.durable_index


def test_a_new_file_is_durable():
    """With its name: a node that has voted is never one without a vote file (F2, F12)."""
    disk = SimDisk()
    disk.mkdir(ROOT)
    file = VoteFile.create(disk, VOTE, IDENTITY, HardState(2, 1))
    assert (file.identity, file.boot, file.hard_state, file.durable_index) == (IDENTITY, 0, HardState(2, 1), 0)
    disk.crash()
    assert look(disk) == (IDENTITY, 0, HardState(2, 1), 0)


def test_there_is_no_file():
    """Whether that may be is for the node to say; it is no damage of a file (F11)."""
    with pytest.raises(FileNotFoundError):
        VoteFile.open(SimDisk(), VOTE)


def test_what_was_written_is_durable(disk):
    """Term, vote and bound, when `write` returns (F1, F2)."""
    disk.crash()
    assert look(disk) == (IDENTITY, 0, HardState(3, 2), 10)
    file = VoteFile.open(disk, VOTE)
    file.write(HardState(4, None), 7)
    disk.crash()
    assert look(disk) == (IDENTITY, 0, HardState(4, None), 7)


def test_starts_are_counted(disk):
    """Each is durable before the node does anything else (F22)."""
    for number in (1, 2, 3):
        file = VoteFile.open(disk, VOTE)
        assert file.new_boot() == file.boot == number
        disk.crash()
    assert look(disk) == (IDENTITY, 3, HardState(3, 2), 10)


@pytest.mark.parametrize("state", [HardState(2, 2), HardState(3, 1), HardState(3, None), HardState(0, None)])
def test_a_vote_never_goes_back(disk, state):
    """Neither to an older term, nor to another or no vote in the same one (§5.2; F1, F2, F3)."""
    file = VoteFile.open(disk, VOTE)
    with pytest.raises(SafetyViolation, match="would go back"):
        file.write(state, 10)
    assert file.hard_state == HardState(3, 2)
    assert look(disk)[2] == HardState(3, 2)


@pytest.mark.parametrize("state", [HardState(3, 2), HardState(4, 1), HardState(4, None)])
def test_a_vote_goes_on(disk, state):
    """The bound may go down, as entries that were not committed are cut off."""
    file = VoteFile.open(disk, VOTE)
    file.write(state, 0)
    assert (file.hard_state, file.durable_index) == (state, 0)
    file.write(HardState(state.term + 1, 1), 5)


def test_a_vote_is_cast_in_a_term_that_has_none(disk):
    """A term is written first without a vote, then with one."""
    file = VoteFile.open(disk, VOTE)
    file.write(HardState(4, None), 0)
    file.write(HardState(4, 1), 0)
    assert look(disk)[2] == HardState(4, 1)


def test_a_node_joins_one_cluster():
    """The one that it meets first: that is durable, and no other takes its place, not even after a restart."""
    disk = SimDisk()
    disk.mkdir(ROOT)
    file = VoteFile.create(disk, VOTE, Identity(cluster_id="", node_id=1, incarnation="i1"), HardState(3, 2))
    file.join("first")
    file.close()
    disk.crash()
    file = VoteFile.open(disk, VOTE)
    assert file.identity == Identity(cluster_id="first", node_id=1, incarnation="i1")
    before = disk.operations
    file.join("first")
    assert disk.operations == before, "it is one already"
    with pytest.raises(SafetyViolation, match=f"{VOTE} is of the cluster first, it can't join second"):
        file.join("second")
    assert look(disk)[0].cluster_id == "first"


def test_a_look_changes_nothing_and_leaves_nothing_open(disk):
    """Also where there is no file, or one that can't be read."""
    assert VoteFile.look(SimDisk(), VOTE) is None
    before, operations = disk.image(), disk.operations
    assert VoteFile.look(disk, VOTE).identity == IDENTITY
    assert disk.open_files() == []
    for offset in (20, SLOT + 20):
        disk.flip(VOTE, offset)
    with pytest.raises(Corruption):
        VoteFile.look(disk, VOTE)
    with pytest.raises(Corruption):
        VoteFile.open(disk, VOTE)
    for offset in (20, SLOT + 20):
        disk.flip(VOTE, offset)
    assert (disk.image(), disk.operations, disk.open_files()) == (before, operations, [])


def write_all(disk, cut_at):
    """Write all states, up to the operation `cut_at`. Returns how many are written, None if not even the file."""
    left = [cut_at]

    def fault(kind, path):
        left[0] -= 1
        if left[0] == 0:
            raise PowerCut

    disk.fault = fault
    done = None
    with contextlib.suppress(PowerCut):
        file = VoteFile.create(disk, VOTE, IDENTITY, HardState())
        done = 0
        for number, state in enumerate(STATES, 1):
            file.write(state, 10 * number)
            done = number
    disk.fault = None
    return done


def ends():
    """Each operation at which it may end, on a disk of its own, and what was written until then."""
    whole = SimDisk()
    whole.mkdir(ROOT)
    before = whole.operations
    assert write_all(whole, 0) == len(STATES)
    for cut_at in range(1, whole.operations - before + 2):
        disk = SimDisk()
        disk.mkdir(ROOT)
        yield disk, write_all(disk, cut_at)


def check(disk, done):
    """The file holds what was written last, or what was being written, and what was seen once stays."""
    if not disk.exists(VOTE):
        assert done is None
        return
    found = look(disk)
    disk.crash()
    assert look(disk) == found
    identity, _, state, bound = found
    place = [HardState(), *STATES].index(state)
    assert identity == IDENTITY
    assert (done or 0) <= place <= (done or 0) + 1
    assert bound == 10 * place


@pytest.mark.parametrize("seed", [None, *range(20)])
def test_the_power_goes_at_every_operation(seed):
    """What was written before is there or something later, never less, and it stays so (F1, F2, F8)."""
    for disk, done in ends():
        disk.crash(None if seed is None else random.Random(seed))
        check(disk, done)


def test_the_process_is_killed_at_every_operation_and_then_the_power_goes():
    """A vote that the next process has read, it may act on: no crash takes it back (F1, F15)."""
    for disk, done in ends():
        disk.kill()
        check(disk, done)


@pytest.mark.parametrize("keeps", [False, True])
@pytest.mark.parametrize("number", [1, 2, 3, 4])
@pytest.mark.parametrize("error", [DiskError, DiskFull])
def test_a_failed_write_ends_it(disk, keeps, number, error):
    """The file is not used any more; the next start finds the old or the new vote, and it stays (F13, F15)."""
    disk.failed_sync_keeps = keeps
    file = VoteFile.open(disk, VOTE)
    left = [number]

    def fault(kind, path):
        left[0] -= 1
        if left[0] == 0:
            raise error("no")

    disk.fault = fault
    with pytest.raises(error):
        file.write(HardState(4, 1), 11)
    assert file.hard_state == HardState(3, 2)
    with pytest.raises(DiskError):
        file.write(HardState(4, 3), 11)
    disk.fault = None
    disk.kill()
    found = look(disk)[2]
    assert found in (HardState(3, 2), HardState(4, 1))
    disk.crash()
    assert look(disk)[2] == found


def test_any_flipped_byte_is_mended(disk):
    """One damaged copy is harmless, whichever and wherever, and is whole again afterwards (F9)."""
    whole = disk.image()
    said = look(disk)
    generation_kept = disk.image() == whole
    assert generation_kept, "opening changes nothing that is whole"
    for at in range(2 * SLOT):
        if SLOT > at % SLOT > 200 and at % 97:
            continue  # the padding, now and then
        disk.flip(VOTE, at, at % 8)
        assert look(disk) == said
        disk.crash()
        assert disk.image() == whole, f"byte {at}"


@pytest.mark.parametrize("copy", [1, 2])
def test_a_damaged_copy_is_mended_with_a_line(disk, copy):
    """It may be the first sign of a disk that fails, so it says where; what is whole is no news (F9)."""
    disk.flip(VOTE, (copy - 1) * SLOT + 20, 3)
    with capture_logs() as lines:
        look(disk)
        look(disk)
    [line] = [line for line in lines if line["event"] == "vote_file_mended"]
    assert (line["log_level"], line["path"], line["copy"]) == ("warning", VOTE, copy)


def test_any_zeroed_sector_is_mended(disk):
    """As a sector that can't be read (F9)."""
    whole = disk.image()
    for at in range(0, 2 * SLOT, 512):
        disk.overwrite(VOTE, at, bytes(512))
        look(disk)
        assert disk.image() == whole


def test_any_cut(disk):
    """The first copy is enough; a part of it is not (F8, F11)."""
    whole = disk.image()[VOTE]
    said = look(disk)
    needed = len(whole[:SLOT].rstrip(b"\0"))
    for size in [*range(200), *range(200, 2 * SLOT, 61)]:
        file = disk.open(VOTE)
        file.pwrite([whole], 0)
        file.truncate(size)
        file.sync()
        if size >= needed:
            assert look(disk) == said
            assert disk.image()[VOTE] == whole
        else:
            with pytest.raises(Corruption, match="add it again under a new id"):
                look(disk)


def test_two_damaged_copies_are_the_end(disk):
    """A node that does not know for whom it voted must not vote; the text says what to do (F9)."""
    disk.flip(VOTE, 30)
    disk.flip(VOTE, SLOT + 40)
    before = disk.image()
    with pytest.raises(Corruption, match=r"no longer knows for whom it voted\. Remove it from the cluster"):
        look(disk)
    assert disk.image() == before


def test_the_newer_copy_counts(disk):
    """Whichever place it is in: a stale copy, as a lost write leaves it, takes nothing back (F19)."""
    old = disk.image()[VOTE]
    file = VoteFile.open(disk, VOTE)
    file.write(HardState(4, 1), 12)
    said = look(disk)
    for at in (0, SLOT):
        disk.overwrite(VOTE, at, old[:SLOT])
        assert look(disk) == said
        assert old[:SLOT] not in disk.image()[VOTE]


def test_another_version(disk, monkeypatch):
    """Both are named, and nothing is changed, also if only one copy was migrated (F24)."""
    body = msgspec.msgpack.encode({"of": "the future"})
    for copies in (1, 2):
        disk.overwrite(VOTE, 0, (seal(b"RKVvote\n", body, version=3).ljust(SLOT, b"\0")) * copies)
        before = disk.image()
        with pytest.raises(FormatError, match="has format version 3, this raftkv reads version 2: use the"):
            look(disk)
        assert disk.image() == before


def test_something_else_under_a_right_checksum(disk):
    """No version writes that, so it is not taken for one damaged copy."""
    disk.overwrite(VOTE, 0, seal(b"RKVvote\n", msgspec.msgpack.encode([1, 2])))
    with pytest.raises(Corruption, match=r"no version of raftkv writes .* under a new id"):
        look(disk)


def test_a_file_of_another_kind(disk):
    """A manifest in the vote file's place is damage, whatever its checksum says (F19)."""
    disk.overwrite(VOTE, 0, seal(b"RKVlist\n", msgspec.msgpack.encode([1])).ljust(SLOT, b"\0") * 2)
    with pytest.raises(Corruption, match="both copies"):
        look(disk)


def test_the_longest_identity_fits():
    """Names are bounded elsewhere; here is room for all of them."""
    disk = SimDisk()
    disk.mkdir(ROOT)
    identity = Identity(cluster_id="c" * 1_000, node_id=2**32 - 1, incarnation="i" * 1_000)
    file = VoteFile.create(disk, VOTE, identity, HardState())
    file.write(HardState(2**63, 2**32 - 1), 2**63)
    assert look(disk) == (identity, 0, HardState(2**63, 2**32 - 1), 2**63)
    assert vote._SLOT_BYTES == SLOT
