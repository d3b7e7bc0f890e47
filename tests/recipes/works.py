"""Recipes while leaders are killed: jobs that are done once, and a resource to which one holder of a lock writes."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from pathlib import Path

from raftkv import Client, Indeterminate, NotAccepted, Part, StateMachine, Table, command, query
from raftkv.recipes import AwaitedLocks, AwaitedQueues, Fences, JobLost, LockLost, Locks, Queues, StaleToken
from tests.chaos.stage import ChaosStage
from tests.forked import ForkedCluster
from tests.integration.nodes import start

VISIBILITY_S = 1.0
TTL_S = 1.0


class Works(StateMachine):
    """Jobs that leave a trace, and a fenced resource."""

    work = Part(Queues)
    locks = Part(Locks)
    fences = Part(Fences)
    effects = Table(int, int)
    """By job: how often it was done."""
    writes = Table(int, int)
    """The tokens, in the order in which they wrote."""

    @command
    def do(self, receipt: int) -> int:
        """Do a job and acknowledge it."""
        job = self.work.job_of(receipt)
        self.effects[job] = self.effects.get(job, 0) + 1
        self.work.ack(receipt, "done here")
        return job

    @command
    def write(self, token: int) -> None:
        """Write to the resource."""
        self.fences.admit("disk", token)
        self.writes[len(self.writes)] = token

    @query
    def all_effects(self) -> list[tuple[int, int]]:
        """How often each job was done."""
        return list(self.effects.items())

    @query
    def all_writes(self) -> list[int]:
        """The tokens that wrote."""
        return list(self.writes.values())


class Outcome:
    """What workers and holders have heard."""

    def __init__(self) -> None:
        self.put: set[int] = set()
        self.acked: Counter[int] = Counter()
        """Acknowledgements that were heard, by job."""
        self.in_doubt: set[int] = set()
        """Jobs of which nobody heard whether they were acknowledged."""
        self.taken_again: list[int] = []
        """Jobs that somebody got after another one had heard that they were done."""
        self.counts: Counter[str] = Counter()
        self.wrote: list[tuple[float, float, int]] = []
        """When a write that was accepted began and ended, and its token."""
        self.effects: dict[int, int] = {}
        self.writes: list[int] = []

    def problems(self) -> list[str]:
        """What must not be."""
        lost = sorted(self.put - set(self.acked) - self.in_doubt)
        twice = sorted(job for job, count in self.acked.items() if count > 1)
        done_twice = sorted(job for job, count in self.effects.items() if count > 1)
        found = [
            f"{what}: {which}"
            for what, which in [
                ("lost", lost),
                ("acknowledged twice", twice),
                ("done twice", done_twice),
                ("given to somebody after it was done", self.taken_again),
            ]
            if which
        ]
        if self.writes != sorted(self.writes):
            found.append("a lower token wrote behind a higher one")
        return found + [
            f"token {token} wrote after {higher} had"
            for began, _, token in self.wrote
            for _, ended, higher in self.wrote
            if higher > token and ended < began
        ]


class Story:
    """One run: load from all sides until leaders were killed for so long, then what is left of the jobs."""

    def __init__(self, stage: ChaosStage, seconds: float, every_s: float) -> None:
        self.stage = stage
        self.seconds = seconds
        self.every_s = every_s
        self.outcome = Outcome()
        self.is_over = asyncio.Event()

    def client(self) -> Client[Works]:
        """A process of its own, as it were."""
        return Client(Works, self.stage.cluster.addresses)

    async def pause(self, seconds: float) -> None:
        """For so long, or until it is over."""
        try:
            await asyncio.wait_for(self.is_over.wait(), seconds)
        except TimeoutError:
            return

    async def tell(self) -> Outcome:
        """Play it."""
        await self.stage.leader()
        async with asyncio.TaskGroup() as group:
            group.create_task(self.kill())
            group.create_task(self.produce())
            for number in range(4):
                group.create_task(self.work(number))
            for number in range(3):
                group.create_task(self.hold(number))
        client = self.client()
        self.outcome.effects = dict(await client.call(Works.all_effects))
        self.outcome.writes = await client.call(Works.all_writes)
        await client.close()
        return self.outcome

    async def kill(self) -> None:
        """The leader, again and again; it is back at once."""
        end = time.monotonic() + self.seconds
        while time.monotonic() < end:
            await self.pause(self.every_s)
            leader = await self.stage.leader()
            await asyncio.to_thread(leader.kill)
            leader.start()
            self.outcome.counts["leaders killed"] += 1
        self.is_over.set()

    async def produce(self) -> None:
        """Put jobs."""
        client = self.client()
        queues = AwaitedQueues(client, Works.work)
        while not self.is_over.is_set():
            try:
                job = await queues.put("work", "x", priority=len(self.outcome.put) % 3, attempts=1000, backoff_s=0.1)
                self.outcome.put.add(job)
            except (NotAccepted, Indeterminate):
                self.outcome.counts["puts without an answer"] += 1
            await self.pause(0.01)
        await client.close()

    async def work(self, number: int) -> None:
        """Take jobs: some are done in the cluster, some elsewhere, and with some the worker is paused."""
        client, outcome = self.client(), self.outcome
        queues = AwaitedQueues(client, Works.work)
        while not (self.is_over.is_set() and outcome.put <= set(outcome.acked) | outcome.in_doubt):
            try:
                work = await queues.next_job("work", VISIBILITY_S, 0.5)
            except (NotAccepted, Indeterminate, TimeoutError):
                continue
            outcome.counts["taken"] += 1
            if work.job in outcome.acked:
                outcome.taken_again.append(work.job)
            try:
                if work.attempt == 1 and work.job % 20 == 0:
                    work.let_go()  # as a process that is stopped: nothing is extended
                    await self.pause(2 * VISIBILITY_S)
                if work.job % 2:
                    await client.call(Works.do, work.receipt)
                else:
                    await work.ack("done elsewhere")
                outcome.acked[work.job] += 1
            except JobLost:
                outcome.counts["workers that came too late"] += 1
            except Indeterminate:
                outcome.in_doubt.add(work.job)
            except NotAccepted:
                outcome.counts["acks not accepted"] += 1
            work.let_go()
        await client.close()

    async def hold(self, number: int) -> None:
        """Write to the resource under the lock; in between, go on after the time of the lock is over."""
        client = self.client()
        locks = AwaitedLocks(client, Works.locks)
        rounds = 0
        while not self.is_over.is_set():
            rounds += 1
            lock = locks.lock("disk", ttl_s=TTL_S, timeout_s=2.0)
            try:
                await lock.acquire()
                token = lock.token
                for _ in range(5):
                    await self.write(client, token)
                if rounds % 3 == 0:
                    lock._upkeep.stop()  # as a process that is stopped
                    await self.pause(2 * TTL_S)
                    await self.write(client, token)
                await lock.release()
            except (NotAccepted, Indeterminate, TimeoutError, LockLost):
                self.outcome.counts["locks given up"] += 1
            await self.pause(0.01)
        await client.close()

    async def write(self, client: Client[Works], token: int) -> None:
        """Write once."""
        began = time.monotonic()
        try:
            await client.call(Works.write, token)
        except StaleToken:
            self.outcome.counts["stale tokens refused"] += 1
        else:
            self.outcome.wrote.append((began, time.monotonic(), token))
            self.outcome.counts["writes"] += 1


def play(directory: Path, seconds: float, every_s: float = 3.0) -> Outcome:
    """Run it on three real nodes."""

    async def story() -> Outcome:
        with ForkedCluster(directory, 3, arguments=["--machine", "tests.recipes.works:Works"]) as cluster:
            return await Story(start(cluster, directory), seconds, every_s).tell()

    return asyncio.run(story())
