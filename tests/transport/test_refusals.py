"""How refusals are logged."""

from __future__ import annotations

from raftkv.transport import Refusals, address_text
from raftkv.transport.refusals import LINES_MAX, TEXT_MAX, WINDOW_S
from tests.logged import capture_logs


def test_the_first_are_named_and_the_rest_are_counted() -> None:
    """A thousand refusals are a handful of lines, and none of them is lost."""
    refusals = Refusals("client_refused")
    with capture_logs() as lines:
        for number in range(1000):
            refusals.note("garbage", "it is", f"host:{number}", number / 1000)
        refusals.tick(WINDOW_S - 1)
        assert len(lines) == LINES_MAX
        refusals.tick(WINDOW_S)
    assert lines[0] == {
        "event": "client_refused",
        "log_level": "warning",
        "kind": "garbage",
        "reason": "it is",
        "address": "host:0",
    }
    assert lines[LINES_MAX:] == [
        {"event": "client_refused", "log_level": "warning", "kind": "garbage", "more": 1000 - LINES_MAX, "seconds": 10}
    ]


def test_kinds_and_windows_do_not_hide_each_other() -> None:
    """A flood of one kind leaves the lines of the other alone, and the next window begins anew."""
    refusals = Refusals("client_refused")
    with capture_logs() as lines:
        for _ in range(100):
            refusals.note("garbage", "flood", "host:1", 1.0)
        refusals.note("slow", "loris", "host:2", 1.5)
        refusals.note("garbage", "again", "host:3", 1.0 + WINDOW_S)
        refusals.tick(1000.0)
        refusals.tick(2000.0)
    said = [(line["kind"], line.get("reason"), line.get("more")) for line in lines]
    assert said[LINES_MAX:] == [("slow", "loris", None), ("garbage", None, 95), ("garbage", "again", None)]


def test_a_stranger_does_not_write_the_log() -> None:
    """A reason that repeats what was said is cut off."""
    with capture_logs() as lines:
        Refusals("peer_refused").note("handshake", "x" * 100_000, "host:1", 0.0, peer=7)
    assert len(lines[0]["reason"]) == TEXT_MAX
    assert lines[0]["peer"] == 7


def test_addresses_of_every_kind_of_socket_have_a_text() -> None:
    """IPv4, IPv6, a socket that is gone, and none at all."""
    assert address_text(("127.0.0.1", 1)) == "127.0.0.1:1"
    assert address_text(("::1", 2, 0, 0)) == "::1:2"
    assert address_text("") == address_text(None) == "unknown"
