"""The core's view of the log, against a naive twin that keeps everything."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raftkv.core.log import LogView
from raftkv.entry import Entry, make_entry
from raftkv.errors import FormatError, SafetyViolation
from raftkv.model import EntryKind, LogStart, Membership, encode_membership
from tests.core.one import entries_of


class Twin:
    """A log as a list of entries, with every question answered by looking at all of it."""

    def __init__(self) -> None:
        self.start = LogStart()
        self.founding = Membership.of((1, 2, 3))
        self.entries: list[Entry] = []
        self.memberships = {0: self.founding}

    @property
    def last(self) -> int:
        """The last index."""
        return self.start.index + len(self.entries)

    def at(self, index: int) -> Entry | LogStart:
        """The entry there, or what is before the first."""
        return self.start if index == self.start.index else self.entries[index - self.start.index - 1]

    def membership_at(self, index: int) -> Membership:
        """The newest membership at or before `index`."""
        return self.memberships[max(at for at in self.memberships if at <= index)]


def same(view: LogView, twin: Twin) -> None:
    """Everything that can be asked has the same answer."""
    assert (view.start, view.last_index) == (twin.start, twin.last)
    newest = twin.at(twin.last)
    assert (view.last_term, view.last_chain, view.last_time_ms) == (newest.term, newest.chain, newest.time_ms)
    for index in range(twin.start.index, twin.last + 1):
        found = twin.at(index)
        assert (view.term(index), view.chain(index), view.time_ms(index)) == (found.term, found.chain, found.time_ms)
        assert view.membership_at(index) == twin.membership_at(index)
        assert view.matches(index, found.term) and not view.matches(index, found.term + 1)
        run = index
        while run - 1 > twin.start.index and twin.at(run - 1).term == found.term:
            run -= 1
        assert view.first_index_of_run(index) == run
        for term in range(6):
            fitting = [i for i in range(twin.start.index + 1, index + 1) if twin.at(i).term <= term]
            assert view.last_index_at_most_term(index, term) == max(fitting, default=twin.start.index)
    sizes = [len(entry.record) for entry in twin.entries]
    assert view.bytes_between(twin.start.index, twin.last) == sum(sizes)
    for after in range(len(sizes)):
        for most in (0, 50, 100, 200):
            end = after + 1
            while end < len(sizes) and sum(sizes[after : end + 1]) <= most:
                end += 1
            assert view.batch_end(twin.start.index + after, most) == twin.start.index + end


@given(st.data())
def test_the_view_answers_like_a_list_of_all_entries(data):
    """Append, truncate and compact in any order: terms, chains, times, sizes and memberships stay right."""
    twin = Twin()
    view = LogView(membership=twin.founding)
    for _ in range(data.draw(st.integers(1, 8))):
        what = data.draw(st.sampled_from(["append", "append", "truncate", "compact"]))
        if what == "append":
            added = []
            for _ in range(data.draw(st.integers(1, 4))):
                before = added[-1] if added else twin.at(twin.last)
                index = twin.last + len(added) + 1
                kind = data.draw(st.sampled_from([EntryKind.COMMAND, EntryKind.COMMAND, EntryKind.MEMBERSHIP]))
                membership = Membership.of((1, 2, 3), (index + 3,))
                payload = encode_membership(membership) if kind == EntryKind.MEMBERSHIP else b"x" * (index % 5)
                term = before.term + data.draw(st.integers(0, 1))
                time_ms = before.time_ms + data.draw(st.integers(0, 2))
                added.append(make_entry(index, term, time_ms, kind, payload, before.chain))
                if kind == EntryKind.MEMBERSHIP:
                    twin.memberships[index] = membership
            twin.entries += added
            assert view.extend(added) == any(entry.kind == EntryKind.MEMBERSHIP for entry in added)
        elif what == "truncate" and twin.entries:
            index = data.draw(st.integers(twin.start.index + 1, twin.last))
            gone = [at for at in twin.memberships if at >= index]
            del twin.entries[index - twin.start.index - 1 :]
            for at in gone:
                del twin.memberships[at]
            assert view.truncate_from(index) == bool(gone)
        elif what == "compact":
            index = data.draw(st.integers(twin.start.index, twin.last))
            found = twin.at(index)
            twin.entries = twin.entries[index - twin.start.index :]
            twin.start = LogStart(index, found.term, found.chain, found.time_ms)
            known = data.draw(st.sampled_from([None, Membership.of((7, 8))]))
            if known is not None:
                twin.memberships[index] = known
            view.compact(index, known)
        same(view, twin)


@pytest.mark.parametrize(
    "entries",
    [
        entries_of((2,), 3),
        entries_of((2, 2), 1),
        entries_of((1,), 2, 5),
        [*entries_of((2,), 2), *entries_of((2,), 4)],
        [*entries_of((2,), 1), *entries_of((2,), 3)],
    ],
    ids=["a gap", "an overlap", "an older term", "a gap inside", "an overlap and a gap"],
)
def test_entries_that_do_not_follow_are_a_violation(entries):
    """Whatever would make the log inconsistent raises, also under -O."""
    view = LogView(membership=Membership.of((1,)))
    view.extend(entries_of((2,)))
    with pytest.raises(SafetyViolation):
        view.extend(entries)


def test_a_membership_of_another_version_stops_the_node_before_anything_changes():
    """Its record is whole, so it is no damage; half an append would leave a log that is not on disk (F24)."""
    view = LogView(membership=Membership.of((1,)))
    view.extend(entries_of((1,)))
    sound = entries_of((1,), 2, view.last_chain)
    strange = make_entry(3, 1, 0, EntryKind.MEMBERSHIP, b"\xc1", sound[0].chain)
    with pytest.raises(FormatError, match=r"entry 3@1 holds a membership that this version"):
        view.extend([*sound, strange])
    assert (view.last_index, view.membership) == (1, Membership.of((1,)))
    view.extend(sound)
    assert view.last_index == 2


def test_a_log_that_was_reset_begins_behind_its_snapshot():
    """What it knew before is forgotten, and the next entry follows the snapshot's."""
    view = LogView(membership=Membership.of((1,)))
    view.extend(entries_of((1, 1, 2)))
    view.reset(LogStart(9, 4, 77, 5), Membership.of((1, 2)))
    assert (view.first_index, view.last_index, view.last_term, view.last_chain) == (10, 9, 4, 77)
    assert view.membership == Membership.of((1, 2))
    view.extend([make_entry(10, 4, 5, EntryKind.COMMAND, b"", 77)])
    assert view.term(10) == 4
    for outside in (8, 11):
        with pytest.raises(AssertionError, match="is not in"):
            view.term(outside)


def test_memberships_since_an_index_begin_with_the_one_in_force_there():
    """Who asks whether a node is needed wants the committed membership and all newer ones."""
    view = LogView(membership=Membership.of((1,)))
    first, second = Membership.of((1, 2)), Membership.of((2,))
    entries = [make_entry(1, 1, 0, EntryKind.MEMBERSHIP, encode_membership(first), 0)]
    entries.append(make_entry(2, 1, 0, EntryKind.MEMBERSHIP, encode_membership(second), entries[0].chain))
    view.extend(entries)
    assert view.memberships_since(0) == [Membership.of((1,)), first, second]
    assert view.memberships_since(1) == [first, second]
    assert view.memberships_since(2) == [second]
    assert (view.has_membership_between(0, 1), view.has_membership_between(2, 9)) == (True, False)
