"""Clients of simulated worlds that have commands run later, and cancel some: each is run once, and never too early."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import Any

from raftkv.client import Client
from raftkv.errors import Indeterminate, NotAccepted, Rejected, SessionExpired
from raftkv.testing.world.cluster import SimCluster
from raftkv.worlds.workload import Reminder, Workload

RUN, CANCELLED = "scheduled command", "scheduled command that is cancelled"
RAN_OUT = "lease that ran out"

SCHEDULED = (RUN, CANCELLED, RAN_OUT)

WORLDS_PART = 0.4
"""Of all worlds have such a client: in the others nothing is written by itself."""


class Reminding:
    """A client that is reminded, and forgets about some of it. The machine writes down what was run, and when."""

    def __init__(self, seed: int, cluster: SimCluster) -> None:
        self._dice = random.Random(f"who is reminded in {seed}")
        self._cluster = cluster
        self.is_wanted = self._dice.random() < WORLDS_PART
        self._scheduled: set[int] = set()
        """Numbers of reminders of which it was heard that they are scheduled."""
        self._cancelled: set[int] = set()
        self._done_ms = 0
        """All that was due before this time was run."""

    async def act(self, client: Client[Workload], is_over: Callable[[], bool]) -> None:
        """Schedule and cancel until the world ends."""
        dice, number = self._dice, 0
        try:
            while not is_over():
                await asyncio.sleep(dice.expovariate(4.0))
                number += 1
                try:
                    await client.call("remind", number, dice.choice([0, 50, 1_000, 1_000, 5_000]))
                    self._scheduled.add(number)
                    other = dice.randrange(max(1, number - 9), number + 1)
                    if dice.random() < 0.4 and await client.call("forget", other):
                        self._cancelled.add(other)
                except (NotAccepted, Indeterminate, SessionExpired, Rejected):
                    continue  # unknown, or of one that was never scheduled
        finally:
            await client.close()

    def is_done(self) -> bool:
        """Whether the leader has run all that is due."""
        leader = self._cluster.leader
        if leader is None or leader.engine.refuse_writes is not None:
            return False
        due_ms, now_ms = leader.applier.runner.next_due_ms, leader.raft.entry_time_ms()
        if due_ms is not None and due_ms <= now_ms:
            return False
        self._done_ms = now_ms
        return True

    async def judge(self, client: Client[Workload]) -> None:
        """Raises `AssertionError` when something was run twice, early, after it was cancelled, or not at all.

        What becomes due after `is_done` has said so may be run after it was looked at.
        """
        now_ms, found, leases = await client.call("reminders_now")
        reminders: dict[int, Reminder] = dict(found)
        self._judge_leases(now_ms, reminders, dict(leases))
        shown_ms, shown = await client.call("leases_now")
        over = [number for number, until_ms in shown if until_ms <= shown_ms]
        assert not over, f"at {shown_ms} a query was shown the leases {over}, which ran out before"
        lost = sorted(self._scheduled - reminders.keys())
        assert not lost, f"reminders {lost} were acknowledged, and are not there"
        for number, each in reminders.items():
            assert each.times <= (not each.cancelled), f"reminder {number} was run {each.times} times: {each}"
            assert each.at_ms is None or each.at_ms >= each.due_ms, f"reminder {number} was run too early: {each}"
            missing = not each.times and not each.cancelled and each.due_ms < self._done_ms
            assert not missing, f"reminder {number} was not run by {self._done_ms}: {each}"
        alive = [number for number in sorted(self._cancelled) if not reminders[number].cancelled]
        assert not alive, f"reminders {alive} were cancelled, and are not"
        counts: dict[str, Any] = {
            RUN: sum(each.times for each in reminders.values()),
            CANCELLED: sum(each.cancelled for each in reminders.values()),
            RAN_OUT: sum(each.overs for each in reminders.values()),
        }
        self._cluster.fired.update({kind: times for kind, times in counts.items() if times})

    def _judge_leases(self, now_ms: int, reminders: dict[int, Reminder], leases: dict[int, int]) -> None:
        """Raises `AssertionError` when one ran out twice, early, or not at all."""
        for number, each in reminders.items():
            assert each.overs <= 1, f"the lease of reminder {number} ran out {each.overs} times: {each}"
            assert number not in leases or not each.overs, f"the lease of reminder {number} is there, and ran out"
            assert each.over_ms is None or each.over_ms >= each.due_ms or each.cancelled, f"it ran out early: {each}"
        over = [number for number, until_ms in leases.items() if until_ms <= now_ms]
        assert not over, f"at {now_ms} there are the leases {over}, which ran out before"
