"""The little language of transactions."""

from __future__ import annotations

import pytest

from raftkv.cli.txn import parse_transaction
from raftkv.errors import InvalidArgument
from raftkv.kv import ChangedAt, Delete, Exists, Get, Increment, Missing, Put, ValueIs, VersionIs


def test_every_line_has_its_meaning():
    """Conditions, operations, and operations for when the conditions do not hold."""
    plan = parse_transaction(
        [
            "if exists a", "if missing b", "if value c 'two words'", "if version d 3", "if changed e 17",
            "put f g", "then delete h", "increment i", "increment j -4", "get k",
            "else put l m", "else get n", "", "# a remark",
        ],
        str.encode,
    )  # fmt: skip
    assert plan.conditions == [
        Exists(b"a"),
        Missing(b"b"),
        ValueIs(b"c", b"two words"),
        VersionIs(b"d", 3),
        ChangedAt(b"e", 17),
    ]
    assert plan.then == [Put(b"f", b"g"), Delete(b"h"), Increment(b"i"), Increment(b"j", -4), Get(b"k")]
    assert plan.otherwise == [Put(b"l", b"m"), Get(b"n")]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("if", "a condition is one of"),
        ("if value a", "a condition is one of"),
        ("if version a b", "'b' must be a whole number"),
        ("increment a 9223372036854775808", "does not fit 64 bits"),
        ("if version a 99999999999999999999", "does not fit 64 bits"),
        ("put a", "an operation is one of"),
        ("else", "an operation is one of"),
        ("rename a b", "an operation is one of"),
        ("put 'a b", "No closing quotation"),
        ("# nothing", "at least one line"),
    ],
)
def test_a_line_that_makes_no_sense_is_named(line, said):
    """Nothing is sent when one line is wrong."""
    with pytest.raises(InvalidArgument) as raised:
        parse_transaction([line], str.encode)
    assert said in str(raised.value)
