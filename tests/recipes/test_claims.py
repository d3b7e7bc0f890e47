"""Claims: kept up in the background, and given up as soon as they are not sure any more."""

from __future__ import annotations

import asyncio

import pytest

from raftkv import BlockingClient, Client, InvalidArgument, Part, Server, StateMachine, TimedOut, Unavailable
from raftkv.recipes import AwaitedLocks, BlockingLocks, LockLost, Locks, NotAcquired
from raftkv.testing.world.loop import elapse
from tests.recipes.simulated import MemoryClient, run_story


class App(StateMachine):
    """Locks as a part."""

    locks = Part(Locks)


def test_a_lock_is_kept_up_as_long_as_it_is_wanted_and_then_given_to_the_next():
    """Ten times its own time; the next waits in the queue, and has it when the block ends."""

    async def story():
        client = MemoryClient(App)
        locks, others = AwaitedLocks(client, App.locks), AwaitedLocks(client.another(), App.locks)
        async with locks.lock("db", ttl_s=10) as lock:
            waiting = asyncio.create_task(others.lock("db", ttl_s=10).acquire())
            for _ in range(100):
                await elapse(1)
                lock.check()
                assert not waiting.done()
        second = await waiting
        assert lock.token == 0
        assert client.local.locks.token_of("db", second.owner) == second.token
        await elapse(50)
        second.check()
        assert await second.release() is True
        assert await second.release() is False
        assert client.local.locks.holders("db") == []

    run_story(story)


def test_a_holder_that_is_cut_off_is_told_before_anybody_else_has_the_lock():
    """However long its calls hang: `lost` is set, `check` raises, and the block ends with `LockLost`."""

    async def story():
        client = MemoryClient(Locks)
        told = []
        with pytest.raises(LockLost):
            async with AwaitedLocks(client).lock("db", ttl_s=9) as lock:
                lock.on_lost(lambda: told.append(asyncio.get_running_loop().time()))
                await elapse(5)
                client.is_cut, client.silence_s = True, 100.0
                other = AwaitedLocks(client.another()).lock("db", ttl_s=9)
                got = asyncio.create_task(other.acquire())
                await lock.lost.wait()
                assert not got.done()
                with pytest.raises(LockLost):
                    lock.check()
                await got
                assert other.token > 0
                client.is_cut = False
        assert len(told) == 1
        other.check()
        await other.release()

    run_story(story)


def test_slow_answers_do_not_make_a_holder_believe_too_long():
    """Its time counts from the question on, also if it had to wait, and heard late that it has its turn."""

    async def story():
        client, loop = MemoryClient(Locks), asyncio.get_running_loop()
        first = client.local.acquire("db", "another", 600)
        task = asyncio.create_task(AwaitedLocks(client).lock("db", ttl_s=9).acquire())
        await elapse(0.5)
        client.answer_s = 2.0
        client.local.release("db", first)
        lock = await task
        for until_s in (0.0, 6.0):
            # In the first round nothing was renewed yet, in the second one something was.
            if until_s:
                lock = await lock.acquire()
                await elapse(until_s)
            client.is_cut = True
            ends_s = client.ends_s("db", lock.token)
            await lock.lost.wait()
            assert loop.time() <= ends_s + 0.001
            client.is_cut = False
            await elapse(20)

    run_story(story)


class Deaf(MemoryClient[Locks]):
    """Hears no news of what it waits for."""

    async def poll(self, query: object, *args: object, unlike: object, timeout_s: float) -> object:
        """Wait in vain."""
        await elapse(timeout_s)
        raise TimedOut("no news")


def test_a_turn_that_came_unheard_counts_from_when_it_was_renewed():
    """Who asks again, and finds that the lock was given to it meanwhile, does not know for how long it has it."""

    async def story():
        client, loop = Deaf(Locks), asyncio.get_running_loop()
        first = client.local.acquire("db", "another", 600)
        task = asyncio.create_task(AwaitedLocks(client).lock("db", ttl_s=9).acquire())
        await elapse(0.5)
        client.pass_time()
        client.local.release("db", first)
        lock = await task
        client.is_cut = True
        ends_s = client.ends_s("db", lock.token)
        await lock.lost.wait()
        assert loop.time() <= ends_s + 0.001

    run_story(story)


def test_failures_in_between_are_borne():
    """A renewal that fails is tried again: the time that is left is enough for it."""

    async def story():
        client = MemoryClient(Locks)
        async with AwaitedLocks(client).lock("db", ttl_s=9) as lock:
            for _ in range(5):
                await elapse(3)
                client.is_cut = True
                await elapse(4)
                client.is_cut = False
                await elapse(3)
                lock.check()

    run_story(story)


