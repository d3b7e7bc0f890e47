"""`upgrade_test`: a sound pair of versions passes, and each kind of mistake is found, named, and made small."""

from __future__ import annotations

import itertools
import re
import time
from pathlib import Path
from typing import ClassVar

import msgspec
import pytest
from hypothesis import strategies as st

from raftkv.machine import Method, Rejection, StateMachine, Table, Value, active, command, query, upgrade
from raftkv.node.upgrades import Upgrades
from raftkv.testing import Call, Cause, CounterExample, Fault, UnfitModel, UnfitStrategy, calls, rerun_upgrade
from raftkv.testing import upgrade_test as upgrade_of  # pytest would take it for a test
from raftkv.testing.trying.budget import BUDGETS, chosen
from tests.testing.versions import After, Before, GrownItem, Item

NAMES = st.sampled_from(["apple", "fig", "pear"])
RECEIVE = calls("receive", NAMES, st.integers(-1, 3))
RENAME = calls("rename", NAMES, st.sampled_from(["red", "green"]))
COUNT = calls("count", NAMES)

SHORT = msgspec.structs.replace(BUDGETS["quick"], examples=100, shrinks=5)
"""Looks until it finds something, and does not make it as small as it could be."""

LONG = msgspec.structs.replace(SHORT, examples=500)
"""For what few scripts meet. How many it takes hangs on what is drawn, and so on which modules are imported."""


@pytest.fixture(autouse=True)
def pictures(tmp_path, monkeypatch):
    """Failures of these tests are drawn where nobody looks for them."""
    monkeypatch.setattr(chosen, "directory", str(tmp_path))
    return tmp_path


def drawn(error):
    """The page of a failure, which the report names and shows the last lines of."""
    assert error.instructions.endswith(f"What happened is drawn in: {error.page}")
    assert error.diagram.count("✖") == 1
    return Path(error.page).read_text()


def failure(new, *commands, old=Before, budget=SHORT, **options):
    """What the test of an upgrade fails with."""
    with pytest.raises(CounterExample) as caught:
        upgrade_of(old, new, commands or [RECEIVE, RENAME, COUNT], budget=budget, **options)()
    return caught.value


def shop(*left_out, **others):
    """The second version with other members, and without some."""
    names = {name: value for name, value in vars(After).items() if name in _DECLARED and name not in left_out}
    return type(StateMachine)("Shop", (StateMachine,), {**names, **others})


_DECLARED = {*After.parts, *After.methods, *After.upgrades, "version"}

test_a_sound_pair_passes = upgrade_of(
    Before,
    After,
    [
        calls(After.receive, NAMES, st.integers(-1, 3), st.sampled_from(["", "new"])),
        RENAME,
        calls(After.sell, NAMES),
        COUNT,
        calls(After.title, NAMES),
    ],
)


class OtherItem(msgspec.Struct):
    """With another default."""

    count: int = 1


@command
def receive_tagged(self, name: str, count: int, tag: str) -> int:
    """It needs a tag."""
    return 0


receive_tagged.__name__ = "receive"


@pytest.mark.parametrize(
    ("new", "named"),
    [
        (
            lambda: shop("sum_up", items=Table(str, OtherItem)),
            r"table items, field OtherItem\.count: was with the default 0, is with the default 1: keep its default",
        ),
        (lambda: shop("rename"), "command rename: was there, is gone: keep it as long as clients may call it"),
        (
            lambda: shop(receive=receive_tagged),
            "command receive, argument tag: was not there, is required: give it a default",
        ),
        (lambda: shop(oldest_version=2), "version 1 of Shop is active, and this class runs version 2"),
    ],
)
def test_what_does_not_fit_is_told_before_anything_is_run(new, named, monkeypatch):
    """All differences of the declarations, with what to do; they need no script."""
    monkeypatch.setattr("raftkv.testing.trying.replacing.SideBySide", None)
    error = failure(new(), calls(Before.receive, NAMES, 1))
    assert error.cause is Cause.GREW_APART
    assert re.search(named, error.described)
    assert "Call(" not in error.program


def _shouting():
    @command
    def rename(self, name: str, title: str) -> None:
        After.methods["rename"].function(self, name, title if self.version >= 2 else title.upper())

    return shop(rename=rename)


def _returning():
    @command
    def receive(self, name: str, count: int, tag: str = "") -> int:
        if count < 0:
            raise ValueError("count must not be negative")
        item = self.items.get(name, GrownItem())
        item.count += count
        self.items[name] = item
        return count

    return shop(receive=receive)


