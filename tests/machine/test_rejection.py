"""Errors that a machine declares: the same on every node, and at the clients what they were when they were raised."""

from __future__ import annotations

import copy
import dataclasses
import pickle
import sys
from typing import Any

import msgspec
import pytest

from raftkv.disk.simulated import SimDisk
from raftkv.entry import make_entry
from raftkv.errors import MachineError, Rejected
from raftkv.machine import (
    OPEN_SESSION,
    LocalMachine,
    OutcomeKind,
    Rejection,
    Runner,
    StateMachine,
    Table,
    Value,
    as_declared,
    command,
    encode_command,
    query,
    read_rejection,
)
from raftkv.machine.depth import ROOM, with_room
from raftkv.machine.outcome import FIELDS_BYTES_MAX, TOO_DEEP, rejected
from raftkv.machine.rejection import is_mistake
from raftkv.model import EntryKind
from raftkv.state import MemoryStore

HERE = r"test_rejection.py:\d+: rejection Broken"


class Owner(msgspec.Struct):
    """A field may hold what a result may."""

    name: str
    since_ms: int


class LeaseLost(Rejection):
    """Somebody else has it."""

    job: int
    owners: list[Owner] = dataclasses.field(default_factory=list)
    hint: str | None = None


class NoJobs(Rejection):
    """No fields."""


class InWords(Rejection):
    """Speaks for itself."""

    job: int

    def __str__(self) -> str:
        return f"job {self.job} is gone"


class LeaseLostForGood(LeaseLost):
    """A special case."""

    years: int = 1


def chain(depth: int) -> list[Any]:
    """So many lists within each other."""
    made: list[Any] = []
    for _ in range(depth - 1):
        made = [made]
    return made


def help_out() -> None:
    """Raises for a command what that does not name."""
    raise InWords(job=9)


class Jobs(StateMachine):
    """Raises all of them."""

    taken = Value(int, 0)
    done = Table(int, str)

    class Nested(Rejection):
        """Declared in the machine."""

        job: int

    @command
    def finish(self, job: int, how: str) -> str:
        """Raise."""
        self.taken += 1
        match how:
            case "lost":
                raise LeaseLost(job=job, owners=[Owner("a", self.now_ms)])
            case "for good":
                raise LeaseLostForGood(job=job, years=2)
            case "none":
                raise NoJobs
            case "words":
                help_out()
            case "nested":
                raise self.Nested(job)
            case "wrong":
                raise LeaseLost(job="x")  # type: ignore[arg-type]
            case "large":
                raise LeaseLost(job=1, hint="x" * FIELDS_BYTES_MAX)
            case "deep":
                raise Deep(chain(5_000))
            case "bare":
                raise Rejection
        return how

    @query
    def look(self, job: int) -> str:
        """Raise."""
        raise LeaseLost(job=job)


class Deep(Rejection):
    """Any field at all."""

    what: Any


def test_a_declared_error_arrives_as_itself():
    """With its fields and types; a default may be left out. The command has no effect."""
    local = LocalMachine(Jobs, now_ms=77)
    with pytest.raises(LeaseLost) as lost:
        local.finish(7, "lost")
    assert (lost.value.job, lost.value.owners, lost.value.hint) == (7, [Owner("a", 77)], None)
    assert str(lost.value) == "LeaseLost: job=7, owners=[Owner(name='a', since_ms=77)], hint=None"
    assert (lost.value.error_type, lost.value.message) == ("LeaseLost", str(lost.value).partition(": ")[2])
    assert type(lost.value) is LeaseLost
    with pytest.raises(LeaseLostForGood) as for_good:
        local.finish(8, "for good")
    assert (for_good.value.job, for_good.value.years) == (8, 2)
    with pytest.raises(NoJobs, match=r"^NoJobs$"):
        local.finish(9, "none")
    with pytest.raises(InWords, match=r"^job 9 is gone$") as words:
        local.finish(9, "words")
    assert words.value.job == 9
    with pytest.raises(Jobs.Nested, match=r"^Nested: job=3$"):
        local.finish(3, "nested")
    with pytest.raises(LeaseLost, match="job=4"):
        local.look(4)
    assert local.finish(1, "fine") == "fine"


