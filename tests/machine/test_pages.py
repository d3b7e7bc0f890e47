"""Pages: all items once, in order, while rows come and go; cursors that are none are refused."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raftkv import Page, Rejected
from raftkv.machine import LocalMachine, StateMachine, Table, command, query


class Names(StateMachine):
    """A table that is read in pages."""

    names = Table(str, int)
    others = Table(str, int)

    @command
    def put(self, name: str) -> None:
        """Keep a name."""
        self.names[name] = len(name)

    @command
    def drop(self, name: str) -> None:
        """Forget one."""
        self.names.pop(name, None)

    @query
    def page(
        self, after: bytes | None, limit: int, reverse: bool = False, prefix: str | None = None, other: bool = False
    ) -> Page[str, int]:
        """A page."""
        table = self.others if other else self.names
        return table.page(after, limit, reverse=reverse, prefix=prefix)


@settings(max_examples=60, deadline=None)
@given(
    names=st.sets(st.text("ab\0", max_size=3), max_size=9),
    gone=st.sets(st.text("ab\0", max_size=3), max_size=5),
    limit=st.integers(1, 4),
    reverse=st.booleans(),
    prefix=st.none() | st.sampled_from(["a", ""]),
)
def test_pages_have_each_item_once(names, gone, limit, reverse, prefix):
    """What is there all the time is in exactly one page, in order; what goes between two pages may be in one."""
    local = LocalMachine(Names)
    for name in names:
        local.put(name)
    found: list[str] = []
    cursor, first = None, True
    while first or cursor is not None:
        page = local.page(cursor, limit, reverse, prefix)
        assert len(page.items) <= limit
        found += [name for name, _ in page.items]
        cursor = page.cursor
        if first:
            for name in gone:
                local.drop(name)
        first = False
    due = [name for name in names if prefix is None or name.startswith(prefix)]
    assert found == sorted(found, reverse=reverse)
    assert set(due) - gone <= set(found) <= set(due)
    assert len(found) == len(set(found))


def test_a_cursor_that_is_none_is_refused():
    """It comes from a client: one of another table or direction, one that was changed, and a page of nothing."""
    local = LocalMachine(Names)
    for name in "abc":
        local.put(name)
    cursor = local.page(None, 1).cursor
    assert local.page(cursor, 9).items == [("b", 1), ("c", 1)]
    assert local.page(cursor, 2).cursor is None
    for args in ((cursor, 1, True), (cursor, 1, False, None, True), (b"x", 1), (b"", 1)):
        with pytest.raises(Rejected, match=r"ValueError.*no cursor"):
            local.page(*args)
    with pytest.raises(Rejected, match="at least one item"):
        local.page(None, 0)
