"""By which names a node on loopback is asked over HTTP."""

from __future__ import annotations

import pytest

from raftkv.server.hosts import NAME_SHOWN, is_foreign, refusal

OWN = ["", "localhost", "localhost:9001", "LocalHost.:9001", "a.localhost:9001", "127.0.0.1", "127.0.0.1:9001"]
OWN += ["[::1]:9001", "[::1]", "10.0.0.1:9001", "[fe80::1%25eth0]:9001", "Node-1.example:9001", "node-1.example."]

FOREIGN = ["evil.example", "evil.example:9001", "127.0.0.1.evil.example", "localhost.evil.example:9001", "x"]
FOREIGN += ["localhost,evil", "notlocalhost", "[evil.example]:9001", "2130706433", "node-2.example", "localhost@evil"]


@pytest.mark.parametrize("header", OWN)
def test_addresses_and_own_names_are_asked_for_by_anybody(header: str) -> None:
    """No name in it is one that somebody else could let mean this machine."""
    assert not is_foreign(header, "node-1.example")


@pytest.mark.parametrize("header", FOREIGN)
def test_names_that_somebody_else_may_have_are_foreign(header: str) -> None:
    """Whatever they begin or end with."""
    assert is_foreign(header, "node-1.example")


def test_the_refusal_says_which_name_and_what_to_do() -> None:
    """In a line, however long the name is and whatever stands in it."""
    text = refusal("evil.example:9001")
    assert "'evil.example'" in text and "--http-sign-in all" in text
    assert len(refusal("a" * 60_000)) < 250 + NAME_SHOWN and "\n" not in refusal("a\nb")
