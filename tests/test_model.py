"""The nouns: order of ids, memberships and what may be wrong with them, and their one encoding."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raftkv.model import (
    GENESIS_CHAIN,
    NODE_ID_MAX,
    EntryId,
    EntryKind,
    HardState,
    LogStart,
    Member,
    Membership,
    SnapshotMeta,
    decode_membership,
    encode_membership,
)

ids = st.integers(1, NODE_ID_MAX)
terms = st.integers(0, 2**63)


@st.composite
def memberships(draw: st.DrawFn) -> Membership:
    """Sound memberships, joint ones among them, with addresses for some."""
    pool = draw(st.lists(ids, min_size=1, max_size=9, unique=True))
    part = lambda least: st.lists(st.sampled_from(pool), min_size=least, max_size=5, unique=True)  # noqa: E731
    voters, outgoing = draw(part(1)), draw(part(0))
    learners = [node for node in draw(part(0)) if node not in voters]
    everyone = sorted({*voters, *outgoing, *learners})
    with_address = draw(st.sets(st.sampled_from(everyone)))
    members = [
        Member(node, f"host-{node}:7001", f"host-{node}:7002") if node in with_address else Member(node)
        for node in everyone
    ]
    removed = sorted(set(draw(st.lists(ids, max_size=4))) - set(everyone))
    return Membership(
        voters=tuple(sorted(voters)),
        outgoing=tuple(sorted(outgoing)),
        learners=tuple(sorted(learners)),
        members=tuple(members),
        removed=tuple(removed),
    )


@given(st.lists(st.tuples(terms, terms), max_size=20))
def test_entry_ids_are_ordered_as_logs_are_compared(pairs: list[tuple[int, int]]) -> None:
    """The newer term wins, and only among equal terms the longer log (§5.4.1): the order of (term, index)."""
    assert [(e.term, e.index) for e in sorted(EntryId(term=t, index=i) for t, i in pairs)] == sorted(pairs)


def test_an_entry_id_reads_index_at_term() -> None:
    """Logs, scripts and failures write `7@2` for index 7 of term 2."""
    assert str(EntryId(term=2, index=7)) == "7@2"


def test_a_new_node_has_no_term_no_vote_and_an_empty_log() -> None:
    """The defaults are those of a node before its first election; "nobody" is None and no number."""
    assert HardState() == HardState(term=0, vote=None)
    assert LogStart() == LogStart(index=0, term=0, chain=GENESIS_CHAIN, time_ms=0)
    assert Membership() == Membership((), (), (), (), ())


def test_the_numbers_of_entry_kinds_never_change() -> None:
    """They are on the disks of every cluster there is (F24)."""
    numbers = {"NOOP": 0, "COMMAND": 1, "MEMBERSHIP": 2, "CLOCK": 3, "UPGRADE": 4, "DUE": 5}
    assert {kind.name: kind.value for kind in EntryKind} == numbers


@pytest.mark.parametrize(
    ("value", "field"),
    [
        (EntryId(term=1, index=1), "term"),
        (HardState(), "vote"),
        (Member(1), "node_id"),
        (Membership.of((1,)), "voters"),
        (LogStart(), "index"),
        (SnapshotMeta(1, 1, 1, 1, Membership.of((1,))), "index"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_a_noun_cannot_be_changed_once_it_is_built(value: object, field: str) -> None:
    """They are shared without copying; whoever changed one would change it for everybody."""
    with pytest.raises(AttributeError):
        setattr(value, field, 9)
    hash(value)  # and so they may be keys


def test_a_snapshot_says_which_entry_is_its_last_and_where_a_log_goes_on() -> None:
    """Its id is that entry's; the log behind it starts with that entry's term, chain and time (§7)."""
    meta = SnapshotMeta(index=40, term=3, chain=77, time_ms=1234, membership=Membership.of((1, 2, 3)), digest=5)
    assert meta.id == EntryId(term=3, index=40)
    assert meta.log_start == LogStart(index=40, term=3, chain=77, time_ms=1234)


@given(memberships())
def test_a_membership_survives_its_encoding(membership: Membership) -> None:
    """What a log entry holds is the membership, joint or not, with every address and removed id."""
    assert decode_membership(encode_membership(membership)) == membership


@given(memberships())
def test_a_sound_membership_has_no_problems(membership: Membership) -> None:
    """Nothing is found where nothing is wrong, else a sound change would be refused."""
    assert membership.problems() == []


def test_a_membership_is_encoded_as_it_always_was() -> None:
    """Old logs hold these very bytes: the names of the fields belong to the format (F24)."""
    encoded = encode_membership(Membership(voters=(1,), members=(Member(1, "a:1", "a:2"),)))
    assert msgspec.msgpack.decode(encoded) == {
        "voters": [1],
        "outgoing": [],
        "learners": [],
        "members": [{"node_id": 1, "peer_address": "a:1", "client_address": "a:2"}],
        "removed": [],
    }


@given(memberships(), st.data())
def test_a_payload_that_is_cut_short_is_no_membership(membership: Membership, data: st.DataObject) -> None:
    """Half of a membership would be another one; it is an error instead."""
    payload = encode_membership(membership)
    cut = data.draw(st.integers(0, len(payload) - 1))
    with pytest.raises(msgspec.DecodeError):
        decode_membership(payload[:cut])


@pytest.mark.parametrize("payload", [{"voters": "1"}, {"voters": [1.5]}, {"members": [[1]]}, [1, 2], 7, None])
def test_a_payload_of_another_shape_is_no_membership(payload: object) -> None:
    """Valid msgpack that says something else is refused by its types."""
    with pytest.raises(msgspec.ValidationError):
        decode_membership(msgspec.msgpack.encode(payload))


@given(memberships())
def test_the_groups_of_a_membership_agree(membership: Membership) -> None:
    """All voters are those of either half; all nodes are the voters and the learners; both sorted."""
    voters = {*membership.voters, *membership.outgoing}
    assert membership.all_voters() == tuple(sorted(voters))
    assert membership.all_nodes() == tuple(sorted(voters | set(membership.learners)))
    assert membership.is_joint == bool(membership.outgoing)
    for node in membership.all_nodes():
        assert membership.is_voter(node) == (node in voters)
        assert membership.member(node).node_id == node


def test_nobody_is_a_member_or_voter_by_accident() -> None:
    """A number that the membership lacks, as a removed one, is neither."""
    membership = Membership(voters=(1,), learners=(2,), members=(Member(1), Member(2)), removed=(3,))
    assert membership.member(3) is None
    assert not membership.is_voter(3)
    assert not membership.is_voter(2)


def test_a_membership_of_bare_numbers_is_sorted_and_sound() -> None:
    """`Membership.of` takes numbers in any order."""
    membership = Membership.of((3, 1, 2), (5, 4))
    assert (membership.voters, membership.learners) == ((1, 2, 3), (4, 5))
    assert membership.problems() == []


SOUND = Membership(
    voters=(1, 2, 3),
    learners=(4,),
    members=(Member(1, "a:1", "a:2"), Member(2, "b:1", "b:2"), Member(3, "c:1", "c:2"), Member(4)),
    removed=(9,),
)


def members(*nodes: int) -> tuple[Member, ...]:
    """Members without addresses."""
    return tuple(Member(node) for node in nodes)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"voters": (), "members": members(4)}, "a membership needs at least one voter"),
        ({"voters": (1, 3, 2)}, "voters must be sorted and without repetition, not (1, 3, 2)"),
        ({"voters": (1, 2, 2, 3)}, "voters must be sorted and without repetition, not (1, 2, 2, 3)"),
        ({"outgoing": (2, 1)}, "outgoing must be sorted and without repetition, not (2, 1)"),
        ({"learners": (4, 4)}, "learners must be sorted and without repetition, not (4, 4)"),
        ({"removed": (9, 8)}, "removed must be sorted and without repetition, not (9, 8)"),
        ({"members": members(2, 1, 3, 4)}, "members must be sorted and without repetition, not [2, 1, 3, 4]"),
        ({"members": members(1, 2, 3, 3, 4)}, "members must be sorted and without repetition, not [1, 2, 3, 3, 4]"),
        (
            {"members": members(1, 2, 4)},
            "members [1, 2, 4] must be exactly the voters and learners [1, 2, 3, 4]",
        ),
        (
            {"members": members(1, 2, 3, 4, 5)},
            "members [1, 2, 3, 4, 5] must be exactly the voters and learners [1, 2, 3, 4]",
        ),
        ({"voters": (0, 1), "members": members(0, 1, 4)}, "node ids must be 1 to 4294967295, not [0]"),
        (
            {"voters": (1, NODE_ID_MAX + 1), "learners": (), "members": members(1, NODE_ID_MAX + 1)},
            "node ids must be 1 to 4294967295, not [4294967296]",
        ),
        ({"learners": (3, 4)}, "[3] cannot be voters and learners at once"),
        ({"removed": (2, 4)}, "[2, 4] were removed before; a new node needs a new id"),
        (
            {"members": (Member(1, "a:1"), Member(2, "a:1"), Member(3), Member(4))},
            "peer_address ['a:1'] is used by more than one member",
        ),
        (
            {"members": (Member(1, "", "a:2"), Member(2), Member(3), Member(4, "", "a:2"))},
            "client_address ['a:2'] is used by more than one member",
        ),
    ],
)
def test_each_problem_of_a_membership_is_named(change: dict[str, object], problem: str) -> None:
    """One thing is changed in a sound membership: that is what is named, and nothing else (F57)."""
    assert SOUND.problems() == []
    assert msgspec.structs.replace(SOUND, **change).problems() == [problem]


def test_all_problems_of_a_membership_are_named_at_once() -> None:
    """Whoever mends one should not have to find the next by trying."""
    wrong = Membership(voters=(2, 1), learners=(2,), members=(Member(1, "a:1"), Member(2, "a:1")), removed=(1,))
    assert wrong.problems() == [
        "voters must be sorted and without repetition, not (2, 1)",
        "[2] cannot be voters and learners at once",
        "[1] were removed before; a new node needs a new id",
        "peer_address ['a:1'] is used by more than one member",
    ]


def test_a_voter_may_be_on_its_way_to_be_a_learner() -> None:
    """In a joint membership a demoted voter still votes in the old half: no problem (§6)."""
    demoted = Membership(voters=(1, 2), outgoing=(1, 2, 3), learners=(3,), members=members(1, 2, 3))
    assert demoted.problems() == []
    assert demoted.is_voter(3)


def test_members_without_addresses_do_not_share_one() -> None:
    """The empty address is none; the simulator's nodes all have it."""
    assert Membership.of((1, 2, 3)).problems() == []


@pytest.mark.parametrize(
    ("membership", "words"),
    [
        (Membership.of((1, 2, 3)), "voters 1 2 3"),
        (Membership.of((1,), (2, 4)), "voters 1 learners 2 4"),
        (Membership((1, 3), (1, 2), (4,), members(1, 2, 3, 4)), "voters 1 3 (outgoing 1 2) learners 4"),
        (Membership(), "voters"),
    ],
)
def test_a_membership_is_described_in_words(membership: Membership, words: str) -> None:
    """The same words stand in logs, scripts and failures."""
    assert membership.describe() == words
