"""Recipes under all the faults that the test kit knows, against models that know the time too."""

from __future__ import annotations

from hypothesis import strategies as st

from raftkv import Part, StateMachine
from raftkv.recipes import Barriers, Elections, Locks, Members, ReadWriteLocks, Semaphores
from raftkv.testing import calls, earlier, fault_test
from tests.recipes.models import (
    BarriersModel,
    ElectionsModel,
    LocksModel,
    MembersModel,
    ReadWriteModel,
    SemaphoresModel,
)

NAMES = st.sampled_from("xy")
OWNERS = st.sampled_from(["ann", "bob", "eve"])
TTLS = st.sampled_from([0.5, 3.0, 600.0])
WAITS = st.sampled_from([0.0, 1.0, 600.0])
DATA = st.sampled_from(["", "a"])


def common(recipe, ask):
    """The calls that all of them have; `ask` is what answers with tokens."""
    token = earlier(ask, st.integers(1, 12))
    return [
        calls(recipe.renew, NAMES, token),
        calls(recipe.release, NAMES, token),
        calls(recipe.leave, NAMES, OWNERS),
        calls(recipe.token_of, NAMES, OWNERS),
        calls(recipe.waiting, NAMES),
    ]


test_locks = fault_test(
    Locks,
    model=LocksModel,
    commands=[
        calls(Locks.acquire, NAMES, OWNERS, TTLS, WAITS),
        calls(Locks.acquire, "x", OWNERS, TTLS, WAITS),
        calls(Locks.holders, NAMES),
        *common(Locks, Locks.acquire),
    ],
)

test_read_write_locks = fault_test(
    ReadWriteLocks,
    model=ReadWriteModel,
    commands=[
        calls(ReadWriteLocks.acquire_read, NAMES, OWNERS, TTLS, WAITS),
        calls(ReadWriteLocks.acquire_write, NAMES, OWNERS, TTLS, WAITS),
        calls(ReadWriteLocks.holders, NAMES),
        *common(ReadWriteLocks, ReadWriteLocks.acquire_read),
    ],
)

test_semaphores = fault_test(
    Semaphores,
    model=SemaphoresModel,
    commands=[
        calls(Semaphores.acquire, NAMES, OWNERS, st.integers(2, 3), st.integers(1, 2), TTLS, WAITS),
        calls(Semaphores.resize, NAMES, st.integers(2, 3)),
        calls(Semaphores.free, NAMES),
        *common(Semaphores, Semaphores.acquire),
    ],
)

test_elections = fault_test(
    Elections,
    model=ElectionsModel,
    commands=[
        calls(Elections.campaign, NAMES, OWNERS, DATA, TTLS, WAITS),
        calls(Elections.proclaim, NAMES, earlier(Elections.campaign, 1), DATA),
        calls(Elections.leader, NAMES),
        *common(Elections, Elections.campaign),
    ],
)

test_members = fault_test(
    Members,
    model=MembersModel,
    commands=[
        calls(Members.join, NAMES, OWNERS, DATA, TTLS),
        calls(Members.present, NAMES),
        *common(Members, Members.join),
    ],
)

test_barriers = fault_test(
    Barriers,
    model=BarriersModel,
    commands=[
        calls(Barriers.enter, NAMES, OWNERS, 2, TTLS, WAITS),
        calls(Barriers.enter, "x", OWNERS, 2, 600.0, 600.0),
        calls(Barriers.inside, NAMES),
        *common(Barriers, Barriers.enter),
    ],
)


class App(StateMachine):
    """A part under faults."""

    locks = Part(Locks)


class AppModel:
    """The model has the part's methods under its name, and is told what runs by itself."""

    def __init__(self) -> None:
        self.model = LocksModel()

    def locks_acquire(self, name: str, owner: str, ttl_s: float, wait_s: float, now_ms: int) -> int:
        return self.model.acquire(name, owner, ttl_s, wait_s, now_ms)

    def locks_renew(self, name: str, token: int, now_ms: int) -> None:
        self.model.renew(name, token, now_ms)

    def locks_hold_is_over(self, key, hold, now_ms: int) -> None:
        self.model.hold_is_over(key, hold, now_ms)

    def locks_wait_is_over(self, key, waiter, now_ms: int) -> None:
        self.model.wait_is_over(key, waiter, now_ms)


test_a_part = fault_test(
    App,
    model=AppModel,
    commands=[
        calls(App.locks.acquire, "x", OWNERS, TTLS, WAITS),
        calls(App.locks.renew, "x", earlier(App.locks.acquire, 1)),
    ],
)
