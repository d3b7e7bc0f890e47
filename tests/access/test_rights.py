"""Decisions: what the grants of a user's roles allow, and that all else is refused."""

from __future__ import annotations

import itertools
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raftkv.access import NO_RIGHTS, Grant, Rights, Touch
from raftkv.access.rights import DECISIONS_MAX, NAME_CHARS_MAX, matches


def rights(*grants: tuple[str, str | bytes]) -> Rights:
    """Of somebody with these grants."""
    return Rights([Grant(what, pattern) for what, pattern in grants])


@pytest.mark.parametrize(
    ("pattern", "name", "fits"),
    [
        ("put", "put", True),
        ("put", "put_all", False),
        ("put", "Put", False),
        ("put*", "put", True),
        ("put*", "put_all", True),
        ("*put", "output", True),
        ("*put", "puts", False),
        ("*", "", True),
        ("*", "anything.at.all", True),
        ("locks.*", "locks.acquire", True),
        ("locks.*", "locksmith", False),
        ("locks.*", "locks", False),
        ("a*b*c", "abc", True),
        ("a*b*c", "a-b-b-c", True),
        ("a*b*c", "acb", False),
        ("a*bc*c", "abc", False),
        ("aa*aa", "aaa", False),
        ("aa*aa", "aaaa", True),
        ("**", "x", True),
        ("get.", "getx", False),
    ],
)
def test_a_name_is_of_a_pattern_or_not(pattern: str, name: str, fits: bool) -> None:
    """A star stands for any characters, also none, also dots; everything else stands for itself."""
    assert matches(pattern, name) is fits


@given(st.text("ab*", max_size=6), st.text("ab", max_size=8))
def test_patterns_mean_what_a_naive_reading_says(pattern: str, name: str) -> None:
    """The quick way agrees with trying all ways."""

    def naive(pattern: str, name: str) -> bool:
        if not pattern:
            return not name
        if pattern[0] == "*":
            return any(naive(pattern[1:], name[at:]) for at in range(len(name) + 1))
        return name[:1] == pattern[0] and naive(pattern[1:], name[1:])

    assert matches(pattern, name) is naive(pattern, name)


def test_a_hostile_name_takes_no_time() -> None:
    """The loop is held up by no name, however long, and by no pattern: matching goes through each once."""
    began = time.process_time()
    assert not matches("a*" * 200 + "b", "a" * 100_000)
    assert time.process_time() - began < 1.0


def test_a_right_is_for_its_kind_alone() -> None:
    """Who may call all commands may ask nothing, and give no order."""
    commands, queries, orders = rights(("command", "*")), rights(("query", "*")), rights(("admin", "*"))
    assert commands.may_call("command", "put") and not commands.may_call("query", "get")
    assert queries.may_call("query", "get") and not queries.may_call("command", "put")
    assert not commands.may_admin("status") and not queries.may_admin("status")
    assert orders.may_admin("status") and not orders.may_call("command", "put")
    for each, kinds in (
        (commands, (True, False)),
        (queries, (False, True)),
        (orders, (False, False)),
        (rights(("write", b"a")), (True, False)),
        (rights(("read", b"")), (False, True)),
        (Rights([], is_root=True), (True, True)),
    ):
        assert (each.may_call_any("command"), each.may_call_any("query")) == kinds


def test_nobody_may_do_anything() -> None:
    """Without a grant, each request is refused, also one that touches no key."""
    for nobody in (NO_RIGHTS, Rights([])):
        assert not nobody.may_call("command", "put", ())
        assert not nobody.may_call("query", "get", None)
        assert not nobody.may_call("query", "get", (Touch.of_key("read", b""),))
        assert not nobody.may_admin("status")
        assert not nobody.may_call_any("command") and not nobody.may_call_any("query")
        assert not nobody.is_root


def test_root_may_do_everything() -> None:
    """Whatever it is called, and whatever it touches."""
    root = Rights([], is_root=True)
    assert root.may_call("command", "put", None) and root.may_call("query", "", (Touch("write", b"", None),))
    assert root.may_admin("anything")


