"""Entries and their records: what is encoded comes back, and nothing else passes for it."""

from __future__ import annotations

import struct

import pytest
import xxhash
from hypothesis import example, given, settings
from hypothesis import strategies as st

from raftkv.entry import CHAIN_BYTES, HEADER_BYTES, Entry, make_entries, make_entry, parse_record, parse_records
from raftkv.errors import CorruptRecord
from raftkv.model import GENESIS_CHAIN, EntryId, EntryKind

u64 = st.integers(0, 2**64 - 1)
indexes = st.integers(1, 2**60)
payloads = st.binary(max_size=40)
kinds = st.sampled_from(EntryKind)


@st.composite
def logs(draw: st.DrawFn, least: int = 1, most: int = 5) -> tuple[int, int, list[Entry]]:
    """Consecutive, chained entries from some index on, behind the index and chain value before them."""
    prev_index, prev_chain = draw(indexes) - 1, draw(u64)
    entries: list[Entry] = []
    chain = prev_chain
    for index in range(prev_index + 1, prev_index + 1 + draw(st.integers(least, most))):
        entries.append(make_entry(index, draw(u64), draw(u64), draw(kinds), draw(payloads), chain))
        chain = entries[-1].chain
    return prev_index, prev_chain, entries


def joined(entries: list[Entry]) -> bytes:
    """Their records one behind the other, as in a batch on disk or in a message."""
    return b"".join(entry.record for entry in entries)


def three() -> list[Entry]:
    """The first three entries of a log, of different sizes."""
    return make_entries(1, 1, 1_000, EntryKind.COMMAND, [b"one", b"", b"three"], GENESIS_CHAIN)


def test_a_record_is_laid_out_as_documented() -> None:
    """Every byte of one record, put together by hand: disks hold it for ever (F24)."""
    entry = make_entry(7, 3, 1_700_000_000_123, EntryKind.COMMAND, b"hello", prev_chain=42)
    body = struct.pack("<I", 5) + struct.pack("<QQQ", 7, 3, 1_700_000_000_123) + b"\x01" + b"hello"
    assert entry.chain == xxhash.xxh3_64_intdigest(body, seed=42)
    assert entry.record == struct.pack("<Q", entry.chain) + body
    assert (CHAIN_BYTES, HEADER_BYTES) == (8, 37)


def test_a_record_is_the_same_on_every_machine() -> None:
    """Two records written down once: another hash, seed or byte order would make old logs unreadable (F24)."""
    first = make_entry(1, 1, 0, EntryKind.NOOP, b"", GENESIS_CHAIN)
    second = make_entry(2, 1, 5, EntryKind.COMMAND, b"x", first.chain)
    assert first.record.hex() == "2892f88020b1ca15" + "00000000" + "0100000000000000" * 2 + "0000000000000000" + "00"
    assert second.record.hex() == (
        "c3d67e66e03385d8" + "01000000" + "0200000000000000" + "0100000000000000" + "0500000000000000" + "01" + "78"
    )


def test_an_entry_is_short_to_look_at() -> None:
    """Its repr says index, term, kind and size; a payload may be private or large, and stays out."""
    entry = make_entry(7, 3, 0, EntryKind.MEMBERSHIP, b"secret", GENESIS_CHAIN)
    assert repr(entry) == "<7@3 membership 6 bytes>"
    assert entry.id == EntryId(term=3, index=7)
    assert entry.payload == b"secret"


@given(logs(least=0))
def test_records_come_back_as_the_entries_they_were(log: tuple[int, int, list[Entry]]) -> None:
    """Whatever index, term, time, kind and payload: parsing gives equal entries in order, from any buffer."""
    prev_index, prev_chain, entries = log
    assert parse_records(joined(entries), prev_index, prev_chain) == entries
    assert parse_records(memoryview(joined(entries)), prev_index, prev_chain) == entries


@given(logs(), st.binary(max_size=20), st.binary(max_size=20))
def test_a_record_is_read_from_the_middle_of_a_buffer(
    log: tuple[int, int, list[Entry]], before: bytes, behind: bytes
) -> None:
    """Its offset and its own length say where it is; what surrounds it does not matter."""
    _, prev_chain, (entry, *_) = log
    assert parse_record(before + entry.record + behind, len(before), prev_chain) == entry


