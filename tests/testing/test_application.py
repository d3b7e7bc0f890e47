"""`fault_test`: sound applications pass, and each kind of mistake is found, named, shrunk, printed and saved."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import msgspec
import pytest
from hypothesis import strategies as st

from raftkv import testing
from raftkv.errors import ConfigError
from raftkv.machine import sessions
from raftkv.testing import Call, Cause, CounterExample, calls, fault_test, load, rerun
from raftkv.testing.trying.application import FaultTest
from raftkv.testing.trying.budget import BUDGETS, budget_of, chosen
from raftkv.testing.trying.saved import rerun as rerun_saved
from tests.testing.machines import (
    Attribute,
    Following,
    Forgetful,
    Holds,
    HoldsModel,
    Inventory,
    InventoryModel,
    Lingering,
    Memoizing,
    Mirroring,
    Remembering,
    Tags,
    TagsModel,
    Unrenewed,
    Writing,
)

SKUS = st.sampled_from(["apple", "pear"])


@pytest.fixture(autouse=True)
def failures(tmp_path, monkeypatch):
    """Failures of these tests are saved where nobody looks for them."""
    monkeypatch.setattr(chosen, "directory", str(tmp_path))
    return tmp_path


FINDING = msgspec.structs.replace(BUDGETS["quick"], examples=100, shrinks=24, bursts_max=3, faults_max=2)
"""Short scripts, which need not be made much shorter."""
SHORT = msgspec.structs.replace(BUDGETS["quick"], examples=500, shrinks=10)
"""Looks until it finds something, and does not make it as small as it could be."""


def inventory_test(machine, budget="quick", faults=None):
    """The test of an inventory."""
    return fault_test(
        machine,
        model=InventoryModel,
        commands=[calls(machine.receive, SKUS, quantity=st.integers(-1, 9)), calls(machine.on_hand, SKUS)],
        key="sku",
        budget=budget,
        faults=faults,
    )


def failure_of(test):
    """What a test fails with."""
    with pytest.raises(CounterExample) as caught:
        test()
    return caught.value


class TestInventory:
    """A declaration may stand in a class."""

    test_a_sound_machine_passes = inventory_test(Inventory)


@pytest.mark.parametrize(
    ("machine", "cause", "words"),
    [
        (Forgetful, Cause.DISAGREES, r"receive\('\w+', 4\) gives 4, the model gives 5, with nothing going wrong"),
        (Writing, Cause.DISAGREES, r"on_hand\('\w+'\) raises TypeError: only a command may change a table"),
        (Attribute, Cause.DISAGREES, r"receive\('\w+', \d\) raises AttributeError: Attribute\.last can't be set: it"),
        (Remembering, Cause.REMEMBERS, r"receive\('\w+', 1\) uses something outside of tables, which a restart for"),
        (
            Mirroring,
            Cause.REMEMBERS,
            r"on_hand\('\w+'\) uses something outside of tables, which a restart forgets: the",
        ),
        (
            Memoizing,
            Cause.REMEMBERS,
            r"on_hand\('\w+'\) uses something outside of tables, which a restart forgets: the",
        ),
        (
            Following,
            Cause.REMEMBERS,
            r"receive\('\w+', \d\) uses something outside of tables, which a restart forgets: o",
        ),
    ],
)
def test_a_mistake_is_found_and_named(machine, cause, words):
    """What the machine gets wrong stands in the first words, for the smallest script that shows it."""
    error = failure_of(inventory_test(machine, FINDING))
    assert error.cause is cause
    assert re.match(words, error.described)
    assert error.program.count("Call(") == (2 if machine in (Forgetful, Mirroring, Memoizing, Following) else 1)
    assert "Fault(" not in error.program
    assert error.diagram.count("✖") == 1
    drawn = Path(error.page).read_text()
    assert drawn.count("<tr class=differs id=broken>") == 1
    assert "the model" in drawn or cause is Cause.REMEMBERS


@pytest.mark.parametrize(
    ("method", "named"),
    [
        ("by_set", "by_set(["),
        ("by_clock", "by_clock('') is not deterministic: log[2]['at'] is 1000000000."),
        ("by_date", "by_date('') is not deterministic: last is ' 2001-09-09' in one process and ' 2033-05-18' in"),
        ("by_dice", "by_dice('') is not deterministic: the result is "),
        ("by_place", "by_place('') is not deterministic: the result is "),
    ],
)
def test_a_nondeterministic_command_is_named(method, named):
    """With the field that differed, among commands that do as they should (F76)."""
    words = st.text("abc", max_size=3)
    argument = st.lists(words, max_size=8) if method == "by_set" else words
    sources = [calls(Tags.sound, words), calls(method, argument)]
    test = fault_test(Tags, model=TagsModel, commands=sources, budget=SHORT)
    error = failure_of(test)
    assert error.cause is Cause.NONDETERMINISTIC
    assert error.described.startswith(named)
    assert error.program.count("Call(") == 1


def test_a_lost_retry_is_found_under_faults(monkeypatch):
    """A cluster that forgot to remember sessions' answers would apply a retried command twice: only faults show it."""
    monkeypatch.setattr(sessions.Sessions, "known_outcome", lambda *_: None)
    monkeypatch.setattr(FaultTest, "_alone", lambda *_: None)  # which would find nothing
    # With others it can take fifty scripts and not seven; and what is drawn for it hangs on which modules are imported.
    monkeypatch.setattr(chosen, "seed", 7)
    budget = msgspec.structs.replace(SHORT, examples=400)
    error = failure_of(inventory_test(Inventory, budget, faults=["crash"]))
    assert error.cause is Cause.NOT_LINEARIZABLE
    assert "no order of these calls explains what the clients heard:\nclient " in error.described
    assert "Fault(" in error.program
    assert "✖ no order of these calls explains" in error.diagram
    assert "node 1" in error.diagram.splitlines()[0]
    assert Path(error.page).read_text().startswith("<!DOCTYPE html>")
    assert error.instructions.endswith(f"What happened is drawn in: {error.page}")


