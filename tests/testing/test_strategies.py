"""Declarations that don't fit the state machine are errors at once, which say what to change."""

from __future__ import annotations

import re
from array import array

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from raftkv.testing import Call, NotImportable, TwinDied, UnfitModel, UnfitStrategy, calls, fault_test
from raftkv.testing.trying import example
from raftkv.testing.trying.budget import BUDGETS
from raftkv.testing.trying.strategies import any_call, chosen_kinds, scripts
from tests.testing.machines import Inventory, InventoryModel, Tags

PATIENT = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
"""The machine may be busy."""

SKUS = st.sampled_from(["apple", "pear"])
RECEIVE = calls(Inventory.receive, SKUS, st.integers(1, 9))


class Stranger:
    """Has a method of the same name."""

    def receive(self, sku: str, quantity: int) -> int:
        """As it says."""
        return quantity


UNFIT = {
    "an argument is missing": (
        {"commands": [calls(Inventory.receive, SKUS)]},
        "receive(sku: str, quantity: int) -> int needs a strategy for quantity: add `quantity=st.integers()`",
    ),
    "an argument is unknown": (
        {"commands": [calls(Inventory.receive, SKUS, amount=st.integers())]},
        "receive(sku: str, quantity: int) -> int has no argument amount: it has sku, quantity",
    ),
    "an argument is given twice": (
        {"commands": [calls(Inventory.receive, SKUS, st.integers(), sku=SKUS)]},
        "receive(sku: str, quantity: int) -> int: there are two strategies for sku",
    ),
    "too many arguments": (
        {"commands": [calls(Inventory.on_hand, SKUS, SKUS)]},
        "on_hand(sku: str) -> int has 1 arguments, but there are 2 strategies",
    ),
    "an unknown command": (
        {"commands": [calls("send", SKUS)]},
        "Inventory has no command or query 'send'; it has receive, on_hand",
    ),
    "no commands": ({"commands": []}, "commands is empty: add `calls(Inventory.receive, …)`"),
    "no strategy": (
        {"commands": [Inventory.receive]},
        "it must be `calls(…)` or a strategy of `Call`s",
    ),
    "queries only": (
        {"commands": [calls(Inventory.on_hand, SKUS)]},
        "commands holds only queries (on_hand): nothing would ever change",
    ),
    "nothing to draw from": (
        {"commands": [RECEIVE, calls(Inventory.on_hand, st.nothing())]},
        "commands[1] holds a strategy that gives nothing",
    ),
    "another class's command": (
        {"commands": [calls(Stranger.receive, SKUS, st.integers())]},
        "Stranger.receive is not Inventory.receive",
    ),
    "an unknown key": (
        {"commands": [RECEIVE], "key": "shop"},
        "key='shop': receive(sku: str, quantity: int) -> int has no such argument",
    ),
    "an unknown fault": ({"commands": [RECEIVE], "faults": ["earthquake"]}, "there is no fault 'earthquake'"),
    "no clients": ({"commands": [RECEIVE], "clients": 0}, "clients = 0: must be at least 1"),
}


@pytest.mark.parametrize("name", UNFIT)
def test_what_does_not_fit_is_an_error_when_it_is_declared(name):
    """Not when the test runs, and not as something that looks like a mistake of the application."""
    settings, text = UNFIT[name]
    with pytest.raises(UnfitStrategy, match=re.escape(text)):
        fault_test(Inventory, model=InventoryModel, **settings)


@pytest.mark.parametrize(
    ("source", "text"),
    [
        (
            calls(Inventory.receive, SKUS, quantity=st.just("three")),
            "the strategy for quantity of receive(sku: str, quantity: int) -> int gave 'three': "
            "use one of its type, like `quantity=st.integers()`",
        ),
        (st.just(Call("receive", ("apple",))), "receive('apple') doesn't fit receive(sku: str, quantity: int) -> int"),
        (st.just("receive"), "a strategy in `commands` gave 'receive': it must give `Call`s, as `calls(…)` does"),
    ],
)
def test_values_of_another_type_are_an_error_when_they_are_drawn(source, text):
    """With the argument whose strategy is to be changed."""
    test = fault_test(Inventory, model=InventoryModel, commands=[source])
    with pytest.raises(UnfitStrategy, match=re.escape(text)):
        test()


