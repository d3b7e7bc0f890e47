"""Mistakes in a class are errors when it is made, and say which line to change."""

from __future__ import annotations

from collections import Counter, deque
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any, ClassVar

import pytest

from raftkv.errors import InvalidArgument, MachineError, Rejected
from raftkv.machine import LocalMachine, StateMachine, Table, Value, command, query, upgrade

HERE = r"test_statemachine.py:\d+"


class Opaque:
    """Nobody can serialise it."""


def test_an_argument_needs_a_type():
    """Without one, nobody could check or decode it."""
    with pytest.raises(MachineError, match=HERE + r": command add: argument amount needs a type, like `amount: str`"):

        class Broken(StateMachine):
            @command
            def add(self, amount) -> None:
                pass


def test_a_result_needs_a_type():
    """Clients decode it by its type."""
    with pytest.raises(MachineError, match=HERE + r".*result needs a type, like `-> None`"):

        class Broken(StateMachine):
            @query
            def get(self, key: str):
                pass


@pytest.mark.parametrize("kind", [Opaque, list[Opaque], dict[str, tuple[Opaque, int]], set[str], frozenset[int]])
def test_types_that_are_not_the_same_bytes_everywhere_are_refused(kind):
    """In arguments, results, tables and values alike, however deep."""
    with pytest.raises(MachineError, match=HERE + ".*argument key"):

        class InArgument(StateMachine):
            @command
            def add(self, key: kind) -> None:
                pass

    with pytest.raises(MachineError, match=HERE + ".*result"):

        class InResult(StateMachine):
            @query
            def get(self) -> kind:
                pass

    with pytest.raises(MachineError, match=HERE + ": table things"):

        class InTable(StateMachine):
            things = Table(str, kind)

    with pytest.raises(MachineError, match=HERE + ": value thing"):

        class InValue(StateMachine):
            thing = Value(kind, None)


@pytest.mark.parametrize(
    ("value", "instead"),
    [
        ({}, r"`MappingProxyType\(\{…\}\)`"),
        (Counter("ab"), r"`MappingProxyType\(\{…\}\)`"),
        ([1], "a tuple"),
        ({1}, "a frozenset"),
        (deque(), "a tuple"),
        (bytearray(b"x"), "bytes"),
    ],
)
def test_state_in_a_class_is_refused(value, instead):
    """Commands could keep something in it that no other node has; what can't be changed may stand there."""
    text = rf": Broken: cache is a {type(value).__name__}, .*declare `cache = Table\(…\)`, Set or Value .* {instead} if"
    with pytest.raises(MachineError, match=HERE + text):

        class Broken(StateMachine):
            cache = value

            @command
            def add(self) -> None:
                pass

    class Sound(StateMachine):
        sizes = (1, 2)
        names = frozenset("ab")
        prices = MappingProxyType({"a": 1})


def test_state_in_a_class_that_is_mixed_in_is_refused():
    """Wherever a command finds it; what another machine was checked for is not looked at again."""

    class Caching:
        cache: ClassVar[dict[str, int]] = {}

    with pytest.raises(MachineError, match=HERE + ": Broken: Caching.cache is a dict"):

        class Broken(Caching, StateMachine):
            pass


def test_two_commands_of_one_name_are_refused():
    """Python would silently take the second one."""
    with pytest.raises(MachineError, match=HERE + r": add is declared twice, first at .*" + HERE):

        class Broken(StateMachine):
            @command
            def add(self, amount: int) -> None:
                pass

            @command
            def add(self, amount: str) -> None:  # noqa: F811
                pass

    with pytest.raises(MachineError, match="stock is declared twice"):

        class AlsoBroken(StateMachine):
            stock = Table(str, int)

            @query
            def stock(self) -> None:  # noqa: F811
                pass


@pytest.mark.parametrize("name", ["index", "now", "random", "fingerprint", "methods"])
def test_names_of_the_base_are_refused(name):
    """A table called `now` would hide the time."""
    with pytest.raises(MachineError, match="every state machine has"):
        type(StateMachine)("Broken", (StateMachine,), {name: Table(str, int)})


def test_functions_that_are_no_plain_functions_are_refused():
    """A command runs at once; starred and keyword-only arguments have no place in a list of arguments."""
    with pytest.raises(MachineError, match="plain function"):

        class Async(StateMachine):
            @command
            async def add(self) -> None:
                pass

    with pytest.raises(MachineError, match="without a star"):

        class Starred(StateMachine):
            @command
            def add(self, *amounts: int) -> None:
                pass

    with pytest.raises(MachineError, match="without a star"):

        class KeywordOnly(StateMachine):
            @command
            def add(self, *, amount: int) -> None:
                pass

    with pytest.raises(MachineError, match="underscore"):

        class Private(StateMachine):
            @command
            def _add(self) -> None:
                pass

    with pytest.raises(MachineError, match="no __init__"):

        class WithInit(StateMachine):
            def __init__(self) -> None:
                pass