@given(u64, st.lists(payloads, max_size=8), indexes, u64, u64, kinds)
def test_a_batch_is_made_as_its_entries_one_by_one(
    prev_chain: int, texts: list[bytes], first: int, term: int, time_ms: int, kind: EntryKind
) -> None:
    """`make_entries` is `make_entry` for each, with the chain carried on."""
    one_by_one: list[Entry] = []
    chain = prev_chain
    for index, text in enumerate(texts, first):
        one_by_one.append(make_entry(index, term, time_ms, kind, text, chain))
        chain = one_by_one[-1].chain
    assert make_entries(first, term, time_ms, kind, texts, prev_chain) == one_by_one


@given(logs(least=2), st.integers(0, 4), st.sampled_from(["term", "time_ms", "kind", "payload"]))
def test_equal_chain_values_mean_equal_logs(log: tuple[int, int, list[Entry]], place: int, field: str) -> None:
    """An entry that differs in anything changes the chain value of every entry behind it (Log Matching, §5.3)."""
    _, prev_chain, entries = log
    place %= len(entries)
    chain = prev_chain
    for at, entry in enumerate(entries):
        values = {"term": entry.term, "time_ms": entry.time_ms, "kind": entry.kind, "payload": entry.payload}
        if at == place:
            values[field] = values[field] + b"!" if field == "payload" else (values[field] + 1) % 3
        other = make_entry(entry.index, prev_chain=chain, **values)
        assert (other.chain == entry.chain) == (at < place)
        chain = other.chain


