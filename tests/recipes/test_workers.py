"""Workers: they have a job as long as they work on it, and each is done once."""

from __future__ import annotations

import asyncio
import threading

import pytest

from raftkv import Part, StateMachine, TimedOut, command
from raftkv.recipes import (
    AwaitedQueues,
    BlockingQueues,
    IdempotencyKeys,
    JobLost,
    Locks,
    NotAcquired,
    Queues,
    RateLimits,
    Seen,
)
from raftkv.testing.world.loop import elapse
from tests.recipes.simulated import MemoryClient, run_in_thread, run_story


class App(StateMachine):
    """Queues as a part."""

    work = Part(Queues)

    @command
    def finish(self, receipt: int) -> int:
        """Do a job within the machine."""
        job = self.work.job_of(receipt)
        self.work.ack(receipt, "done within")
        return job


class All(Locks, Queues, RateLimits, IdempotencyKeys):
    """They can be mixed, too."""


def test_a_job_is_kept_as_long_as_it_is_worked_on_and_done_at_the_end():
    """Ten times its visibility; another worker waits meanwhile, in vain."""

    async def story():
        client = MemoryClient(App)
        queues, others = AwaitedQueues(client, App.work), AwaitedQueues(client.another(), App.work)
        number = await queues.put("mail", "a")
        async with queues.take("mail", visibility_s=3, worker="w1") as job:
            assert (job.job, job.data, job.attempt) == (number, "a", 1)
            with pytest.raises(NotAcquired, match="'mail' had no job within 30 s"):
                async with others.take("mail", timeout_s=30):
                    pass
            job.check()
            job.result = "sent"
        assert await queues.finished(number) == Seen("mail", "done", 1, "w1", "sent")
        assert await queues.finished(12) is None

    run_story(story)


def test_a_job_that_a_command_of_the_machine_does_is_let_go():
    """The end of the block leaves it as it is, and nothing is extended any more. One that isn't let go is lost."""

    async def story():
        client = MemoryClient(App)
        queues = AwaitedQueues(client, App.work)
        number = await queues.put("mail", "a", attempts=1)
        async with queues.take("mail") as job:
            assert await client.call(App.finish, job.receipt) == number
            job.let_go()
        assert (await queues.finished(number)).result == "done within"
        await queues.put("mail", "not let go")
        with pytest.raises(JobLost) as caught:
            async with queues.take("mail") as job:
                await client.call(App.finish, job.receipt)
        assert caught.value.__notes__ == [
            "if a command of the machine has done this job itself, call `let_go()` behind it, in the block"
        ]
        number = await queues.put("mail", "b", attempts=1)
        async with queues.take("mail", visibility_s=5) as job:
            job.let_go()
        await elapse(6)
        assert (await queues.finished(number)).state == "dead"

    run_story(story)


def test_a_worker_waits_for_a_job_and_has_it_as_soon_as_it_is_there():
    """Also one that comes after a delay; whoever has put it waits for its end."""

    async def story():
        client = MemoryClient(All)
        queues, others = AwaitedQueues(client), AwaitedQueues(client.another())

        async def work():
            async with others.take("mail") as job:
                job.result = job.data.upper()

        worker = asyncio.create_task(work())
        await elapse(100)
        number = await queues.put("mail", "a", delay_s=5)
        with pytest.raises(TimedOut, match="is delayed still, after 4 s"):
            await queues.finished(number, timeout_s=4)
        assert (await queues.finished(number, timeout_s=2)).result == "A"
        await worker

    run_story(story)


def test_a_worker_that_is_cut_off_knows_it_before_another_has_the_job():
    """And is refused when it says that it has done it."""

    async def story():
        client = MemoryClient(App)
        queues, others = AwaitedQueues(client, App.work), AwaitedQueues(client.another(), App.work)
        number = await queues.put("mail", "a", backoff_s=0)
        told = []
        with pytest.raises(JobLost):
            async with queues.take("mail", visibility_s=6) as job:
                job.on_lost(lambda: told.append("lost"))
                client.is_cut, client.silence_s = True, 100.0
                taking = asyncio.create_task(others.next_job("mail", 6.0))
                await job.lost.wait()
                assert not taking.done()
                with pytest.raises(JobLost):
                    job.check()
                other = await taking
                await other.ack("by the other")
                client.is_cut = False
        assert told == ["lost"]
        assert (await queues.finished(number)).result == "by the other"

    run_story(story)