def test_an_unknown_name_in_an_annotation_is_refused():
    """Annotations are resolved when the class is made, not at the first call."""
    with pytest.raises(MachineError, match=HERE + ".*Missing"):

        class Broken(StateMachine):
            @command
            def add(self, amount: Missing) -> None:  # noqa: F821
                pass


def test_a_table_of_a_wrong_key_is_refused():
    """The line is that of the table."""
    with pytest.raises(MachineError, match=HERE + ": table things: keys may be"):

        class Broken(StateMachine):
            things = Table(float, int)


class Base(StateMachine):
    """Inherited from."""

    log = Table(int, str)

    @command
    def note(self, text: str) -> int:
        """Keep a text."""
        self.log[self.index] = text
        return self.index


class Derived(Base):
    """Adds and replaces."""

    @command
    def note(self, text: str) -> int:
        """Keep it louder."""
        return self.shout(text)

    def shout(self, text: str) -> int:
        """No command, just a helper."""
        self.log[self.index] = text.upper()
        return self.index

    @command
    def when(self) -> tuple[int, datetime, int, list[int]]:
        """What a command may know of the world."""
        return self.index, self.now, self.now_ms, [self.random.randrange(1000) for _ in range(3)]

    @query
    def read(self) -> list[str]:
        """All texts."""
        return [text for _, text in self.log.items()]

    @query
    def dice(self) -> int:
        """Not for queries."""
        return self.random.randrange(6)


@pytest.mark.parametrize("name", ["add", "total", "fill"])
def test_what_a_base_class_declares_is_not_hidden_by_what_is_not_declared(name):
    """The base's would go on to be used, whatever stands there."""

    class Base(StateMachine):
        version = 2
        total = Value(int, 0)

        @command
        def add(self, n: int) -> None:
            self.total += n

        @upgrade(to=2)
        def fill(self) -> None:
            self.total = 1

    with pytest.raises(MachineError, match=f"{name} stands in the place of what a base class declares"):
        type(StateMachine)("Derived", (Base,), {name: lambda self: None})


def test_machines_are_inherited():
    """A subclass has its base's tables, may replace a command, and calls helpers like any object."""
    local: Any = LocalMachine(Derived)
    assert local.note("hello") == 1
    assert local.read() == ["HELLO"]
    assert set(Derived.methods) == {"note", "when", "read", "dice"}
    assert set(Base.methods) == {"note"}


def test_time_and_dice_come_from_the_entry():
    """Two machines that apply the same entry see the same time and numbers, and another entry gives others."""
    one: Any = LocalMachine(Derived, now_ms=1_000)
    other: Any = LocalMachine(Derived, now_ms=1_000)
    first = one.when()
    assert first == other.when()
    assert first[:3] == (1, datetime(1970, 1, 1, 0, 0, 1, tzinfo=UTC), 1_000)
    assert one.when()[3] != first[3]
    assert one.digest != other.digest
    other.when()
    assert one.digest == other.digest


def test_a_query_has_no_dice():
    """Each node would draw another number."""
    local: Any = LocalMachine(Derived)
    with pytest.raises(Rejected, match="no dice"):
        local.dice()


def test_calls_are_checked_before_anything_runs():
    """Arguments of a wrong number or type, and unknown names, are the caller's error."""
    local: Any = LocalMachine(Derived)
    for call in (
        lambda: local.note(),
        lambda: local.note(5),
        lambda: local.note("a", "b"),
        lambda: local.note(word="a"),
    ):
        with pytest.raises(InvalidArgument, match=r"note\(text: str\) -> int"):
            call()
    with pytest.raises(AttributeError, match="it has note, when, read, dice"):
        local.missing()
    assert local.index == 0


def test_the_fingerprint_is_of_what_the_class_offers():
    """The same for the same class, another for another signature; the name stands in front."""

    class Other(Base):
        @command
        def note(self, text: bytes) -> int:
            return 0

    assert Base.fingerprint().startswith("Base/")
    assert len({Base.fingerprint(), Derived.fingerprint(), Other.fingerprint()}) == 3


def test_wrapped_methods_bad_quotes_and_wrong_defaults_are_refused():
    """Each is a MachineError with the place, not some error from the inside."""
    for wrapper in (staticmethod, classmethod, property):
        with pytest.raises(MachineError, match="plain method"):
            type(StateMachine)(
                "Wrapped", (StateMachine,), {"__module__": "m", "add": wrapper(command(lambda self: None))}
            )
    with pytest.raises(MachineError, match=HERE + ".*add"):

        class BadQuotes(StateMachine):
            @command
            def add(self, amount: "int[") -> None:  # noqa: F722
                pass

    with pytest.raises(MachineError, match=HERE + ": value total: the default"):

        class BadDefault(StateMachine):
            total = Value(int, "none")