@pytest.mark.parametrize(
    ("how", "error_type", "message"),
    [
        ("wrong", "TypeError", r"LeaseLost\(job='x'.*Expected `int`"),
        ("large", "ValueError", "LeaseLost has .* must be at most"),
        ("deep", "RecursionError", "maximum"),
        ("bare", "Rejection", "^Rejection$"),
    ],
)
def test_one_that_is_not_as_declared_is_rejected_all_the_same(how, error_type, message):
    """The same on every node, and no node stops."""
    local = LocalMachine(Jobs)
    with pytest.raises(Rejected, match=message) as found:
        local.finish(1, how)
    assert found.value.error_type == error_type
    assert type(found.value) is Rejected


@dataclasses.dataclass
class Link:
    """Its text takes several calls for each of its kind within it."""

    next: Link | None = None


class Linked(Rejection):
    """Holds links."""

    first: Link | None


@pytest.mark.parametrize(("depth", "error_type"), [(699, "Deep"), (700, "RecursionError"), (5_000, "RecursionError")])
def test_how_deep_fields_may_be_nested_is_counted(depth, error_type):
    """Not left to the stack, of which a newer interpreter has more for msgspec: its node would disagree with others.
    The fields themselves are a map around their values."""
    outcome = rejected(Deep(chain(depth)))
    assert read_rejection(outcome.payload).error_type == error_type
    assert (outcome == TOO_DEEP) == (error_type == "RecursionError")


@pytest.fixture
def limit():
    """The recursion limit, which a lot of room raises for good."""
    found = sys.getrecursionlimit()
    yield found
    sys.setrecursionlimit(found)


@pytest.mark.usefixtures("limit")
def test_fields_whose_text_takes_too_much_of_the_stack_arrive_all_the_same():
    """How much that is differs between interpreters; the name, by which replicas are compared, must not."""
    link = None
    for _ in range(400):
        link = Link(link)

    def made_with(frames: int) -> Rejected:
        outcome = with_room(rejected, Linked(link), frames)
        return read_rejection(outcome.payload)

    short, long = made_with(ROOM), made_with(20 * ROOM)
    assert (short.error_type, short.fields) == (long.error_type, long.fields)
    assert short.error_type == "Linked"
    if sys.version_info < (3, 12):  # later ones count fewer of the calls
        assert short.message == "(its text can't be made)"
    assert long.message.startswith("first=Link(next=Link(")


def test_a_retry_hears_the_same():
    """It is kept with the session's other answers, fields and all; and replicas agree in its digest."""

    def run() -> tuple[list[Any], int]:
        runner = Runner(Jobs, MemoryStore.open(SimDisk(), "/s"))
        call = encode_command(1, 1, 0, "finish", msgspec.msgpack.encode((7, "lost")))
        payloads = [encode_command(0, 0, 0, OPEN_SESSION, b"\x90"), call, call]
        found, chain = [], 0
        for index, payload in enumerate(payloads, 1):
            entry = make_entry(index, 1, index, EntryKind.COMMAND, payload, chain)
            chain = entry.chain
            found += runner.apply([entry])
        return found[1:], runner.applied.digest

    (first, retry), digest = run()
    assert first == retry
    assert first.kind is OutcomeKind.REJECTED
    assert run() == ([first, retry], digest)


def as_seen_by(machine: type[StateMachine], error: BaseException, name: str = "go") -> Rejected:
    """What a client with this class makes of what the command raised."""
    return as_declared(read_rejection(rejected(error).payload), machine.methods[name])


def test_a_client_of_another_version_gets_what_it_knows():
    """Fields with defaults come and go; a name that it does not know, or fields that don't fit, leave the text."""

    class Failed(Rejection):
        job: int
        reason: str = "none"

    sent = Failed(job=1, reason="rain")

    def client(declares: str) -> type[StateMachine]:
        if declares == "fewer":

            class Failed(Rejection):
                job: int
        elif declares == "more":

            class Failed(Rejection):  # type: ignore[no-redef]
                job: int
                reason: str = "none"
                more: int = 5
        elif declares == "a type":

            class Failed(Rejection):  # type: ignore[no-redef]
                job: str
        else:
            Failed = None  # type: ignore[assignment,misc]  # noqa: N806

        class Old(StateMachine):
            @command
            def go(self) -> None:
                raise Failed

        return Old

    assert repr(as_seen_by(client("fewer"), sent)) == "Failed(job=1)"
    assert repr(as_seen_by(client("more"), sent)) == "Failed(job=1, reason='rain', more=5)"
    for declares in ("a type", "nothing of that name"):
        found = as_seen_by(client(declares), sent)
        if declares == "a type":
            assert type(found) is Rejected
        assert (found.error_type, found.message) == ("Failed", "job=1, reason='rain'")