def test_a_job_whose_block_raises_has_failed_with_that_and_is_tried_again():
    """The worker sees its own error; the job has it, cut to what is reasonable."""

    async def story():
        client = MemoryClient(App)
        queues = AwaitedQueues(client, App.work)
        number = await queues.put("mail", "a", attempts=2, backoff_s=0.5)
        for _ in range(2):
            with pytest.raises(ValueError, match="no such address"):
                async with queues.take("mail"):
                    raise ValueError("no such address" + 2000 * "!")
        seen = await queues.finished(number)
        assert (seen.state, seen.attempts) == ("dead", 2)
        assert seen.error.startswith("ValueError: no such address!")
        assert len(seen.error) == 1000

    run_story(story)


def test_workers_run_for_ever_whatever_jobs_raise_and_while_there_is_no_cluster():
    """Three at a time; what fails is tried again, beside the others; an outage is waited out."""

    async def story():
        client = MemoryClient(App)
        queues = AwaitedQueues(client, App.work)
        busy, most = set(), []

        async def handle(job):
            busy.add(job.job)
            most.append(len(busy))
            await elapse(1)
            busy.discard(job.job)
            if job.attempt == 1 and job.data == "bad":
                raise ValueError("bad")
            return f"{job.data} at attempt {job.attempt}"

        producer = AwaitedQueues(client.another(), App.work)
        running = asyncio.create_task(queues.run("mail", handle, at_once=3, worker="w"))
        await elapse(1)
        client.is_cut = True
        numbers = [await producer.put("mail", data) for data in ("good", "bad", "good", "bad", "good")]
        await elapse(60)
        client.is_cut = False
        ends = [await producer.finished(number, timeout_s=30) for number in numbers]
        assert [each.result for each in ends] == [
            f"{data} at attempt {at}"
            for data, at in zip(("good", "bad", "good", "bad", "good"), (1, 2, 1, 2, 1), strict=True)
        ]
        assert max(most) == 3
        client.is_closed, client.is_cut = True, True
        await running

    run_story(story)


def test_a_worker_that_is_stopped_gives_its_job_back():
    """Another one has it after its backoff, long before its visibility is over."""

    async def story():
        client = MemoryClient(App)
        queues = AwaitedQueues(client, App.work)
        await queues.put("mail", "a")

        async def handle(job):
            await asyncio.Event().wait()

        running = asyncio.create_task(queues.run("mail", handle, visibility_s=600))
        await elapse(1)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        async with queues.take("mail", timeout_s=2) as job:
            assert job.attempt == 2

    run_story(story)


def test_a_worker_that_is_stopped_while_it_asks_for_a_job_costs_it_no_attempt():
    """The job was taken when nobody waited for the answer any more: it goes back at once. If even that can't be told,
    its time ends it."""

    async def story():
        client = MemoryClient(App)
        queues, others = AwaitedQueues(client, App.work), AwaitedQueues(client.another(), App.work)
        number = await others.put("mail", "a", attempts=1)
        client.answer_s = 1.0
        taking = asyncio.create_task(queues.next_job("mail", 600))
        await elapse(0.5)
        taking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await taking
        async with others.take("mail", visibility_s=5, timeout_s=0) as job:
            assert (job.job, job.attempt) == (number, 1)
        client.answer_s = 100.0
        number = await others.put("mail", "b", attempts=1)
        taking = asyncio.create_task(queues.next_job("mail", 5))
        await elapse(0.5)
        taking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await taking
        assert (await others.finished(number, timeout_s=10)).state == "dead"

    run_story(story)


def test_threads_take_jobs_from_a_real_node(tmp_path):
    """`BlockingQueues`: one thread puts, another works; failures and results arrive."""

    def story(client):
        queues = BlockingQueues(client, App.work)

        def work():
            for job in queues.jobs("mail", visibility_s=0.5):
                with job:
                    job.check()
                    job.result = job.data.upper()
                if job.data == "last":
                    return

        worker = threading.Thread(target=work)
        worker.start()
        numbers = [queues.put("mail", data) for data in ("a", "b", "last")]
        assert [queues.finished(number, timeout_s=20).result for number in numbers] == ["A", "B", "LAST"]
        worker.join()
        number = queues.put("mail", "c", attempts=1)
        with pytest.raises(ZeroDivisionError), queues.take("mail") as job:
            raise ZeroDivisionError
        assert queues.finished(number).state == "dead"
        with pytest.raises(NotAcquired), queues.take("mail", timeout_s=0.1):
            pass
        queues.put("mail", "d")
        job = queues.next_job("mail")
        job.nack("not now", 0)
        queues.next_job("mail").ack()
        assert not job.lost.is_set()
        number = queues.put("loud", "e")
        waiting.extend(threading.Thread(target=queues.run, args=("loud", shout)) for _ in range(2))
        for each in waiting:
            each.start()
        assert queues.finished(number).result == "E!"

    waiting = []

    def shout(job):
        return f"{job.data.upper()}!"

    run_in_thread(App, tmp_path, story)
    for each in waiting:
        each.join(20)
        assert not each.is_alive(), "a worker goes on with a client that is closed"
