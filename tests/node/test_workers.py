"""Workers: work in order on a thread of its own, and an end that reaches the loop."""

from __future__ import annotations

import asyncio
import threading

import pytest

from raftkv.node import ThreadWorker


def test_a_worker_does_one_thing_after_the_other_beside_the_loop():
    """What was given first is done first, all on one thread, which is not the loop's."""

    async def main() -> None:
        worker, seen = ThreadWorker("test"), []

        def work(number: int) -> threading.Thread:
            seen.append(number)
            return threading.current_thread()

        threads = await asyncio.gather(*[worker.run(work, number) for number in range(20)])
        assert seen == list(range(20))
        assert len(set(threads)) == 1
        assert threads[0] is not threading.current_thread()
        await worker.close()
        assert not threads[0].is_alive()

    asyncio.run(main())


def test_what_the_work_raises_is_the_futures():
    """Of whatever kind, and the worker goes on."""

    async def main() -> None:
        worker = ThreadWorker("test")

        def work(error: type[BaseException]) -> None:
            raise error("no")

        for error in (ValueError, SystemExit):
            with pytest.raises(error, match="no"):
                await worker.run(work, error)
        assert await worker.run(lambda *, a: a, a=3) == 3
        await worker.close()

    asyncio.run(main())


def test_the_end_waits_for_what_was_given_and_takes_no_more():
    """Work under way when the worker is closed is finished; what nobody waits for any more does no harm."""

    async def main() -> None:
        worker, gate, done = ThreadWorker("test"), threading.Event(), []
        abandoned = worker.run(gate.wait)
        last = worker.run(done.append, 1)
        abandoned.cancel()
        closing = asyncio.ensure_future(worker.close())
        gate.set()
        await closing
        assert done == [1]
        await last
        with pytest.raises(RuntimeError, match="closed"):
            worker.run(done.append, 2)

    asyncio.run(main())


def test_a_loop_that_is_gone_is_no_trouble_for_the_thread():
    """A crash closes the loop while the disk still works: the thread ends quietly."""
    worker, gate, threads = ThreadWorker("test"), threading.Event(), []

    def work() -> None:
        threads.append(threading.current_thread())
        gate.wait()

    async def main() -> None:
        worker.run(work)

    asyncio.run(main())
    gate.set()
    asyncio.run(worker.close())
    assert not threads[0].is_alive()
