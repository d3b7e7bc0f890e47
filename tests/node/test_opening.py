"""What a start makes of a directory at rest: which of its files must fit together, and what it goes on from."""

from __future__ import annotations

import msgspec
import pytest

from raftkv import failpoints
from raftkv.config import Config
from raftkv.disk.simulated import SimDisk
from raftkv.errors import ConfigError, Corruption, DiskError, InvalidArgument, StateCorruption, WrongDataDir
from raftkv.model import Member, Membership
from raftkv.node.directory import close_directory, open_directory, rewrite_addresses
from raftkv.node.identity import load_founding, save_founding
from raftkv.node.paths import Options
from raftkv.node.world import World
from tests.node.directories import TERM, Directory, found_in, indexes


def lose_receipts(directory):
    """Remove the record of which snapshots are the node's."""
    directory.disk.lose(directory.paths.receipts)


def test_without_receipts_a_snapshot_counts_whose_entry_the_log_has():
    """The record is begun anew with it, so the next start need not ask the log again."""
    directory = Directory(applied=9, snapshots=(9,))
    lose_receipts(directory)
    assert indexes(directory.start()) == [9]
    assert directory.said == ["snapshot_confirmed"]
    assert indexes(directory.start()) == [9]
    assert directory.said == []


def test_without_receipts_a_snapshot_from_before_the_log_does_not_count():
    """The log can't confirm it, as it begins later."""
    directory = Directory(start=9, applied=12, snapshots=(5, 9))
    lose_receipts(directory)
    opened = directory.start()
    assert indexes(opened) == [9] and len(opened.snapshots.refused()) == 1


def test_the_record_of_receipts_is_begun_anew_though_no_snapshot_is_there():
    """From then on, what appears beside it is not this node's."""
    directory = Directory(applied=9)
    lose_receipts(directory)
    directory.start()
    assert directory.disk.exists(directory.paths.receipts)


@pytest.mark.parametrize("off", [-1, 1])
def test_a_snapshot_of_another_log_is_not_gone_on_from(off):
    """It has the index and term of an entry here, but what was before that entry differs: the chain tells."""
    directory = Directory(applied=12)
    opened = directory.open()
    directory.publish(opened, directory.meta(9, chain=directory.entries[9].chain + off))
    close_directory(opened)
    with pytest.raises(Corruption, match=r"does not have entry 9@2"):
        directory.start()


def test_a_vote_from_before_the_log_began_is_refused():
    """The vote file knew of the term of a snapshot before the log was begun behind that. One that does not is an older
    copy: the node might vote a second time in that term."""
    directory = Directory(last=9)
    opened = directory.open()
    later = directory.meta(9, term=TERM + 1)
    directory.publish(opened, later)
    opened.log.reset(later.log_start)
    close_directory(opened)
    with pytest.raises(Corruption, match="is an older copy"):
        directory.start()


def test_a_start_names_no_other_machine_than_the_directorys():
    """Who names none takes what is there."""
    directory = Directory(machine="Shop")
    assert directory.start().founding.machine == "Shop"
    assert directory.start(machine="Shop").founding.machine == "Shop"
    with pytest.raises(WrongDataDir, match="of the state machine Shop, not of Bank"):
        directory.start(machine="Bank")


@pytest.mark.parametrize("word", [{}, {"rebuild": True}, {"config": Config(rebuild_damaged_state=True)}])
@pytest.mark.parametrize(("start", "snapshots"), [(1, ()), (9, ()), (9, (5,))])
def test_without_the_members_at_the_logs_beginning_a_node_starts_only_at_somebodys_word(word, start, snapshots):
    """Then it knows no members and has no state, so it waits for a leader's snapshot; an older one here is none."""
    directory = Directory(start=start, applied=12, snapshots=snapshots)
    if not word:
        with pytest.raises(StateCorruption, match="the list of members"):
            directory.start()
        return
    opened = directory.start(**word)
    assert opened.view.membership == Membership() and found_in(opened) == (0, 0)
    assert opened.snapshot == opened.snapshots.latest() and indexes(opened) == [*snapshots]