def test_a_lock_that_was_taken_away_is_lost_at_the_next_renewal():
    """An operator has released it, or the log's clock has leaped."""

    async def story():
        client = MemoryClient(Locks)
        lock = await AwaitedLocks(client).lock("db", ttl_s=9).acquire()
        client.local.release("db", lock.token)
        await asyncio.wait_for(lock.lost.wait(), 3.5)
        with pytest.raises(LockLost, match="does not hold 'db' any more"):
            lock.check()
        again = await lock.acquire()
        again.check()
        await lock.release()

    run_story(story)


def test_a_pause_is_noticed_before_any_task_has_run():
    """`check` goes by the clock: a process that was stopped must not do one more step."""

    async def story():
        client = MemoryClient(Locks)
        lock = await AwaitedLocks(client).lock("db", ttl_s=9).acquire()
        loop = asyncio.get_running_loop()
        before = loop.time
        loop.time = lambda: before() + 9
        try:
            with pytest.raises(LockLost):
                lock.check()
            assert lock.lost.is_set()
        finally:
            loop.time = before

    run_story(story)


def test_who_does_not_get_it_in_time_waits_no_longer():
    """Nor does one that is cancelled, or whose call fails: nothing is left in the queue."""

    async def story():
        client = MemoryClient(Locks)
        locks = AwaitedLocks(client)
        held = await locks.lock("db", ttl_s=10).acquire()
        assert await locks.lock("db").try_acquire() is False
        with pytest.raises(NotAcquired, match="'db' was not to be had within 25 s"):
            async with locks.lock("db", ttl_s=10, timeout_s=25):
                raise AssertionError("it is held by another")
        task = asyncio.create_task(locks.lock("db").acquire())
        await elapse(1)
        assert len(client.local.waiting("db")) == 1
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert client.local.waiting("db") == []
        client.is_cut = True
        with pytest.raises(Unavailable):
            await locks.lock("db").acquire()
        client.is_cut = False
        await held.release()
        assert await held.try_acquire() is True
        with pytest.raises(InvalidArgument, match="is held by this claim already"):
            await held.acquire()
        await held.release()

    run_story(story)


def test_the_bodys_own_error_is_what_is_raised():
    """Not that the lock was lost as well, nor that it could not be released."""

    async def story():
        client = MemoryClient(Locks)
        with pytest.raises(KeyError):
            async with AwaitedLocks(client).lock("db", ttl_s=5):
                client.is_cut = True
                await elapse(20)
                raise KeyError

    run_story(story)


def test_a_face_is_of_a_machine_that_has_what_it_needs():
    """Else it says what to write."""
    client = Client(App, ["127.0.0.1:1"])
    with pytest.raises(InvalidArgument, match=r"AwaitedLocks: App is no Locks: .* AwaitedLocks\(client, App\.locks\)"):
        AwaitedLocks(client)
    with pytest.raises(InvalidArgument, match=r"ttl_s must be 0\.1 to"):
        AwaitedLocks(client, App.locks).lock("db", ttl_s=0)


def test_locks_of_real_nodes_from_tasks_and_threads(tmp_path):
    """Twenty critical sections, half of them in a thread: none meets another, and tokens rise."""
    inside, tokens = [], []

    def enter(token):
        inside.append(token)
        assert len(inside) == 1
        tokens.append(token)

    def in_thread(address):
        client = BlockingClient(App, [address])
        try:
            locks = BlockingLocks(client, App.locks)
            for _ in range(10):
                with locks.lock("db", ttl_s=5) as lock:
                    enter(lock.token)
                    lock.check()
                    assert not lock.lost.is_set()
                    inside.clear()
            assert locks.lock("free", ttl_s=1).try_acquire() is True
            with pytest.raises(NotAcquired), locks.lock("free", timeout_s=0.05):
                pass
        finally:
            client.close()

    async def main():
        async with Server(App, data_dir=tmp_path) as server:
            client = Client(App, [server.address])
            locks = AwaitedLocks(client, App.locks)
            thread = asyncio.create_task(asyncio.to_thread(in_thread, server.address))
            for _ in range(10):
                async with locks.lock("db", ttl_s=5) as lock:
                    enter(lock.token)
                    await asyncio.sleep(0)
                    inside.clear()
            await thread
            await client.close()

    asyncio.run(main())
    assert tokens == sorted(set(tokens))
    assert len(tokens) == 20
