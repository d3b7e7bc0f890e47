"""One example: what each of its parts finds, and by which name."""

from __future__ import annotations

import re
from functools import partial

import pytest

from raftkv.errors import InvalidArgument
from raftkv.testing import Call, Cause, CounterExample, Fault, UndecidedHistory, UnfitModel, fault_kinds, rerun
from raftkv.testing.judging.checks import QueuesAreBounded
from raftkv.testing.judging.search import Effort
from raftkv.testing.trying import example, performance
from raftkv.testing.trying.determinism import RESTARTS_MAX
from raftkv.testing.trying.example import run_example
from raftkv.testing.trying.performance import Performance
from raftkv.testing.trying.script import Script
from tests.campaign.large import IS_LARGE
from tests.testing import machines
from tests.testing.machines import Failing, Inventory, InventoryModel, Remembering

RECEIVE = Call("receive", ("apple", 3))


def failure_of(machine, *commands, **settings):
    """What `rerun` raises."""
    with pytest.raises(CounterExample) as caught:
        rerun(machine, InventoryModel, commands=commands, **settings)
    return caught.value


def test_a_command_that_would_stop_every_node_is_named():
    """A file that is not there is not the command's own exception: it need not happen on every node (F75)."""
    error = failure_of(Failing, RECEIVE)
    assert error.cause is Cause.FAILED
    assert error.described.startswith(
        "receive('apple', 3) stops every node: the command receive in entry 2 failed with FileNotFoundError: "
    )


def test_a_broken_invariant_is_no_mistake_of_the_application(monkeypatch):
    """It is told with its name and what every node was doing."""

    def full(self, node):
        raise AssertionError("too much waits")

    monkeypatch.setattr(QueuesAreBounded, "look_at", full)
    error = failure_of(Inventory, RECEIVE)
    assert error.cause is Cause.BROKEN
    assert re.match(r"QueuesAreBounded: too much waits\nn1@", error.described)


def test_what_is_not_decided_is_said(monkeypatch):
    """Too many orders to try: that is no pass without a word, and no failure."""
    monkeypatch.setattr(performance, "judge", partial(performance.judge, effort=Effort(places=1)))
    calls = [Call("receive", ("apple", 1), client=client) for client in range(3)]
    with pytest.warns(UndecidedHistory, match="for 1 key the search was given up"):
        rerun(Inventory, InventoryModel, commands=calls, key="sku")


def test_only_what_is_looked_for_is_looked_at(monkeypatch):
    """While a script is made smaller, nothing else need be found."""
    script = Script(calls=(RECEIVE,))
    monkeypatch.setattr(machines, "_cache", {})  # what other tests have made this process remember
    with pytest.raises(CounterExample):
        run_example(Remembering, InventoryModel, script, only={Cause.REMEMBERS})
    monkeypatch.setattr(Performance, "run", lambda self: pytest.fail("a world was made"))
    run_example(Remembering, InventoryModel, script, only={Cause.DISAGREES})
    restarts = []
    monkeypatch.setattr(example, "find_difference", lambda machine, steps, count: restarts.append(count))
    for only in ({Cause.NONDETERMINISTIC}, {Cause.REMEMBERS}):
        run_example(Remembering, InventoryModel, script, only=only)
    assert restarts == [0, RESTARTS_MAX]


@pytest.mark.parametrize("kind", fault_kinds())
def test_each_kind_of_fault_can_strike(kind):
    """Alone and twice, in worlds of one node, three and five; an application that is sound passes.

    A plain run has one of these worlds for each kind, and one of another size for the next.
    """
    at = fault_kinds().index(kind) % 3
    for size in (1, 3, 5) if IS_LARGE else (1, 3, 5)[at : at + 1]:
        rerun(
            Inventory,
            InventoryModel,
            size=size,
            faults=[Fault(kind, at_ms=100, chance=size), Fault(kind, at_ms=300, chance=size + 1)],
            commands=[RECEIVE, *(Call("receive", ("apple", 1), client=2, at_ms=at) for at in range(90, 400, 50))],
            key="sku",
        )


def test_what_cannot_be_rerun_is_an_error():
    """A command that is gone, an argument of another type, a model without the method."""
    with pytest.raises(InvalidArgument, match="Inventory has no command or query 'send'"):
        rerun(Inventory, InventoryModel, commands=[Call("send")])
    with pytest.raises(InvalidArgument, match="Expected `int`, got `str`"):
        rerun(Inventory, InventoryModel, commands=[Call("receive", ("apple", "3"))])
    with pytest.raises(UnfitModel, match="object has no method receive"):
        rerun(Inventory, object, commands=[RECEIVE])