def test_nobody_is_founded_anew_who_has_lost_both_names_of_the_cluster():
    """A directory with a log, and without the files that say whose it is: nothing is written before that is noticed."""
    directory = Directory()
    directory.disk.lose(directory.paths.founding)
    directory.disk.lose(directory.paths.vote)
    before = directory.disk.image()
    with pytest.raises(Corruption, match="/data/cluster is missing"):
        directory.start()
    assert directory.disk.image() == before


@pytest.mark.parametrize("lost", ["starts", "log"])
def test_a_lost_vote_is_noticed_by_the_starts_and_by_the_log(lost):
    """One of the two is enough: either shows that there was a node."""
    directory = Directory()
    directory.disk.lose(directory.paths.vote)
    if lost == "log":
        directory.disk.remove_tree(directory.paths.log)
    else:
        directory.disk.lose(directory.paths.starts)
    with pytest.raises(Corruption, match="/data/vote is missing"):
        directory.start()


def test_a_first_start_that_is_cut_off_before_it_is_recorded_may_be_repeated(monkeypatch):
    """The record of starts is there before the vote file, which asks for it."""
    directory = Directory()
    directory.disk.remove_tree("/data")
    directory.disk.kill()
    with monkeypatch.context() as patch:
        patch.setattr(failpoints, "reach", lambda name: fail() if name == "start.recovered" else None)
        with pytest.raises(DiskError, match="the disk is gone"):
            directory.start()
    assert [boot for boot, _ in directory.start().starts] == [1]


def fail():
    """As a failpoint does."""
    raise DiskError("the disk is gone")


def test_a_node_that_was_joining_when_it_crashed_has_joined():
    """The file `cluster` is written first, so it knows the cluster when the vote file does not yet."""
    directory = Directory()
    directory.disk.remove_tree("/data")
    directory.disk.kill()
    founding = Directory().start().founding
    owner = directory.start(members=()).vote.identity
    assert owner.cluster_id == ""
    named = msgspec.structs.replace(owner, cluster_id=founding.cluster_id)
    save_founding(directory.disk, directory.paths.founding, named, founding)
    assert directory.start(members=()).vote.identity == named
    found = load_founding(directory.disk, directory.paths.founding)
    assert found is not None and found.value == founding


class NoPlace(SimDisk):
    """A disk on which the directory's parent is missing."""

    def mkdir(self, path):
        """As the real one, which makes one directory and no more."""
        raise FileNotFoundError(path)


def test_a_directory_that_cant_be_made_is_an_error_of_the_disk():
    """Who gave the path is told which."""
    directory = Directory()
    directory.disk = NoPlace()
    with pytest.raises(DiskError, match="/data can't be made"):
        directory.start()


@pytest.mark.parametrize(("place", "what"), [("/data", "it"), ("/data/n1", "/data")])
def test_a_file_where_the_directory_is_to_be_is_a_setting_that_is_wrong(place, what):
    """No fault of the disk's: who gave the path is told what is there, and what is wanted. The file stays."""
    disk = SimDisk()
    disk.write_synced("/data", b"a letter")
    world = msgspec.structs.replace(World.real(), disk=disk)
    with pytest.raises(ConfigError, match=f"data_dir = '{place}': {what} is a file: give the directory in which"):
        open_directory(Options(node_id=1, data_dir=place), world)
    assert disk.read_bytes("/data") == b"a letter"


def test_addresses_are_rewritten_in_a_directory_that_there_is():
    """Durable: the next start dials them. A directory that is not there is not made for it."""
    directory = Directory()
    place = Member(2, "elsewhere:1", "elsewhere:2")
    found = rewrite_addresses(directory.options, directory.world, [place])
    assert found.member(2) == place
    directory.disk.crash()
    opened = directory.start()
    assert opened.moved is not None and opened.moved.members == (place,)
    directory.disk.remove_tree("/data")
    with pytest.raises(InvalidArgument, match="no data directory"):
        rewrite_addresses(directory.options, directory.world, [place])
    assert not directory.disk.exists("/data")
