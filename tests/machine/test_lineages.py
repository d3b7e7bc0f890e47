"""A cluster that goes on from another one: which cursors count in it, and that no number is handed out twice."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
import xxhash

from raftkv import Part
from raftkv.disk.simulated import SimDisk
from raftkv.entry import make_entry
from raftkv.errors import InvalidArgument, MachineFailed
from raftkv.history import BEGINNING, Cursor, OtherLineage, lineage_of
from raftkv.machine import BEGIN_LINEAGE, NO_SESSION, Runner, encode_command, lineage_payload
from raftkv.machine.lineages import NUMBERS_A_MS, Ancestor, Lineages
from raftkv.model import EntryKind
from raftkv.recipes import Barriers, IdempotencyKeys, Locks, Queues
from raftkv.state import LINEAGE_KEY, MemoryStore

ROOT, FIRST, SECOND, OTHER = (each * 32 for each in "abcd")
"""A cluster that began empty, one restored from it, one restored from that, and one of elsewhere."""
CHAIN = Lineages().behind(Ancestor(ROOT, 100)).behind(Ancestor(FIRST, 200))
"""What `SECOND` goes on from."""


class Recipes(Locks):
    """All that hands out numbers for good."""

    barriers = Part(Barriers)
    queues = Part(Queues)
    keys = Part(IdempotencyKeys)


class Node:
    """A replica of a machine of locks and more, to which entries are fed."""

    def __init__(self, time_ms: int = 1_000) -> None:
        self.store = MemoryStore.open(SimDisk(), "/state")
        self.runner = Runner(Recipes, self.store)
        self.time_ms = time_ms

    def apply(self, payload: bytes, kind: EntryKind = EntryKind.COMMAND) -> bytes:
        """Apply the next entry; the result of its command."""
        applied = self.runner.applied
        (outcome,) = self.runner.apply([make_entry(applied.index + 1, 1, self.time_ms, kind, payload, applied.digest)])
        return b"" if outcome is None else outcome.payload

    def run(self, name: str, *args: Any) -> Any:
        """Apply a command; its result."""
        method = Recipes.methods[name]
        return method.decode_result(self.apply(method.command_payload(NO_SESSION, 0, 0, method.encode_args(args, {}))))

    def token(self, owner: str) -> int:
        """Have `owner` take a lock of its own."""
        token: int = self.run("acquire", owner, owner, 60.0)
        return token

    def numbers(self) -> list[int]:
        """One of each kind that is handed out."""
        job = self.run("queues.put", "q", "work")
        receipt = self.run("queues.take", "q").receipt
        name = f"{self.runner.applied.index}"
        return [
            job,
            receipt,
            self.run("keys.begin", name).token,
            self.run("barriers.enter", name, name, 1),
            self.token(name),
        ]

    def copy(self) -> Node:
        """Another node with the same state."""
        found = Node(self.time_ms)
        found.store.write(dict(self.store.scan(b"", None)), self.store.applied)
        found.runner = Runner(Recipes, found.store)
        return found

    def restored(self, time_ms: int) -> Node:
        """A cluster that goes on from this state, with its first leader."""
        found = self.copy()
        found.apply(lineage_payload(ROOT, self.runner.applied.index))
        found.time_ms = time_ms
        found.apply(b"", EntryKind.NOOP)
        return found


@pytest.mark.parametrize(
    ("cursor", "common"),
    [
        (Cursor(250, 0, lineage_of(SECOND)), "own"),
        (Cursor(200, 7, lineage_of(FIRST)), "ancestor"),
        (Cursor.behind(200, lineage_of(FIRST)), "ancestor"),
        (Cursor(201, 0, lineage_of(FIRST)), 200),
        (Cursor.behind(100, lineage_of(ROOT)), "ancestor"),
        (Cursor(101, 0, lineage_of(ROOT)), 100),
        (Cursor(150, 0, lineage_of(ROOT)), 100),
        (Cursor.behind(100), "said by nobody"),
        (BEGINNING, "said by nobody"),
        (Cursor(101, 0), 100),
        (Cursor(250, 0), 100),
        (Cursor(5, 0, lineage_of(OTHER)), None),
    ],
)
def test_a_cursor_counts_up_to_where_its_cluster_is_the_same(cursor, common):
    """Of this cluster: anywhere. Of an earlier one, or where nobody has said it: up to where the two part."""
    if isinstance(common, str):
        CHAIN.check(cursor, SECOND)
        return
    with pytest.raises(OtherLineage, match="read the table as it is, and go on behind the cursor of that") as refused:
        CHAIN.check(cursor, SECOND)
    assert (refused.value.cursor, refused.value.common) == (cursor, common)


def test_in_a_cluster_that_began_empty_what_nobody_has_said_is_its_own():
    """But not what is said to be of another one."""
    Lineages().check(Cursor(900, 0), ROOT)
    Lineages().check(Cursor(900, 0, lineage_of(ROOT)), ROOT)
    with pytest.raises(OtherLineage):
        Lineages().check(Cursor(1, 0, lineage_of(FIRST)), ROOT)


def test_a_cluster_that_is_gone_on_from_earlier_parts_from_all_at_once():
    """A survivor may certainly have less than where its own cluster began."""
    found = CHAIN.behind(Ancestor(SECOND, 50))
    assert [each.index for each in found.ancestors] == [50, 50, 50]
    with pytest.raises(OtherLineage):
        found.check(Cursor(60, 0, lineage_of(ROOT)), OTHER)


@pytest.mark.parametrize(
    ("cursor", "text"),
    [
        (Cursor(12, 3, "0f1e2d3c4b5a"), "12.3@0f1e2d3c4b5a"),
        (Cursor.behind(12, "0f1e2d3c4b5a"), "12@0f1e2d3c4b5a"),
        (Cursor(12, 3), "12.3"),
        (Cursor.behind(12), "12"),
    ],
)
def test_a_cursor_is_read_again_as_it_is_written(cursor, text):
    """With the cluster, where that is known; as text, and packed."""
    assert str(cursor) == text and Cursor.parse(text) == cursor
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(cursor), type=Cursor) == cursor


@pytest.mark.parametrize("text", ["12@", "12.3@0f1e", "12@0f1e2d3c4b5g", "@0f1e2d3c4b5a", "12@0f1e2d3c4b5a0"])
def test_half_a_lineage_is_none(text):
    """A text that was cut is no cursor, instead of one of another cluster."""
    with pytest.raises(InvalidArgument, match="is no cursor"):
        Cursor.parse(text)


def test_a_packed_cursor_of_before_clusters_were_said_is_read():
    """As clients that know nothing of them send it."""
    assert msgspec.msgpack.decode(msgspec.msgpack.encode((12, 3)), type=Cursor) == Cursor(12, 3)


def test_what_a_cluster_goes_on_from_is_in_its_state_and_digest():
    """A node that gets a snapshot has it too; nothing is said before the entry is there."""
    node = Node()
    node.token("ann")
    assert node.runner.lineages == Lineages()
    plain, restored = node.copy(), node.restored(5_000)
    plain.apply(lineage_payload(OTHER, 1))
    plain.time_ms = 5_000
    plain.apply(b"", EntryKind.NOOP)
    assert restored.runner.lineages == restored.copy().runner.lineages == Lineages((Ancestor(ROOT, 1),), 5_000)
    assert plain.runner.applied.digest != restored.runner.applied.digest
    before = restored.runner.lineages
    restored.time_ms += 1_000
    restored.apply(b"", EntryKind.NOOP)
    assert restored.runner.lineages == before, "only the first leader counts"


def test_a_leader_of_a_cluster_that_began_empty_leaves_its_state_alone():
    """Nothing is written, and the digest is that of older nodes."""
    node = Node()
    node.apply(b"", EntryKind.NOOP)
    chain = make_entry(1, 1, node.time_ms, EntryKind.NOOP, b"", 0).chain
    assert node.store.get(LINEAGE_KEY) is None
    assert node.runner.applied.digest == xxhash.xxh3_64_intdigest(msgspec.msgpack.encode(chain), 0)


def test_a_token_is_higher_than_all_that_the_old_cluster_has_handed_out_since_the_backup():
    """Resources that have seen those of the old one never meet an equal one; nor of two clusters that were begun with
    one backup, one after the other."""
    old = Node()
    old.token("ann")
    first, second = old.restored(7_000), old.restored(8_000)
    of_old = [old.token(f"old {number}") for number in range(50)]
    of_first = [first.token(f"new {number}") for number in range(300)]
    of_second = [second.token(f"newer {number}") for number in range(3)]
    assert max(of_old) < min(of_first) and max(of_first) < min(of_second)
    assert min(of_first) > 7_000 * NUMBERS_A_MS
    again = first.copy()
    assert again.token("later") == first.token("later") > max(of_first)


def test_no_number_of_any_recipe_is_handed_out_again():
    """Jobs, receipts, and tokens of keys, barriers and locks: what the old cluster has told of them since the backup is
    of nothing else in the new one."""
    old = Node()
    old.numbers()
    new = old.restored(7_000)
    of_old, of_new = [old.numbers() for _ in range(50)], [new.numbers() for _ in range(50)]
    for before, after in zip(zip(*of_old, strict=True), zip(*of_new, strict=True), strict=True):
        assert max(before) < min(after) and list(after) == sorted(set(after))


@pytest.mark.parametrize("time_ms", [7_000, 6_999, 1], ids=["it stands still", "it went back", "it was reset"])
def test_tokens_rise_where_time_has_not_gone_on_since_the_cluster_before_began(time_ms):
    """As on a machine whose clock is behind: however often a cluster goes on from one that goes on from another."""
    cluster, highest = Node(), 0
    for _ in range(5):
        cluster.token(f"backed up {highest}")
        restored = cluster.restored(time_ms if highest else 7_000)
        tokens = [cluster.token(f"since then {number} {highest}") for number in range(50)]
        assert highest < min(tokens)
        cluster, highest = restored, max(tokens)
    assert cluster.token("the last one's") > highest


def test_parties_that_came_before_a_restore_are_of_one_round_behind_it():
    """They are let in when those before them have left, and know how long the others are inside."""
    old = Node()
    inside = [old.run("barriers.enter", "b", owner, 2, 10.0, 60.0) for owner in "ab"][-1]
    assert [old.run("barriers.enter", "b", owner, 2, 10.0, 60.0) for owner in "cd"] == [0, 0]
    new = old.restored(7_000)
    for token in (inside - 1, inside):
        new.run("barriers.release", "b", token)
    instance = new.runner.instance.barriers
    tokens = [instance.token_of("b", owner) for owner in "cd"]
    assert tokens[0] > 7_000 * NUMBERS_A_MS and [instance.is_on("b", token) for token in tokens] == [True, True]
    new.run("barriers.release", "b", tokens[0])
    assert [instance.is_on("b", token) for token in tokens] == [True, True], "the other one is inside still"


def test_what_a_cluster_goes_on_from_must_be_readable():
    """Or the node stops before it."""
    node = Node()
    with pytest.raises(MachineFailed, match="in a way that can't be read"):
        node.apply(encode_command(NO_SESSION, 0, 0, BEGIN_LINEAGE, msgspec.msgpack.encode([3])))
    assert node.runner.applied.index == 0 and node.runner.lineages == Lineages()
