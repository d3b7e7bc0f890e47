"""Users and roles in the state of any machine: applied once, in the digest, read back, and told to whoever asks."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from raftkv.access import (
    ROOT,
    Access,
    AccessChange,
    AddRole,
    AddToken,
    AddUser,
    GiveRole,
    RemoveUser,
    TurnOn,
    encode_access_change,
)
from raftkv.disk.simulated import SimDisk
from raftkv.entry import Entry
from raftkv.errors import InvalidArgument, MachineFailed, StateCorruption
from raftkv.machine import CHANGE_ACCESS, OPEN_SESSION, Runner, access_payload, encode_command, read_rejection
from raftkv.machine.outcome import OutcomeKind
from raftkv.state import ACCESS_PREFIX, Applied, MemoryStore, Store
from tests.access.people import HASH, digest
from tests.machine.test_runner import Chain, Counter, get

CHANGES = (AddUser("boss", HASH, (ROOT,)), AddRole("clerk"), AddUser("ann", "", ("clerk",)), TurnOn())


def entry_of(chain: Chain, change: AccessChange, *, session: int = 0, sequence: int = 0) -> Entry:
    """An entry with a change, in a session or in none."""
    return chain.entry(encode_command(session, sequence, 0, CHANGE_ACCESS, encode_access_change(change)))


class Line:
    """A machine, and what it tells of users and roles."""

    def __init__(self, store: Store | None = None) -> None:
        self.told: list[tuple[int, Access]] = []
        self.store = store if store is not None else MemoryStore.open(SimDisk(), "/s")
        self.runner = Runner(Counter, self.store, on_access=self._tell)

    def _tell(self, access: Access) -> None:
        self.told.append((access.generation, access))


def test_changes_are_applied_and_told_once_for_a_batch() -> None:
    """When they are written; commands beside them go on as ever, and tell nothing."""
    line, chain = Line(), Chain()
    assert [generation for generation, _ in line.told] == [0]
    outcomes = line.runner.apply([entry_of(chain, CHANGES[0]), chain.call("add", "a", 1), entry_of(chain, CHANGES[1])])
    assert [outcome and outcome.kind for outcome in outcomes] == [OutcomeKind.APPLIED] * 3
    assert [generation for generation, _ in line.told] == [0, 2]
    assert line.runner.access is line.told[-1][1] and line.runner.access.rights("boss").is_root
    line.runner.apply([chain.call("add", "a", 1)])
    assert len(line.told) == 2 and get(line.runner, "a") == 2


def test_a_change_that_is_not_possible_is_rejected_and_the_same_everywhere() -> None:
    """With the reason's name; it has no effect, and is told to nobody."""
    line, chain = Line(), Chain()
    (outcome,) = line.runner.apply([entry_of(chain, RemoveUser("ann"))])
    assert outcome is not None and outcome.kind is OutcomeKind.REJECTED
    assert read_rejection(outcome.payload).error_type == "UnknownUser"
    assert len(line.told) == 1 and not list(line.store.scan(ACCESS_PREFIX, None))


def test_they_are_read_back_from_the_state() -> None:
    """After a restart, and on a node that got the state as a snapshot: the same users, roles and generation."""
    line, chain = Line(), Chain()
    line.runner.apply([entry_of(chain, change) for change in CHANGES])
    again = Line(line.store)
    assert [generation for generation, _ in again.told] == [4]
    access = again.runner.access
    assert access.is_on and access.users == line.runner.access.users and access.roles == {"clerk": ()}
    again.runner.apply([entry_of(chain, RemoveUser("ann"))])
    assert set(Line(line.store).runner.access.users) == {"boss"}


def test_replicas_with_the_same_log_have_equal_digests_however_it_is_cut() -> None:
    """One batch, single entries, or a restart in the middle: the same digest, and the same bytes."""
    chain, runs = Chain(), [Line(), Line(), Line()]
    entries = [entry_of(chain, change) for change in (*CHANGES, RemoveUser("boss"), AddUser("ann"))]
    entries.append(chain.call("add", "a", 1))
    runs[0].runner.apply(entries)
    for entry in entries:
        runs[1].runner.apply([entry])
    runs[2].runner.apply(entries[:3])
    runs[2] = Line(runs[2].store)
    runs[2].runner.apply(entries[3:])
    assert len({each.runner.applied.digest for each in runs}) == 1
    assert len({tuple(each.store.scan(b"\x00", None)) for each in runs}) == 1