def _refusing():
    @command
    def receive(self, name: str, count: int, tag: str = "") -> int:
        if count < 0:
            raise LookupError("count must not be negative")
        return After.methods["receive"].function(self, name, count, tag)

    return shop(receive=receive)


def _tagging():
    @command
    def receive(self, name: str, count: int, tag: str = "none") -> int:
        if tag and count >= 0 and self.version < 2:
            self.names[name] = tag
        return After.methods["receive"].function(self, name, count, "")

    return shop(receive=receive)


@pytest.mark.parametrize(
    ("new", "described"),
    [
        (
            _shouting,
            r"rename\('\w+', 'red'\), while version 1 is active: names\['\w+'\] is 'red' with version 1 and 'RED'",
        ),
        (
            _returning,
            r"receive\('\w+', \d.*\), while version 1 is active: the result is \d with version 1 and \d with ver",
        ),
        (
            _refusing,
            r"receive\('\w+', -1.*\), while version 1 is active: the outcome is ValueError: count must not be neg",
        ),
        (
            _tagging,
            r"receive\('\w+', \d.*\), while version 1 is active: names\['\w+'\] is unchanged with version 1 and 'no",
        ),
    ],
)
def test_a_command_that_changed_under_the_old_version_is_named(new, described):
    """With the table's row, the result or the outcome that is not the same, in the smallest script."""
    error = failure(new())
    assert error.cause is Cause.VERSIONS_DIFFER
    assert re.match(described, error.described), error.described
    assert "it must do what it did as long as `self.version` is 1" in error.described
    assert drawn(error).count("<tr class=differs id=broken>") == 1
    assert "│ version 1" in error.diagram.splitlines()[0]
    assert error.program.count("Call(") <= 2
    assert "Fault(" not in error.program


def test_a_command_that_writes_in_another_order_is_named():
    """The digest covers the order, too."""

    class Pair:
        class Shop(StateMachine):
            a, b = Value(int, 0), Value(int, 0)

            @command
            def both(self) -> None:
                self.a = self.b = 1

    class Shop(StateMachine):
        version = 2
        a, b = Value(int, 0), Value(int, 0)

        @command
        def both(self) -> None:
            self.b = self.a = 1

    error = failure(Shop, calls("both"), old=Pair.Shop)
    assert error.described.startswith(
        "both(), while version 1 is active: the versions write the same, in another order"
    )


@pytest.fixture
def unnarrowed(monkeypatch):
    """Values are not narrowed to the active version; what is made so, or was made otherwise, is kept no longer."""
    monkeypatch.setattr(active, "narrower", lambda *_: None)
    active._made.cache_clear()
    yield
    monkeypatch.undo()
    active._made.cache_clear()


@pytest.mark.usefixtures("unnarrowed")
def test_a_field_that_only_one_version_keeps_is_named():
    """Though the class reads both alike: were values not narrowed to the active version, that would be found."""
    error = failure(After)
    assert error.cause is Cause.VERSIONS_DIFFER
    assert re.search(r"items\['\w+'\].tags is not there with version 1 and \[\] with version 2", error.described)
    with pytest.raises(CounterExample) as pasted:
        exec(error.program, {})  # noqa: S102 (that it can be pasted is what is tested)
    assert pasted.value.described == error.described


def test_an_optional_argument_that_is_not_left_out_is_found(monkeypatch):
    """Were defaults sent by clients, nodes of the old version would refuse calls that have nothing new."""
    monkeypatch.setattr(Method, "_without_defaults", lambda self, args, data: data)
    error = failure(After)
    assert error.cause is Cause.VERSIONS_DIFFER
    assert re.match(r"receive\('\w+', -?\d, ''\) by a client of version 2 is refused: ", error.described)


def test_an_optional_argument_that_is_not_filled_in_is_found(monkeypatch):
    """Were defaults not known to nodes, calls of old clients would stop those of the new version."""
    monkeypatch.setattr(Method, "_with_defaults", lambda self, args: args)
    with pytest.raises(CounterExample) as caught:
        rerun_upgrade(Before, After, commands=[Call("receive", ("apple", 1))])
    error = caught.value
    assert error.cause is Cause.FAILED
    assert re.match(r"receive\('apple', 1\) stops a node of version 2, while version 1 is active", error.described)


