"""Whose a session is: kept in its record, through restarts, and not at all where it is nobody's."""

from __future__ import annotations

import msgspec
import pytest

from raftkv.access import AddUser, RemoveUser
from raftkv.disk.simulated import SimDisk
from raftkv.entry import make_entry
from raftkv.errors import InvalidArgument
from raftkv.kv import KeyValue
from raftkv.machine import (
    CLOSE_SESSION,
    NO_SESSION,
    OPEN_SESSION,
    Runner,
    access_payload,
    encode_command,
    open_owned_session,
)
from raftkv.model import GENESIS_CHAIN, EntryKind
from raftkv.state import SESSION_PREFIX, MemoryStore

OPEN = encode_command(NO_SESSION, 0, 0, OPEN_SESSION, msgspec.msgpack.encode(()))


class Book:
    """A runner on a store in memory, which can be started again."""

    def __init__(self, sessions_max: int = 4_096) -> None:
        self.store = MemoryStore.open(SimDisk(), "/state")
        self.sessions_max = sessions_max
        self.again()

    def apply(self, payload: bytes) -> int:
        """Apply a command as the next entry; returns the session that it has opened."""
        index = self.runner.applied.index + 1
        entry = make_entry(index, 1, 1_000 + index, EntryKind.COMMAND, payload, GENESIS_CHAIN)
        (outcome,) = self.runner.apply([entry])
        assert outcome is not None
        return msgspec.msgpack.decode(outcome.payload)

    def again(self) -> Runner:
        self.runner = Runner(KeyValue, self.store, sessions_max=self.sessions_max)
        return self.runner

    def use(self, session: int, sequence: int = 1) -> None:
        """Apply a command of a session."""
        put = KeyValue.methods["put"]
        self.apply(put.command_payload(session, sequence, 0, put.encode_args((b"a", b"v"), {})))

    def record(self, session: int) -> list[object]:
        """What is kept of it."""
        data = self.store.get(SESSION_PREFIX + b"s" + session.to_bytes(8, "big"))
        assert data is not None
        return msgspec.msgpack.decode(data)


def test_a_session_knows_its_owner_also_after_a_restart() -> None:
    """And after each use; what is not there has none."""
    book = Book()
    owned, free = book.apply(open_owned_session("ann")), book.apply(OPEN)
    for runner in (book.runner, book.again()):
        assert runner.session_owner(owned) == "ann"
        assert runner.session_owner(free) == ""
        assert runner.session_owner(99) is None
    book.use(owned)
    assert book.again().session_owner(owned) == "ann"


def test_a_session_of_nobody_stands_as_before_there_were_users() -> None:
    """Nodes of both kinds have the same digest of it, before and after a restart, and after a use."""
    book = Book()
    free = book.apply(OPEN)
    assert len(book.record(free)) == 3
    book.again()
    book.use(free)
    assert len(book.record(free)) == 3
    assert len(book.record(book.apply(open_owned_session("ann")))) == 4


def test_clients_can_not_send_it() -> None:
    """A leader refuses it before it gets into the log, as it refuses any command that the machine does not have."""
    with pytest.raises(InvalidArgument):
        Book().runner.check(open_owned_session("ann"))


def test_a_users_sessions_end_with_the_user() -> None:
    """Whoever gets the name later is not told the answers of before; sessions of others, and of nobody, stay."""
    book = Book()
    for user in ("ann", "anna"):
        book.apply(access_payload(AddUser(user)))
    theirs = [book.apply(open_owned_session("ann")) for _ in range(3)]
    others = {book.apply(open_owned_session("anna")): "anna", book.apply(OPEN): ""}
    for sequence in range(1, 6):
        book.use(theirs[1], sequence)
    before = list(book.store.scan(SESSION_PREFIX, b"\x02"))
    book.apply(access_payload(RemoveUser("ann")))
    book.apply(access_payload(AddUser("ann")))
    for runner in (book.runner, book.again()):
        assert [runner.session_owner(session) for session in theirs] == [None] * 3
        assert {session: runner.session_owner(session) for session in others} == others
    after = list(book.store.scan(SESSION_PREFIX, b"\x02"))
    assert len(before) == 3 + 2 + 5 and len(after) == 2


def test_a_session_ends_the_same_on_a_node_that_was_started_anew() -> None:
    """The answers that its client has not got go in the order of their numbers, not in that in which they came into
    memory: that is another one after a restart, and replicas would differ."""
    put = KeyValue.methods["put"]
    args, digests = put.encode_args((b"a", b"v"), {}), set()
    for is_restarted in (False, True):
        book = Book()
        session = book.apply(OPEN)
        for sequence in range(1, 41):
            book.apply(put.command_payload(session, sequence, 0, args))
        book.apply(put.command_payload(session, 41, 39, args))
        if is_restarted:
            book.again()
        book.apply(encode_command(session, 0, 0, CLOSE_SESSION, msgspec.msgpack.encode(())))
        digests.add(book.runner.applied.digest)
    assert len(digests) == 1


def crowded(*users: str, most: int = 4) -> Book:
    """Each opens a session, one after the other, where so many may be open."""
    book = Book(most)
    for user in users:
        book.apply(open_owned_session(user) if user else OPEN)
    return book


@pytest.mark.parametrize(
    ("users", "gone"),
    [
        ("abab", {1}),  # equally many: of both the one that was used first goes
        ("abbb", {2}),
        ("abbbb", {2, 3}),
        ("babbbbbb", {1, 3, 4, 5, 6}),
        ("abcdd", {1, 4}),
        (["", "a", "a", "a", ""], {2, 1}),
    ],
)
def test_who_opens_many_sessions_ends_nobody_s_who_has_fewer(users, gone) -> None:
    """Where no more may be open, whoever has most loses theirs, the least recently used one first; those of nobody are
    one user's. It is the same after a restart, though nodes come to know users in another order then."""
    for restarts in (False, True):
        book = crowded(*users)
        if restarts:
            book.again()
        book.apply(open_owned_session("e"))
        count = len(users) + 1
        open_now = {each for each in range(1, count + 1) if book.runner.session_owner(each) is not None}
        assert len(open_now) == 4
        assert {*range(1, count + 1)} - open_now == gone, open_now


def test_a_use_counts_among_ones_own_sessions() -> None:
    """What was used last stays, in memory as after a restart."""
    for restarts in (False, True):
        book = crowded("ann", "ann", "ann", "bob")
        book.use(1)
        if restarts:
            book.again()
        book.apply(open_owned_session("bob"))
        assert [book.runner.session_owner(each) for each in (1, 2, 3, 4)] == ["ann", None, "ann", "bob"]


@pytest.mark.parametrize("fewer", [(), ("cid",)])
def test_of_two_with_equally_many_whose_was_used_first_is_not_a_matter_of_whom_a_node_came_to_know_first(fewer) -> None:
    """Bob came first, and has used his first one again since. Whether somebody has fewer makes no difference."""
    for restarts in (False, True):
        book = crowded("bob", "ann", "bob", "ann", *fewer, most=4 + len(fewer))
        book.use(1)
        if restarts:
            book.again()
        book.apply(open_owned_session("eve"))
        assert [book.runner.session_owner(each) for each in (1, 2, 3, 4)] == ["bob", None, "bob", "ann"]