def test_a_retry_in_a_session_is_applied_once() -> None:
    """It gets the first answer: the user is added once, and who removed them meanwhile is not undone."""
    line, chain = Line(), Chain()
    (opened,) = line.runner.apply([chain.call(OPEN_SESSION)])
    assert opened is not None
    session: int = msgspec.msgpack.decode(opened.payload)
    add = {"session": session, "sequence": 1}
    outcomes = line.runner.apply(
        [
            entry_of(chain, AddUser("ann"), **add),
            entry_of(chain, RemoveUser("ann")),
            entry_of(chain, AddUser("ann"), **add),
        ]
    )
    assert [outcome and outcome.kind for outcome in outcomes] == [OutcomeKind.APPLIED] * 3
    assert not line.runner.access.users and line.runner.access.generation == 2


def test_a_token_ends_by_the_logs_time() -> None:
    """The entry's time decides what is over in the state, not any clock: the same on every node."""
    line, chain = Line(), Chain()
    line.runner.apply([entry_of(chain, AddUser("ann")), entry_of(chain, AddToken("ann", digest(1), 500))])
    assert line.runner.access.tokens[digest(1)].expires_ms == chain.now_ms + 500
    chain.now_ms += 500
    line.runner.apply([entry_of(chain, AddToken("ann", digest(2), None))])
    assert set(line.runner.access.tokens) == {digest(2)}


def test_no_client_can_send_a_change() -> None:
    """The command has a name that no method can have, and is refused before the log, whatever it holds."""
    line = Line()
    for args in (encode_access_change(AddUser("ann")), b"\x90", b"\xc0"):
        with pytest.raises(InvalidArgument, match="has no command"):
            line.runner.check(encode_command(0, 0, 0, CHANGE_ACCESS, args))
    assert not CHANGE_ACCESS.isidentifier()


def test_a_change_of_a_later_raftkv_stops_before_it() -> None:
    """To go on without it would make this node's users others than everybody's."""
    line, chain = Line(), Chain()
    later: Any = msgspec.msgpack.encode(["BuyLunch", "ann"])
    with pytest.raises(MachineFailed, match="Start this node with the version of raftkv"):
        line.runner.apply([entry_of(chain, AddUser("ann")), chain.entry(encode_command(0, 0, 0, CHANGE_ACCESS, later))])
    assert line.runner.applied.index == 1 and set(line.runner.access.users) == {"ann"}
    assert [generation for generation, _ in line.told] == [0, 1]


def test_a_damaged_record_is_found_at_the_start() -> None:
    """The node rebuilds its state then; nobody is let in by guess."""
    store = MemoryStore.open(SimDisk(), "/s")
    store.write({ACCESS_PREFIX + b"uann": b"\xc1"}, Applied())
    with pytest.raises(StateCorruption, match="users and roles"):
        Line(store)


def test_the_payload_of_a_change_is_a_command_of_raftkvs_own() -> None:
    """As a leader puts it into the log."""
    line, chain = Line(), Chain()
    line.runner.apply([chain.entry(access_payload(AddUser("ann")))])
    assert set(line.runner.access.users) == {"ann"}


def test_a_replica_whose_users_differ_is_found_by_its_digest() -> None:
    """The log is the same, but a hash was exchanged on one disk: the next change of that user shows it."""
    chain, runs = Chain(), [Line(), Line()]
    first = [entry_of(chain, change) for change in CHANGES]
    for line in runs:
        line.runner.apply(first)
    applied, place = runs[1].store.applied, ACCESS_PREFIX + b"uboss"
    record = runs[1].store.get(place)
    assert record is not None
    runs[1].store.write({place: record.replace(b"hash", b"evil")}, applied)
    runs[1] = Line(runs[1].store)
    assert runs[0].runner.applied == runs[1].runner.applied
    change = entry_of(chain, GiveRole("boss", "clerk"))
    for line in runs:
        line.runner.apply([change])
    assert runs[0].runner.applied.digest != runs[1].runner.applied.digest