@pytest.mark.parametrize(
    ("machine", "long_scripts", "calls_needed"),
    [(Holds, 20, None), (Unrenewed, 0, None), (Unrenewed, 20, 3), (Lingering, 20, 2)],
)
def test_what_shows_after_ten_seconds_is_found_by_long_scripts(machine, long_scripts, calls_needed):
    """They take up to minutes, and are made short where they fail; those that worlds play are over in two seconds.

    What a mistake needs are a hold, its renewal, and somebody else between their ends; or just when the only one ends.
    """
    test = fault_test(
        machine,
        model=HoldsModel,
        commands=[calls(machine.hold, st.sampled_from(["a", "b"]), st.sampled_from(["ann", "bob"]))],
        faults=["crash"],
        budget=msgspec.structs.replace(BUDGETS["quick"], examples=3, long_scripts=long_scripts),
    )
    if calls_needed is None:
        test()
        return
    error = failure_of(test)
    assert error.cause == Cause.DISAGREES
    # How far it gets hangs on what was drawn, and so on which modules are imported; scripts begin with 60 calls.
    assert calls_needed <= error.program.count("Call(") <= calls_needed + 2


def test_the_saved_failure_is_the_same_again(failures):
    """The file is named after the test; its failure has the same words, and its program can be run."""
    error = failure_of(inventory_test(Forgetful))
    (path,) = failures.glob("*.json")
    assert error.path == str(path)
    assert "test_the_saved_failure_is_the_same_again" in path.name
    with pytest.raises(CounterExample) as again:
        rerun_saved(load(path))
    assert again.value.described == error.described
    with pytest.raises(CounterExample) as pasted:
        exec(error.program, {})  # noqa: S102 (that it can be pasted is what is tested)
    assert pasted.value.described == error.described


def test_a_program_by_hand_may_pass():
    """`rerun` says nothing when there is nothing to say."""
    rerun(Inventory, InventoryModel, seed=1, commands=[Call("receive", ("apple", 3))], key="sku")


def test_without_the_plugin_the_text_says_how_to_see_it_again(monkeypatch):
    """Whatever runs the test: the program is in the exception's notes."""
    monkeypatch.setattr(chosen, "reports", False)
    error = failure_of(inventory_test(Writing))
    (note,) = error.__notes__
    assert note.startswith("This program shows it again:\n\n    from raftkv.testing import Call, rerun\n")
    again, _, picture = note.splitlines()[-3:]
    assert again == f"So does: raftkv replay {error.path}"
    assert picture.endswith(".html") and Path(picture.split()[-1]).is_file()


def test_the_budget_is_what_was_chosen(monkeypatch):
    """By the test, the command line, the environment; or else quick."""
    monkeypatch.setattr(chosen, "budget", None)
    monkeypatch.delenv("RAFTKV_BUDGET", raising=False)
    assert budget_of(None) is BUDGETS["quick"]
    monkeypatch.setenv("RAFTKV_BUDGET", "ci")
    assert budget_of(None) is BUDGETS["ci"]
    monkeypatch.setattr(chosen, "budget", "soak")
    assert budget_of(None) is BUDGETS["soak"]
    assert budget_of("quick") is BUDGETS["quick"]
    with pytest.raises(ConfigError, match="must be one of quick, ci, soak"):
        budget_of("endless")


def test_the_public_names_are_there_and_documented():
    """Each name in `__all__` exists, in order, with a docstring of its own; and no other is asked for in vain."""
    assert testing.__all__ == sorted(testing.__all__)
    for name in testing.__all__:
        assert inspect.getdoc(getattr(testing, name)), f"{name} has no docstring"
    with pytest.raises(AttributeError, match="has no attribute 'faulttest'"):
        testing.faulttest  # noqa: B018
