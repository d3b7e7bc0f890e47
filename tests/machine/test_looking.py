"""Queries that every machine answers, of what it declares and keeps; and methods made from a schema alone."""

from __future__ import annotations

import contextlib

import msgspec
import pytest

from raftkv import LocalMachine, Rejected, StateMachine, Table, Value, command, query
from raftkv.errors import InvalidArgument, TooMuchWork
from raftkv.machine import NO_SESSION, ROWS, SCHEMA, decode_schema, encode_query, mirrored
from raftkv.machine.looking import PAGE_BYTES_MAX, ROWS_MAX
from tests.cli.depot import Depot, Item, Place
from tests.shop import First, Second


def ask(local, look, *args):
    """The answer of such a query."""
    return look.decode_result(local.query_raw(look.query_payload(look.encode_args(args, {}))))


def filled(count):
    """A machine with so many rows in each table."""
    local = LocalMachine(Depot)
    local.fill("x", count)
    return local


def test_pages_are_the_whole_table_in_order_both_ways():
    """Whatever the size of pages: no row is missed or read twice, and bounds hold."""
    local = filled(23)
    wanted = [f"x{number:05}" for number in range(23)]
    for size in (1, 2, 7, 22, 23, 24):
        keys, start = [], b""
        while start is not None and len(keys) <= len(wanted):
            page = ask(local, ROWS, "items", start, None, size, False)
            assert len(page.rows) <= size
            keys, start = keys + [key for key, _ in page.rows], page.next
        assert keys == wanted
        keys, end = [], b"x00020"
        while len(keys) <= len(wanted):
            page = ask(local, ROWS, "items", b"x00003", end, size, True)
            keys, end = keys + [key for key, _ in page.rows], page.next
            if end is None:
                break
        assert keys == wanted[3:20][::-1]


def test_a_page_is_bounded_in_rows_and_bytes():
    """However much is asked for; but one row is in it, however large."""
    local = filled(ROWS_MAX + 5)
    page = ask(local, ROWS, "numbers", b"", None, 10**9, False)
    assert len(page.rows) == ROWS_MAX and page.next is not None
    for key in (b"a", b"b", b"c"):
        local.keep(key, bytes(PAGE_BYTES_MAX * 3 // 5))
    assert [key for key, _ in ask(local, ROWS, "blobs", b"", None, 9, False).rows] == [b"a"]
    assert ask(local, ROWS, "blobs", b"", None, 0, False).rows == []


def test_no_bounds_lead_out_of_the_table():
    """Neither into the next table nor into what nodes keep beside tables."""
    local = filled(3)
    for start, end in [(b"", b"\xff" * 99), (b"\xff" * 99, None), (b"z", b"a"), (b"", b"")]:
        for reverse in (False, True):
            page = ask(local, ROWS, "items", start, end, 99, reverse)
            assert all(key.startswith("x") for key, _ in page.rows)
    with pytest.raises(Rejected, match="LookupError: Depot has no table or value 'find'"):
        ask(local, ROWS, "find", b"", None, 1, False)


@pytest.mark.parametrize("reverse", [False, True])
def test_a_query_that_may_read_no_more_says_where_to_go_on(reverse):
    """With what it has read; so all rows are read, in both directions."""
    local = filled(20)
    runner = local._runner
    keys, bounds = [], [b"", None]
    for _ in range(20):
        slices = iter([5])

        def more(position, slices=slices):
            for allowed in slices:
                return allowed
            raise TooMuchWork("no more", position)

        with contextlib.closing(runner.store.view()) as view:
            payload = ROWS.query_payload(ROWS.encode_args(("items", *bounds, 99, reverse), {}))
            page = ROWS.decode_result(runner.query_view(view, payload, more))
        assert len(page.rows) <= 6
        keys += [key for key, _ in page.rows]
        if page.next is None:
            break
        bounds[1 if reverse else 0] = page.next
    assert keys == sorted({f"x{number:05}" for number in range(20)}, reverse=reverse)


def test_the_schema_is_the_active_versions():
    """Of a class of version 2 while version 1 is active, as version 1 has declared it; then of version 2."""
    local = LocalMachine(Second, begun_by=First, version=1)
    assert decode_schema(ask(local, SCHEMA)) == First.schema()
    local.upgrade()
    assert decode_schema(ask(local, SCHEMA)) == Second.schema()


def test_methods_made_from_a_schema_send_what_the_class_sends():
    """The same bytes for the same values, defaults of records in arrays too; results are dicts, lists and values."""
    made = mirrored(Depot.schema())
    item = made["store"].types["item"]
    for text in ('{"sku": "a"}', '{"sku": "a", "places": [["north"], ["south", 3]], "seal": "AAE="}'):
        own = msgspec.json.decode(text, type=Item)
        likewise = msgspec.json.decode(text, type=item)
        taken = Depot.methods["store"].decode_args(msgspec.Raw(made["store"].encode_args((likewise, 2), {})))
        assert taken == (own, 2)
    assert made["keep"].encode_args((b"k", None), {}) == Depot.methods["keep"].encode_args((b"k", None), {})
    assert made["find"].decode_result(Depot.methods["find"].encode_result(Item("a", [Place("north")]))) == {
        "sku": "a",
        "places": [["north", 7]],
        "seal": b"",
    }
    assert made["find"].is_query and not made["store"].is_query
    with pytest.raises(InvalidArgument, match=r"find\(sku: str\) -> Item: missing a required argument"):
        made["find"].encode_args((), {})


def test_no_class_can_declare_such_a_query_and_commands_have_no_such_names():
    """Their names are no words; as a command they are unknown."""
    local = LocalMachine(Depot)
    with pytest.raises(InvalidArgument, match="no query"):
        local.query_raw(encode_query("*none", msgspec.msgpack.encode(())))
    with pytest.raises(InvalidArgument, match="no command"):
        local._runner.check(ROWS.command_payload(NO_SESSION, 0, 0, msgspec.msgpack.encode(())))


def test_a_value_is_a_row_without_a_key():
    """At its default before it is set."""

    class Counter(StateMachine):
        """Counts."""

        count = Value(int, 5)
        others = Table(str, int)

        @command
        def add(self) -> None:
            """One more."""
            self.count += 1

        @query
        def read(self) -> int:
            """How many."""
            return self.count

    local = LocalMachine(Counter)
    assert ask(local, ROWS, "count", b"", None, 1, False).rows == [(None, 5)]
    local.add()
    assert ask(local, ROWS, "count", b"", None, 1, False).rows == [(None, 6)]