def test_keys_are_allowed_by_their_prefix() -> None:
    """One right for all keys of a call; reading is not writing."""
    mine = rights(("read", b"mine/"), ("write", b"mine/drafts/"))
    read, write = (lambda key: Touch.of_key("read", key)), (lambda key: Touch.of_key("write", key))
    assert mine.may_call("query", "get", (read(b"mine/"),))
    assert mine.may_call("query", "get", (read(b"mine/a"), read(b"mine/\xff")))
    assert not mine.may_call("query", "get", (read(b"mine/a"), read(b"other")))
    assert not mine.may_call("query", "get", (read(b"mine"),))
    assert not mine.may_call("command", "put", (write(b"mine/a"),))
    assert mine.may_call("command", "put", (write(b"mine/drafts/a"),))
    assert not mine.may_call("command", "put", None), "nobody can say what it touches"
    assert not mine.may_call("command", "put", ()), "nothing that it touches is allowed"


@pytest.mark.parametrize(
    ("prefix", "start", "end", "fits"),
    [
        (b"a", b"a", b"b", True),
        (b"a", b"a", b"b\0", False),
        (b"a", b"a", None, False),
        (b"a", b"", b"a", False),
        (b"a", b"ab", b"ac", True),
        (b"a", b"a\xff\xff", b"b", True),
        (b"", b"", None, True),
        (b"", b"x", b"y", True),
        (b"\xff", b"\xff", None, True),
        (b"\xff\xff", b"\xff", None, False),
        (b"a\xff", b"a\xff", b"b", True),
        (b"a\xff", b"a\xff", b"b\0", False),
        (b"ab", b"a", b"b", False),
    ],
)
def test_a_range_is_allowed_only_as_a_whole(prefix: bytes, start: bytes, end: bytes | None, fits: bool) -> None:
    """From its first key to its last one."""
    assert rights(("read", prefix)).may_touch(Touch("read", start, end)) is fits
    assert not rights(("write", prefix)).may_touch(Touch("read", start, end))


KEYS = [bytes(key) for size in range(4) for key in itertools.product(b"\x00\x61\xff", repeat=size)]


@given(st.lists(st.sampled_from(KEYS), max_size=6), st.sampled_from(KEYS), st.none() | st.sampled_from(KEYS))
def test_no_key_of_an_allowed_range_is_outside_of_all_prefixes(
    prefixes: list[bytes], start: bytes, end: bytes | None
) -> None:
    """Whatever prefixes there are, one within another or beside it; and a single key is allowed exactly by its own."""
    some = rights(*(("write", prefix) for prefix in prefixes))
    if some.may_touch(Touch("write", start, end)):
        within = [key for key in KEYS if start <= key and (end is None or key < end)]
        assert all(any(key.startswith(prefix) for prefix in prefixes) for key in within)
    allowed = any(start.startswith(prefix) for prefix in prefixes)
    assert some.may_touch(Touch.of_key("write", start)) is allowed


def test_what_is_remembered_of_names_is_bounded() -> None:
    """A client that asks for a million names fills no memory, and gets the same answers."""
    some = rights(("query", "get*"))
    for number in range(3 * DECISIONS_MAX):
        assert some.may_call("query", f"get{number}") and not some.may_call("query", f"put{number}")
        assert len(some._decided) <= DECISIONS_MAX


def test_a_name_of_megabytes_is_of_no_pattern_and_is_not_kept() -> None:
    """A client may send any number of them, each as long as a frame; for the role root the machine says what it is."""
    some = rights(("query", "*"))
    for length in (NAME_CHARS_MAX, NAME_CHARS_MAX + 1, 1 << 20):
        assert some.may_call("query", "x" * length) is (length <= NAME_CHARS_MAX)
    assert all(len(name) <= NAME_CHARS_MAX for _, name in some._decided)
    assert Rights(is_root=True).may_call("query", "x" * (1 << 20))