def test_every_damaged_bit_is_detected() -> None:
    """Each bit of three records is flipped, one at a time: it never passes for a log, nor for a shorter one (F9)."""
    whole = joined(three())
    for bit in range(len(whole) * 8):
        damaged = bytearray(whole)
        damaged[bit // 8] ^= 1 << bit % 8
        with pytest.raises(CorruptRecord):
            parse_records(bytes(damaged), 0, GENESIS_CHAIN)


def test_every_damaged_byte_is_detected_whatever_it_becomes() -> None:
    """Each byte of a record takes each other value, zero and 0xff among them (F9)."""
    whole = three()[0].record
    for at, was in enumerate(whole):
        for value in range(256):
            if value != was:
                with pytest.raises(CorruptRecord):
                    parse_records(whole[:at] + bytes([value]) + whole[at + 1 :], 0, GENESIS_CHAIN)


def test_every_cut_is_detected_and_what_is_whole_is_told_apart() -> None:
    """Cut after any byte: an error, unless a record ends just there; then it is the shorter log (F8)."""
    entries = three()
    whole = joined(entries)
    ends = {len(joined(entries[:count])): entries[:count] for count in range(len(entries) + 1)}
    for cut in range(len(whole) + 1):
        if cut in ends:
            assert parse_records(whole[:cut], 0, GENESIS_CHAIN) == ends[cut]
        else:
            with pytest.raises(CorruptRecord):
                parse_records(whole[:cut], 0, GENESIS_CHAIN)


@given(logs(most=3), st.data())
@settings(max_examples=200)
def test_any_overwritten_stretch_is_detected(log: tuple[int, int, list[Entry]], data: st.DataObject) -> None:
    """A sector of other bytes, or of zeros, somewhere in the records (F8, F19)."""
    prev_index, prev_chain, entries = log
    whole = joined(entries)
    start = data.draw(st.integers(0, len(whole) - 1))
    size = data.draw(st.integers(1, len(whole) - start))
    other = data.draw(st.one_of(st.just(bytes(size)), st.binary(min_size=size, max_size=size)))
    damaged = whole[:start] + other + whole[start + size :]
    if damaged != whole:
        with pytest.raises(CorruptRecord):
            parse_records(damaged, prev_index, prev_chain)


@given(logs(), st.binary(min_size=1, max_size=100))
@example((0, 0, three()), b"\x00")
@example((0, 0, three()), bytes(HEADER_BYTES))
def test_anything_behind_the_last_record_is_detected(log: tuple[int, int, list[Entry]], tail: bytes) -> None:
    """A buffer holds whole records and nothing else; zeros behind them are no empty record (F8)."""
    prev_index, prev_chain, entries = log
    with pytest.raises(CorruptRecord):
        parse_records(joined(entries) + tail, prev_index, prev_chain)


@pytest.mark.parametrize(
    "order", [(1, 0, 2), (0, 2, 1), (2, 1, 0), (0, 0, 1), (0, 1, 1), (0, 2), (1, 2), (2,)], ids=str
)
def test_whole_records_in_another_order_are_detected(order: tuple[int, ...]) -> None:
    """Swapped, repeated or left out: the chain of what stands behind does not fit (F19, F28)."""
    entries = three()
    with pytest.raises(CorruptRecord):
        parse_records(joined([entries[at] for at in order]), 0, GENESIS_CHAIN)


def test_a_sound_record_of_another_log_is_detected() -> None:
    """The same entry, behind another log: its own bytes are whole, but not its chain (F19)."""
    ours = make_entries(1, 1, 0, EntryKind.COMMAND, [b"a", b"x"], GENESIS_CHAIN)
    theirs = make_entries(1, 1, 0, EntryKind.COMMAND, [b"b", b"x"], GENESIS_CHAIN)
    assert ours[1].payload == theirs[1].payload
    with pytest.raises(CorruptRecord, match="does not match its checksum"):
        parse_records(ours[0].record + theirs[1].record, 0, GENESIS_CHAIN)


@given(logs(), u64)
def test_records_behind_another_chain_value_are_detected(log: tuple[int, int, list[Entry]], other: int) -> None:
    """They are whole, but belong somewhere else (F19)."""
    prev_index, prev_chain, entries = log
    if other != prev_chain:
        with pytest.raises(CorruptRecord):
            parse_records(joined(entries), prev_index, other)


@given(logs(), indexes)
def test_records_at_another_index_are_detected(log: tuple[int, int, list[Entry]], other: int) -> None:
    """The chain fits, but a batch written to a wrong place says another index than the place does (F19)."""
    prev_index, prev_chain, entries = log
    if other != prev_index:
        with pytest.raises(CorruptRecord, match=f"index {prev_index + 1} stands where {other + 1} belongs"):
            parse_records(joined(entries), other, prev_chain)


def test_a_gap_between_chained_records_is_detected() -> None:
    """Chain values alone would not notice an index that a faulty writer left out."""
    first = make_entry(1, 1, 0, EntryKind.COMMAND, b"a", GENESIS_CHAIN)
    third = make_entry(3, 1, 0, EntryKind.COMMAND, b"c", first.chain)
    with pytest.raises(CorruptRecord, match="index 3 stands where 2 belongs"):
        parse_records(joined([first, third]), 0, GENESIS_CHAIN)


def test_a_length_beyond_the_buffer_is_told_as_such() -> None:
    """Four gigabytes announced in a few bytes: no allocation, an error that says both numbers' meaning."""
    record = bytearray(three()[0].record)
    record[8:12] = b"\xff\xff\xff\xff"
    with pytest.raises(CorruptRecord, match="says 4294967295 payload bytes, more than there are"):
        parse_record(bytes(record), 0, GENESIS_CHAIN)


def test_a_kind_of_a_newer_version_is_told_as_such() -> None:
    """A whole record whose kind is unknown is no bit rot; its error speaks of the version (F24)."""
    unknown = max(EntryKind) + 1
    record = make_entry(1, 1, 0, unknown, b"", GENESIS_CHAIN).record
    with pytest.raises(CorruptRecord, match=f"has kind {unknown}, of a newer version of raftkv"):
        parse_record(record, 0, GENESIS_CHAIN)


def test_an_error_names_the_byte() -> None:
    """Whoever looks into the file with a hex editor finds the place."""
    entries = three()
    whole = bytearray(joined(entries))
    whole[-1] ^= 1
    place = len(joined(entries[:2]))
    with pytest.raises(CorruptRecord, match=f"the record at byte {place} does not match its checksum"):
        parse_records(bytes(whole), 0, GENESIS_CHAIN)
    with pytest.raises(CorruptRecord, match=f"header at byte {place} is cut short"):
        parse_records(bytes(whole[: place + 3]), 0, GENESIS_CHAIN)
