"""The faces of the other recipes: in virtual time, and of real nodes from threads."""

from __future__ import annotations

import asyncio
import threading

import pytest

from raftkv import BlockingClient, Part, Server, StateMachine
from raftkv.recipes import (
    AwaitedBarriers,
    AwaitedElections,
    AwaitedMembers,
    AwaitedReadWriteLocks,
    AwaitedSemaphores,
    Barriers,
    BlockingBarriers,
    BlockingElections,
    BlockingMembers,
    BlockingReadWriteLocks,
    BlockingSemaphores,
    Elections,
    LockLost,
    Members,
    NotAcquired,
    ReadWriteLocks,
    Semaphores,
)
from raftkv.testing.world.loop import elapse
from tests.recipes.simulated import MemoryClient, run_story


class App(StateMachine):
    """All of them."""

    files = Part(ReadWriteLocks)
    permits = Part(Semaphores)
    elections = Part(Elections)
    workers = Part(Members)
    barriers = Part(Barriers)


async def collect(source, into):
    """All that comes, as it comes."""
    async for each in source:
        into.append(each)


def test_readers_are_kept_up_together_and_a_writer_comes_between():
    """Longer than their own time."""

    async def story():
        client = MemoryClient(App)
        locks = AwaitedReadWriteLocks(client, App.files)
        async with locks.reading("a", ttl_s=5) as one, locks.reading("a", ttl_s=5) as other:
            writing = asyncio.create_task(locks.writing("a", ttl_s=5).acquire())
            await elapse(20)
            one.check()
            other.check()
            assert not writing.done()
            with pytest.raises(NotAcquired):
                await locks.reading("a").acquire(timeout_s=1)
        writer = await writing
        assert writer.token > other.token
        await writer.release()

    run_story(story)


def test_a_semaphore_lets_so_many_in():
    """Ten tasks for three permits, each of which is used."""

    async def story():
        semaphores, inside, most = AwaitedSemaphores(MemoryClient(App), App.permits), set(), []

        async def work(number):
            async with semaphores.permit("gpu", limit=3, ttl_s=5):
                inside.add(number)
                most.append(len(inside))
                await elapse(7)
                inside.remove(number)

        await asyncio.gather(*(work(number) for number in range(10)))
        assert max(most) == 3
        assert len(most) == 10

    run_story(story)


def test_a_leader_that_is_cut_off_is_followed_and_observed():
    """Whoever looks on sees each leader with its data, and nobody in between where there was none."""

    async def story():
        client, beside = MemoryClient(App), MemoryClient(App)
        beside.local, beside.start_ms = client.local, client.start_ms
        seen = []

        looking = asyncio.create_task(collect(AwaitedElections(beside, App.elections).observe("work"), seen))
        await elapse(1)
        first = await AwaitedElections(client, App.elections).campaign("work", data="a", ttl_s=5).acquire()
        second = asyncio.create_task(
            AwaitedElections(beside, App.elections).campaign("work", data="b", ttl_s=5).acquire()
        )
        await elapse(3)
        await AwaitedElections(client, App.elections).proclaim(first, "a2")
        await elapse(10)
        client.is_cut = True
        term = await second
        assert first.lost.is_set()
        await elapse(1)
        await term.release()
        await elapse(1)
        assert [leader and leader.data for leader in seen] == [None, "a", "a2", "b", None]
        looking.cancel()

    run_story(story)


def test_members_are_there_as_long_as_they_are_kept_up():
    """One that is cut off goes, and knows it; one that is replaced knows it too."""

    async def story():
        client, beside = MemoryClient(App), MemoryClient(App)
        beside.local, beside.start_ms = client.local, client.start_ms
        members = AwaitedMembers(beside, App.workers)
        seen = []

        looking = asyncio.create_task(collect(members.observe("w"), seen))
        await elapse(1)
        one = await AwaitedMembers(client, App.workers).join("w", "one", ttl_s=5).acquire()
        await elapse(1)
        async with members.join("w", "two", data="x", ttl_s=5) as two:
            await elapse(20)
            one.check()
            two.check()
            client.is_cut = True
            await one.lost.wait()
            await elapse(1)
            assert [(each.owner, each.data) for each in await members.present("w")] == [("two", "x")]
        again = await members.join("w", "two", ttl_s=5).acquire()
        third = await members.join("w", "two", ttl_s=5).acquire()
        await again.lost.wait()
        third.check()
        with pytest.raises(LockLost):
            again.check()
        await third.release()
        await elapse(1)
        names = [[each.owner for each in present] for present in seen]
        assert names[:4] == [[], ["one"], ["one", "two"], ["two"]]
        assert seen[-1] == []
        looking.cancel()

    run_story(story)


def test_parties_begin_together_and_end_together():
    """Round after round; who is alone for too long has not come."""

    async def story():
        barriers, log = AwaitedBarriers(MemoryClient(App), App.barriers), []

        async def party(number):
            for turn in range(3):
                await elapse(number)
                async with barriers.together("b", parties=3, ttl_s=5):
                    log.append(("in", turn))
                    await elapse(4 * number + 2)
                    log.append(("out", turn))
                log.append(("over", turn))

        await asyncio.gather(*(party(number) for number in range(3)))
        assert log == sorted(log, key=lambda each: (each[1], ["in", "out", "over"].index(each[0])))
        await asyncio.gather(*(barriers.meet("m", parties=2) for _ in range(2)))
        with pytest.raises(NotAcquired):
            await barriers.meet("m", parties=2, timeout_s=3)

    run_story(story)


def test_all_of_them_from_threads(tmp_path):
    """On one node: each face does what the one for asyncio does."""

    def in_thread(address):
        client, another = BlockingClient(App, [address]), BlockingClient(App, [address])
        try:
            files = BlockingReadWriteLocks(client, App.files)
            with files.reading("a") as one, files.reading("a") as other:
                assert 0 < one.token < other.token
                assert files.writing("a").try_acquire() is False
            with files.writing("a"), BlockingSemaphores(client, App.permits).permit("gpu", limit=1) as permit:
                permit.check()
            elections = BlockingElections(client, App.elections)
            looking = elections.observe("work")
            assert next(looking) is None
            with elections.campaign("work", data="a") as term:
                assert next(looking).data == "a"
                elections.proclaim(term, "b")
                assert next(looking).data == elections.leader("work").data == "b"
            assert next(looking) is None
            members = BlockingMembers(client, App.workers)
            with members.join("w", "one", data="x"):
                assert [(each.owner, each.data) for each in members.present("w")] == [("one", "x")]
            assert members.present("w") == []
            barriers, others = BlockingBarriers(client, App.barriers), BlockingBarriers(another, App.barriers)
            thread = threading.Thread(target=others.meet, args=("b",), kwargs={"parties": 2})
            thread.start()
            with barriers.together("b", parties=2):
                thread.join()
        finally:
            another.close()
            client.close()

    async def main():
        async with Server(App, data_dir=tmp_path) as server:
            await asyncio.to_thread(in_thread, server.address)

    asyncio.run(main())