def _raising():
    @upgrade(to=2)
    def sum_up(self) -> None:
        self.total = sum(1 // item.count for _, item in self.items.items())

    return shop(sum_up=sum_up)


def _endless():
    @upgrade(to=2)
    def move_names(self, after: int | None) -> int | None:
        return (after or 0) + 1

    return shop(move_names=move_names)


@pytest.mark.parametrize(
    ("new", "described"),
    [
        (
            _raising,
            r"the upgrade to version 2 fails: sum_up: ZeroDivisionError: .*\n.*test_upgrade\.py:\d+: it must go well",
        ),
        (_endless, r"the upgrade to version 2 is not done after 1000 pieces: move_names"),
    ],
)
def test_an_upgrade_that_fails_is_named(new, described):
    """With its line, and a script of one call at most: it is tried behind every script."""
    error = failure(new())
    assert error.cause is Cause.UPGRADE_FAILED
    assert re.match(described, error.described), error.described
    assert error.program.count("Call(") <= 1
    assert "the upgrade to version 2" in drawn(error)
    assert "Fault(" not in error.program


def _overwriting():
    @command
    def rename(self, name: str, title: str) -> None:
        (self.names if self.version < 2 else self.titles)[name] = title

    return shop(rename=rename)


def _passing_over():
    @upgrade(to=2)
    def move_names(self, after: str | None) -> str | None:
        for name, title in self.names.range(None if after is None else after + "\0", limit=1):
            self.titles[name] = title
            return name
        return None

    @command
    def rename(self, name: str, title: str) -> None:
        self.names[name] = title  # whatever the version is

    return shop(move_names=move_names, rename=rename)


@pytest.mark.parametrize("new", [_overwriting, _passing_over])
def test_an_upgrade_in_pieces_that_loses_what_came_between_is_named(new):
    """With the row: what calls come to must not depend on whether they come between pieces or after the last one."""
    error = failure(new(), RENAME, budget=LONG)
    assert error.cause is Cause.UPGRADE_LOSES
    assert re.match(
        r"titles\['\w+'\] is .* comes between the pieces of the upgrade \(move_names\), and", error.described
    )
    assert "version 1</th><th>version 2" in drawn(error)
    upgrade_of(Before, new(), [RENAME], budget="quick", shows_pieces=True)()


def _forgetting():
    @query
    def named(self, name: str) -> str:
        if self.version < 2:
            return self.names.get(name, "")
        return self.titles[name]

    return shop("title", named=named)


def _stumbling():
    @command
    def rename(self, name: str, title: str) -> None:
        if self.version >= 2 and self.items.get(name) is None:
            raise TypeError("no item")
        After.methods["rename"].function(self, name, title)

    return shop(rename=rename)


def test_a_query_that_had_an_answer_has_one_still():
    """A KeyError may be how a query refuses, but not what it answered just before the upgrade."""

    class Named:
        class Shop(Before):
            @query
            def named(self, name: str) -> str:
                return self.names.get(name, "")

    error = failure(_forgetting(), calls("named", NAMES), RENAME, old=Named.Shop)
    assert error.cause is Cause.UPGRADE_LOSES
    assert re.match(r"the query named\('(\w+)'\) raises KeyError: '\1', after the upgrade, and had", error.described)


def test_a_node_that_is_to_stop_twice_at_one_moment_stops_once():
    """The second stop would end before the first one, and the node be started while its directory is in use still."""
    stop = Fault("graceful stop", at_ms=796, chance=2071)
    rerun_upgrade(Before, After, seed=0, faults=[stop, stop, Fault("upgrade", at_ms=1255)])


def _counting(rows_kept):
    """Lists what has a title, and moves so many rows."""

    @query
    def titled(self) -> list[str]:
        return list(self.names if self.version < 2 else self.titles)

    @query
    def title(self, name: str) -> str | None:
        return (self.names if self.version < 2 else self.titles).get(name)

    @upgrade(to=2)
    def move_names(self) -> None:
        for name, title in itertools.islice(self.names.items(), rows_kept):
            self.titles[name] = title

    return shop(titled=titled, title=title, move_names=move_names)


@pytest.mark.parametrize(
    ("asked", "rows_kept", "said"),
    [
        (calls("titled"), 1, r"the query titled\(\) gives \['(\w+)'\] after .*: \['\1', '\w+'\] \(leave"),
        (calls("title", NAMES), 0, r"the query title\('\w+'\) gives None after .*: '\w*' \(leave"),
        (calls("titled"), 100, None),
    ],
)
def test_an_upgrade_that_loses_rows_is_found_by_queries_that_say_less(asked, rows_kept, said):
    """It raises nothing, and what it has left behind is deleted with its table."""

    class Counting:
        class Shop(Before):
            @query
            def titled(self) -> list[str]:
                return list(self.names)

            @query
            def title(self, name: str) -> str | None:
                return self.names.get(name)

    if said is None:
        upgrade_of(Counting.Shop, _counting(rows_kept), [asked, RENAME], budget="quick")()
        return
    error = failure(_counting(rows_kept), asked, RENAME, old=Counting.Shop)
    assert error.cause is Cause.UPGRADE_LOSES
    assert re.match(said, error.described)


def test_a_command_that_shows_a_mistake_only_after_the_upgrade_is_named():
    """It meets what the old version has left."""
    error = failure(_stumbling(), RENAME)
    assert error.cause is Cause.UPGRADE_LOSES
    assert re.match(r"rename\('\w+', '\w+'\) raises TypeError: no item once version 2 is active", error.described)


def _remembering():
    class Counter:
        seen: ClassVar[list[int]] = []

    @upgrade(to=2)
    def sum_up(self) -> None:
        Counter.seen.append(0)
        self.total = len(Counter.seen)

    return shop(sum_up=sum_up)


def _by_the_clock():
    @upgrade(to=2)
    def sum_up(self) -> None:
        self.total = time.time_ns()

    return shop(sum_up=sum_up)


@pytest.mark.parametrize("new", [_remembering, _by_the_clock])
def test_an_upgrade_that_is_not_the_same_on_every_node_is_named(new):
    """It is run in another process with the same tables, too."""
    error = failure(new())
    assert error.cause is Cause.REMEMBERS
    assert re.match(
        r"the upgrade to version 2 uses something outside of tables.*: total is \d+ in one proc", error.described
    )


def test_what_only_a_cluster_shows_is_found(monkeypatch):
    """Were the version raised before every member can run it, a node would stop in the simulated cluster."""
    monkeypatch.setattr(Upgrades, "_reachable", lambda upgrades, _: upgrades._machine.version)
    error = failure(After)
    assert error.cause is Cause.BROKEN
    assert "WrongVersion" in error.described or "version 2 of Shop is active" in error.described
    assert Path(error.page).read_text().startswith("<!DOCTYPE html>")
    assert "node 1" in error.diagram.splitlines()[0]
    assert "Fault(" in error.program


def test_a_removed_command_may_be_called_until_the_version_that_lacks_it():
    """`until` says so; calls that are in the log behind the activation are rejected alike."""

    @command(until=2)
    def rename(self, name: str, title: str) -> None:
        self.names[name] = title

    upgrade_of(Before, shop(rename=rename), [RECEIVE, calls(Before.rename, NAMES, "red"), COUNT])()


def test_a_program_by_hand_may_pass():
    """Clients 1 and 2 have the two classes; `rerun_upgrade` says nothing when there is nothing to say."""
    commands = [Call("receive", ("apple", 1)), Call("sell", ("apple",), client=2, at_ms=900)]
    rerun_upgrade(
        Before, After, faults=[Fault("newer", 100), Fault("older", 200), Fault("upgrade", 300)], commands=commands
    )


@pytest.mark.parametrize(
    ("old", "new", "options", "error", "text"),
    [
        (Before, Before, {}, UnfitModel, "Shop is given twice"),
        (After, Before, {}, UnfitModel, "the first class is of version 2, the second of 1: exchange them"),
        (Item, After, {}, UnfitModel, "must be a class made from StateMachine"),
        (
            Before,
            type(StateMachine)("Store", (StateMachine,), {}),
            {},
            UnfitModel,
            "Shop and Store are two applications",
        ),
        (Before, After, {"clients": 1}, UnfitStrategy, "clients = 1: must be at least 2, one for each version"),
        (Before, After, {"commands": []}, UnfitStrategy, r"commands is empty: add `calls\(Shop\.\w+, …\)`"),
    ],
)
def test_a_wrong_declaration_is_refused_at_once(old, new, options, error, text):
    """With what to change."""
    with pytest.raises(error, match=text):
        upgrade_of(old, new, **{"commands": [RECEIVE], **options})


class OldLost(Rejection):
    """Released."""

    job: int


class NewLost(Rejection):
    """Has grown."""

    job: int
    owner: str = ""


def losing(number: int, lost: type[Rejection]) -> type[StateMachine]:
    """Raises its own rejection."""

    class Losing(StateMachine):
        version = number

        @command
        def lose(self, job: int) -> None:
            raise lost(job)

    return Losing


OldLost.__name__ = NewLost.__name__ = "Lost"

test_a_rejection_may_grow = upgrade_of(losing(1, OldLost), losing(2, NewLost), [calls("lose", st.integers(0, 3))])
