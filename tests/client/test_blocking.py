"""The blocking client's thread: it ends with the client, and no caller hangs."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
import traceback

import pytest

from raftkv.client import BlockingClient
from raftkv.errors import Unavailable
from raftkv.kv import KeyValue
from tests.listener.service import FakeService
from tests.listener.test_tcp import running

WAIT_S = 30.0
"""Whoever takes so long hangs."""


def threads() -> list[threading.Thread]:
    """The clients' threads."""
    return [thread for thread in threading.enumerate() if thread.name == "raftkv-client"]


def test_its_thread_ends_with_it() -> None:
    """With its session: the cluster need not remember a client that has gone."""
    service = FakeService(KeyValue)
    with running(service) as address:
        with BlockingClient(KeyValue, [address]) as kv:
            kv.increment(b"n")
            assert (len(threads()), service.log.sessions()) == (1, 1)
        assert (threads(), service.log.sessions()) == ([], 0)


def test_closing_waits_until_everybody_has_an_answer() -> None:
    """A coroutine that is busy when the client is closed comes to its end, and whoever waits for it hears of it."""
    client = BlockingClient(KeyValue, ["127.0.0.1:1"], deadline_s=WAIT_S)
    begun, told = threading.Event(), list[object]()

    async def work() -> str:
        try:
            begun.set()
            return str(await client.inner.call("get", b"key"))
        except Unavailable as error:
            for _ in range(1_000):
                await asyncio.sleep(0)
            return str(error)

    waiting = threading.Thread(target=lambda: told.append(client.run(work())), daemon=True)
    waiting.start()
    assert begun.wait(WAIT_S)
    client.close()
    waiting.join(WAIT_S)
    assert told and "closed" in str(told[0])
    assert threads() == []


def test_work_that_would_wait_for_long_ends_with_the_client() -> None:
    """A thread that waits for something else than an answer, as for the time of the next job, hears why it ends."""
    client = BlockingClient(KeyValue, ["127.0.0.1:1"])
    told: list[Exception] = []
    begun = threading.Event()

    async def hang() -> None:
        begun.set()
        await asyncio.Event().wait()

    def wait() -> None:
        try:
            client.run(hang())
        except Unavailable as exc:
            told.append(exc)

    waiting = threading.Thread(target=wait, daemon=True)
    waiting.start()
    assert begun.wait(WAIT_S)
    client.close()
    waiting.join(WAIT_S)
    assert told and "closed" in str(told[0])


def test_a_call_that_is_interrupted_ends() -> None:
    """Ctrl-C: nobody waits any more, so nothing goes on behind the caller's back."""
    client = BlockingClient(KeyValue, ["127.0.0.1:1"])
    ended = threading.Event()
    heard = threading.Event()

    def interrupt(*_: object) -> None:
        """What Python does at Ctrl-C, once: later ones would interrupt the test's own lines."""
        if not heard.is_set():
            heard.set()
            raise KeyboardInterrupt

    def is_waiting() -> bool:
        """Whether the caller's thread waits for the result."""
        stack = traceback.extract_stack(sys._current_frames()[threading.main_thread().ident or 0])
        return "result" in [frame.name for frame in stack]

    async def work() -> None:
        try:
            while not is_waiting():  # noqa: ASYNC110 (nobody tells of it)
                await asyncio.sleep(0)
            # A signal that comes between the thread's last look and its sleep on the lock wakes nobody, in any Python
            # program: whoever presses Ctrl-C presses it again.
            while not heard.is_set():
                os.kill(os.getpid(), signal.SIGINT)
                await asyncio.to_thread(heard.wait, 0.05)
            await asyncio.get_running_loop().create_future()
        finally:
            ended.set()

    before = signal.signal(signal.SIGINT, interrupt)
    try:
        with pytest.raises(KeyboardInterrupt):
            client.run(work())
        assert ended.wait(WAIT_S)
    finally:
        signal.signal(signal.SIGINT, before)
    client.close()
