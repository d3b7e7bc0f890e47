"""The applied state's files: when it is believed, what it is made anew of, and what is left behind."""

from __future__ import annotations

import pytest

from raftkv import failpoints
from raftkv.config import Config
from raftkv.errors import DiskError, Diverged, NoAgreement, StateCorruption
from raftkv.node.statefiles import open_state
from raftkv.state import MemoryStates
from tests.node.directories import Directory, found_in, indexes

SPLIT = "the replicas differ"


def test_a_state_that_is_as_new_as_the_newest_snapshot_is_opened_as_it_is():
    """It need not be newer: the snapshot was taken of it."""
    directory = Directory(applied=9, snapshots=(9,))
    before = directory.disk.read_bytes("/data/state/image")
    assert found_in(directory.start()) == (9, 9)
    assert directory.said == [] and directory.disk.read_bytes("/data/state/image") == before


def test_a_state_that_does_not_say_whose_it_is_is_made_anew():
    """It may be anybody's, so nothing of it is believed; the snapshot and the log have all of it."""
    directory = Directory(applied=12, snapshots=(5,))
    directory.disk.lose("/data/state/OWNER")
    assert found_in(directory.start()) == (5, 5)
    assert directory.said == ["state_damaged"]
    directory.start()
    assert directory.said == [], "and from then on it says so"


@pytest.mark.parametrize(
    ("where", "said"),
    [
        ({"applied": 5, "snapshots": (9,)}, "install_resumed"),
        ({"applied": 1, "snapshots": (9,)}, "install_resumed"),
        ({"start": 9, "snapshots": (9,)}, "install_resumed"),
        ({"start": 9, "applied": 5, "snapshots": (9,)}, "install_resumed"),
        ({"start": 5, "snapshots": (5, 9)}, "state_damaged"),
        ({"snapshots": (9,)}, "state_damaged"),
    ],
)
def test_a_state_behind_the_newest_snapshot_is_an_install_cut_off_or_a_loss(where, said):
    """A snapshot that a leader sent is ahead of the state, which is older, or new like the log. But an empty one beside
    a log that is not was lost: that is a reason to look at the disk (F11, F60)."""
    directory = Directory(**where)
    assert found_in(directory.start()) == (9, 9)
    assert directory.said == [said]


class Unsound(MemoryStates):
    """A state with a block that is damaged: who reads all of it finds that out."""

    def open(self, directory):
        """Like the other, but for the block."""
        store = super().open(directory)
        if store.applied.index == 12:
            store.verify = self._found
        return store

    def _found(self):
        raise StateCorruption("a block does not match its checksum")


@pytest.mark.parametrize(("rebuild", "found"), [(False, 12), (True, 9)])
def test_an_operator_who_asks_for_a_sound_state_has_all_of_it_read(rebuild, found):
    """A start does not, as that takes as long as the state is large."""
    directory = Directory(applied=12, snapshots=(9,))
    directory.states = Unsound(directory.disk)
    assert found_in(directory.start(rebuild=rebuild)) == (found, found)
    assert directory.said == (["state_damaged"] if rebuild else [])


def test_a_damaged_state_without_a_snapshot_is_made_of_the_whole_log():
    """Nothing of the damaged one is left for the new one to be opened on."""
    directory = Directory(applied=12)
    directory.rot_state()
    assert found_in(directory.start()) == (0, 0)
    assert directory.said == ["state_damaged"]


def test_an_older_snapshot_does_when_the_newest_is_damaged():
    """The node goes on from that one, and does not count on the other any more."""
    directory = Directory(applied=12, snapshots=(5, 9))
    directory.rot_state()
    directory.rot_snapshot(9)
    opened = directory.start()
    assert found_in(opened) == (5, 5) and opened.snapshot.index == 5 and indexes(opened) == [5]
    assert len(opened.snapshots.damaged()) == 1


@pytest.mark.parametrize("word", [{}, {"rebuild": True}, {"config": Config(rebuild_damaged_state=True)}])
def test_what_no_log_continues_is_given_up_only_at_somebodys_word(word):
    """The log begins behind the damaged snapshot: all that was before is only with the peers."""
    directory = Directory(start=9, applied=12, snapshots=(9,))
    directory.rot_state()
    directory.rot_snapshot(9)
    if word:
        assert found_in(directory.start(**word)) == (0, 0)
        return
    with pytest.raises(StateCorruption, match="--rebuild"):
        directory.start()


def test_a_state_that_has_diverged_takes_its_snapshots_with_it():
    """It is not known since when it was wrong, so a later start must not find them either (F76)."""
    directory = Directory(applied=12, snapshots=(5, 9))
    directory.mark(Diverged(SPLIT))
    for _ in range(2):
        opened = directory.start()
        assert found_in(opened) == (0, 0) and indexes(opened) == [] and opened.snapshot is None
    assert directory.said == []