def test_a_name_that_nobody_knows_leaves_the_text():
    """An older client."""
    found = as_declared(Rejected("NeverDeclared", "job=1", b"\x81\xa3job\x01"), Jobs.methods["finish"])
    assert type(found) is Rejected
    assert str(found) == "NeverDeclared: job=1"


def test_an_ordinary_error_is_what_it_was():
    """Its payload too: what older versions wrote and read."""
    assert msgspec.msgpack.decode(rejected(ValueError("no")).payload) == ["ValueError", "no"]
    assert msgspec.msgpack.decode(rejected(LeaseLost(1)).payload)[:2] == ["LeaseLost", "job=1, owners=[], hint=None"]
    assert type(as_seen_by(Jobs, ValueError("no"), "finish")) is Rejected


def test_it_is_an_exception_like_others():
    """Copied, pickled, printed; equal only to itself."""
    error = LeaseLost(3, hint="x")
    for made in (copy.copy(error), pickle.loads(pickle.dumps(error))):  # noqa: S301
        assert repr(made) == repr(error) == "LeaseLost(job=3, owners=[], hint='x')"
    assert isinstance(error, Rejected)
    assert len({error, LeaseLost(3)}) == 2
    with pytest.raises(TypeError, match="job"):
        LeaseLost()  # type: ignore[call-arg]


def test_mistakes_in_a_declaration_name_the_line():
    """When the class is made, and not when it is raised."""
    with pytest.raises(MachineError, match=HERE + ": must have no __init__"):

        class Broken(Rejection):
            def __init__(self, job: int) -> None:
                self.job = job

    for name in ("message", "args", "_job", "error_type", "with_traceback", "fields"):
        with pytest.raises(MachineError, match=HERE + f": the field can't be called {name}"):
            type("Broken", (Rejection,), {"__annotations__": {name: int}})
    with pytest.raises(MachineError, match=HERE + ", field job: a set's order"):

        class Broken(Rejection):  # type: ignore[no-redef]
            job: set[int]

    with pytest.raises(MachineError, match=HERE + ", field job: .* can't be serialised"):

        class Broken(Rejection):  # type: ignore[no-redef]
            job: LocalMachine[Any]

    with pytest.raises(MachineError, match=HERE + ": .*Nowhere.*must be known where the class is made"):

        class Broken(Rejection):  # type: ignore[no-redef]
            job: Nowhere  # type: ignore[name-defined]  # noqa: F821

    with pytest.raises(MachineError, match=HERE + ": non-default argument"):

        class Broken(Rejection):  # type: ignore[no-redef]
            hint: str = ""
            job: int  # type: ignore[misc]


class Own(Exception):
    """An application's own class."""


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (TypeError("x"), True),
        (AttributeError("x"), True),
        (AssertionError("x"), True),
        (ZeroDivisionError("x"), True),
        (RecursionError("x"), True),
        (RuntimeError("x"), True),
        (SystemExit(1), True),
        (ValueError("x"), False),
        (UnicodeError("x"), False),
        (KeyError("x"), False),
        (IndexError("x"), False),
        (Own("x"), False),
        (msgspec.ValidationError("x"), False),
        (LeaseLost(1), False),
    ],
)
def test_what_looks_like_a_mistake(error, expected):
    """Python's own errors, but for those with which methods refuse a call; a client goes by the name alone."""
    assert is_mistake(error) is expected
    notes = getattr(as_seen_by(Jobs, error, "finish"), "__notes__", [])
    assert bool(notes) is expected
    if expected:
        assert "a mistake in finish (" in notes[0]
        assert "test_rejection.py:" in notes[0]
        assert "method_raised" in notes[0]


def test_a_local_machine_raises_from_the_mistake_itself():
    """Its traceback is what a unit test wants; an error raised on purpose needs none."""

    class Careless(StateMachine):
        @command
        def go(self, divisor: int) -> int:
            if divisor < 0:
                raise ValueError(divisor)
            return 1 // divisor

    local = LocalMachine(Careless)
    with pytest.raises(Rejected) as found:
        local.go(0)
    assert isinstance(found.value.__cause__, ZeroDivisionError)
    assert found.value.__cause__.__traceback__ is not None
    with pytest.raises(Rejected) as found:
        local.go(-1)
    assert found.value.__cause__ is None