def test_a_strategy_of_calls_must_have_the_key():
    """Also where it is not known before it is drawn."""
    test = fault_test(Inventory, model=InventoryModel, commands=[st.just(Call("on_hand", ("a",)))], key="quantity")
    with pytest.raises(UnfitStrategy, match=r"key='quantity': on_hand.* has no such argument"):
        test()


class Growing(InventoryModel):
    """A model that comes to hold what can't be compared."""

    def receive(self, sku, quantity):
        self.array = array("i", [quantity])


def test_what_cannot_be_tried_is_told_at_once(monkeypatch):
    """A model that can't be compared, a process that can't be started: no smaller script would help."""
    test = fault_test(Inventory, model=Growing, commands=[RECEIVE])
    with pytest.raises(UnfitModel, match=r"Growing keeps something that can't be compared: unhashable type: 'array"):
        test()
    tried = []

    def died(machine, steps, restarts_max):
        tried.append(steps)
        raise TwinDied("it could not be started")

    monkeypatch.setattr(example, "find_difference", died)
    with pytest.raises(TwinDied, match="it could not be started"):
        test()
    assert len(tried) == 1


class NoQuery:
    """A model that lacks a method."""

    def receive(self, sku, quantity):
        """Do nothing."""


class OtherArguments(NoQuery):
    """A model with other arguments."""

    def on_hand(self):
        """Do nothing."""


class NeedsArguments(InventoryModel):
    """A model that can't be made."""

    def __init__(self, size):
        super().__init__()


@pytest.mark.parametrize(
    ("model", "text"),
    [
        (NoQuery, "NoQuery has no method on_hand: add `def on_hand(self, sku)`, like on_hand(sku: str) -> int"),
        (OtherArguments, "OtherArguments.on_hand can't be called like on_hand(sku: str) -> int: "),
        (NeedsArguments, "a model is made without arguments"),
    ],
)
def test_a_model_that_does_not_fit_is_an_error(model, text):
    """Like the strategies."""
    with pytest.raises(UnfitModel, match=re.escape(text)):
        fault_test(Inventory, model=model, commands=[RECEIVE, calls(Inventory.on_hand, SKUS)])


def test_an_instance_is_no_model():
    """Each history begins with a new one, so the class is what is needed."""
    with pytest.raises(UnfitModel, match="it must be a class"):
        fault_test(Inventory, model=InventoryModel(), commands=[RECEIVE])
    with pytest.raises(UnfitModel, match="made from StateMachine"):
        fault_test(InventoryModel, model=InventoryModel, commands=[RECEIVE])


def test_what_is_no_method_is_an_error():
    """A table, for instance."""
    with pytest.raises(UnfitStrategy, match="must be a command or a query"):
        calls(Inventory.stock, SKUS)


def test_a_machine_in_a_function_is_an_error():
    """No other process could make it."""

    class Local(Inventory):
        """Made here."""

    with pytest.raises(NotImportable, match="move it to the top of its module"):
        fault_test(Local, model=InventoryModel, commands=[RECEIVE])


def test_arguments_with_defaults_and_fixed_ones_need_no_strategy():
    """What is no strategy is passed as it is; by name or by position."""
    strategy = any_call(Inventory, [calls(Inventory.receive, "apple", quantity=3)])

    @PATIENT
    @given(strategy)
    def check(call):
        assert call == Call("receive", ("apple", 3))

    check()


@PATIENT
@given(scripts(any_call(Tags, [calls(Tags.sound, st.text())]), BUDGETS["quick"], 2, chosen_kinds(None)))
def test_scripts_stay_within_their_budget(script):
    """In order, of the clients that there are, and without what comes by itself."""
    budget = BUDGETS["quick"]
    assert len(script.faults) <= budget.faults_max
    assert all(fault.kind not in ("restart", "heal") for fault in script.faults)
    for items in (script.calls, script.faults):
        assert [item.at_ms for item in items] == sorted(item.at_ms for item in items)
        assert all(0 <= item.at_ms <= budget.duration_ms for item in items)
    assert {call.client for call in script.calls} <= {1, 2}