@pytest.mark.parametrize(
    ("start", "snapshots", "agreed", "base", "kept"),
    [
        (0, (), 7, 0, []),
        (0, (5,), 7, 5, [5]),
        (0, (5, 7, 9), 7, 7, [5, 7]),
        (0, (9,), 7, 0, []),
        (5, (5,), 7, 5, [5]),
        (5, (5, 9), 5, 5, [5]),
    ],
)
def test_without_an_agreement_the_state_is_made_from_before_the_replicas_differed(start, snapshots, agreed, base, kept):
    """Of the newest snapshot from then, or of the log alone; what was taken later is removed."""
    directory = Directory(start=start, applied=12, snapshots=snapshots)
    directory.mark(NoAgreement(SPLIT, agreed))
    opened = directory.start(rebuild=True)
    assert found_in(opened) == (base, base) and indexes(opened) == kept
    assert directory.said == ["state_made_anew"]
    assert found_in(directory.start()) == (base, base), "the mark is gone"


def test_a_damaged_snapshot_is_passed_over_when_there_was_no_agreement():
    """An older one does as well; the damaged one is not offered to anybody."""
    directory = Directory(applied=12, snapshots=(3, 5))
    directory.rot_snapshot(5)
    directory.mark(NoAgreement(SPLIT, 7))
    opened = directory.start(rebuild=True)
    assert found_in(opened) == (3, 3) and indexes(opened) == [3] and len(opened.snapshots.damaged()) == 1


@pytest.mark.parametrize("rebuild", [False, True])
def test_until_there_is_a_state_from_before_nothing_is_given_up(rebuild):
    """Without the operator's word the node only says again why it stopped; with it, it says what is missing."""
    directory = Directory(start=9, applied=12, snapshots=(9,))
    directory.mark(NoAgreement(SPLIT, 7))
    before = directory.disk.image()
    with pytest.raises(NoAgreement, match="its log begins behind entry 9" if rebuild else f"^{SPLIT}$") as caught:
        directory.start(rebuild=rebuild)
    assert caught.value.agreed_index == 7
    assert directory.disk.image() == before


def test_with_a_state_from_before_it_takes_a_word_all_the_same():
    """The node does not serve one of several histories because it could."""
    directory = Directory(applied=12)
    directory.mark(NoAgreement(SPLIT, 7))
    with pytest.raises(NoAgreement, match=SPLIT):
        directory.start()
    assert found_in(directory.start(rebuild=True)) == (0, 0)


def test_the_mark_is_removed_for_good_with_the_state_that_it_spoke_of():
    """Else the next start would throw a sound state away."""
    directory = Directory(applied=12, snapshots=(9,))
    opened = directory.open()
    directory.mark(StateCorruption("a block is damaged"))
    store = open_state(
        directory.options, directory.world, directory.paths, opened.snapshots, opened.view, opened.vote.identity
    )
    assert store.applied.index == 9
    directory.disk.crash()
    assert not directory.disk.exists(directory.paths.unfit_state)


def test_what_a_restored_state_replaces_is_removed():
    """Neither the old state nor the copy of the snapshot stays beside it."""
    directory = Directory(applied=12, snapshots=(9,))
    directory.rot_state()
    directory.start()
    names = directory.disk.listdir("/data")
    assert "state" in names and not {"state.old", "state.new", "state.unfit"} & set(names)


def test_a_state_is_replaced_between_its_points(monkeypatch):
    """What is there when each is passed is what its meaning says; the first start has no state to move aside."""
    directory = Directory(applied=12, snapshots=(9,))
    directory.rot_state()
    passed = []

    def reach(name):
        if name.startswith("install."):
            there = [each for each in ("state", "state.new", "state.old") if directory.disk.is_dir(f"/data/{each}")]
            passed.append((name.removeprefix("install."), there))

    monkeypatch.setattr(failpoints, "reach", reach)
    directory.start()
    assert passed == [
        ("state_linked", ["state", "state.new"]),
        ("state_aside", ["state.new", "state.old"]),
        ("state_renamed", ["state", "state.old"]),
        ("before_removal", ["state", "state.old"]),
        ("opened", ["state"]),
    ]


def test_an_install_that_fails_anywhere_is_repeated(monkeypatch):
    """A failed step leaves the old state or none, and the next start makes it whole."""
    for name in ("state_linked", "state_aside", "state_renamed", "before_removal", "opened"):
        directory = Directory(applied=12, snapshots=(9,))
        directory.rot_state()

        def reach(reached, name=name):
            if reached == f"install.{name}":
                raise DiskError("the disk is gone")

        with monkeypatch.context() as patch:
            patch.setattr(failpoints, "reach", reach)
            with pytest.raises(DiskError, match="the disk is gone"):
                directory.start()
        assert found_in(directory.start()) == (9, 9)
