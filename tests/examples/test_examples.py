"""The examples do what they say, each as a user would see it."""

from __future__ import annotations

import asyncio
import json
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import strategies as st

from raftkv import BlockingClient, Client, LocalMachine, NotActive, Server
from raftkv.recipes import AwaitedLocks, BlockingQueues, KeyReused, Locks, Queues, TooFast
from raftkv.testing import calls, fault_test
from tests.examples import job_queue, lock_service, migration
from tests.examples.ledger import BANK, Ledger, Overdrawn
from tests.waiting import until


def with_node(machine: Any, directory: Path, story: Callable[[str], None]) -> None:
    """Run it in a thread, beside a real node."""

    async def main() -> None:
        async with Server(machine, data_dir=directory) as server:
            await asyncio.to_thread(story, server.address)

    asyncio.run(main())


def ask(url: str, method: str = "GET", body: str | None = None) -> Any:
    """What a browser gets."""
    data = None if body is None else body.encode()
    request = urllib.request.Request(url, data, method=method)  # noqa: S310 (our own server)
    with urllib.request.urlopen(request) as answer:  # noqa: S310
        return json.loads(answer.read())


def test_the_job_queue_takes_jobs_and_tells_how_they_are(tmp_path: Path) -> None:
    """One is done, one fails until it is a dead letter, one is called off, one never was."""

    def story(address: str) -> None:
        client = BlockingClient(Queues, [address])
        web = job_queue.front(client, 0)
        server = threading.Thread(target=web.serve_forever)
        server.start()
        jobs = f"http://127.0.0.1:{web.server_port}/jobs"
        try:
            off = ask(jobs, "POST", "never mind")["job"]
            assert ask(f"{jobs}/{off}")["state"] == "ready"
            assert ask(f"{jobs}/{off}", "DELETE") == {"removed": True}
            with pytest.raises(urllib.error.HTTPError, match="404"):
                ask(f"{jobs}/{off}")
            worker = threading.Thread(target=BlockingQueues(client).run, args=("shout", job_queue.shout))
            worker.start()
            good, bad = ask(jobs, "POST", "hello")["job"], ask(jobs, "POST", "")["job"]
            until(lambda: ask(f"{jobs}/{good}")["result"] == "HELLO")
            until(lambda: ask(f"{jobs}/{bad}")["state"] == "dead")
            assert ask(f"{jobs}/{bad}")["error"] == "ValueError: nothing to shout"
        finally:
            web.shutdown()
            web.server_close()
            server.join()
            client.close()
        worker.join()

    with_node(Queues, tmp_path, story)


def test_the_lock_service_runs_one_command_at_a_time(tmp_path: Path) -> None:
    """Eight at once add one to a file each; one that can't have the lock in time says so; codes and tokens arrive."""
    count, add = (
        tmp_path / "count",
        "import sys; n = int(open(sys.argv[1]).read()); open(sys.argv[1], 'w').write(f'{n + 1}')",
    )
    count.write_text("0")

    def story(address: str) -> None:
        run = (address, "count", sys.executable, "-c")
        threads = [threading.Thread(target=lock_service.main, args=(*run, add, str(count))) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert count.read_text() == "8"
        assert lock_service.main(*run, "import os, sys; sys.exit(int(os.environ['LOCK_TOKEN']) > 8)") == 1
        asyncio.run(hold(address, run))

    async def hold(address: str, run: tuple[str, ...]) -> None:
        client = Client(Locks, [address])
        async with AwaitedLocks(client).lock("count"):
            assert await asyncio.to_thread(lock_service.main, *run, "", wait_s=0.1) == lock_service.BUSY
        await client.close()

    with_node(Locks, tmp_path / "node", story)


def test_the_ledger_moves_money_once_and_never_loses_a_cent() -> None:
    """What is sent twice is done once, what is too much or too fast is not done at all, and a statement has it all."""
    ledger = LocalMachine(Ledger)
    assert ledger.transfer("k0", BANK, "ann", 1_000) == ledger.transfer("k0", BANK, "ann", 1_000) == 1
    with pytest.raises(KeyReused):
        ledger.transfer("k0", BANK, "ann", 2_000)
    with pytest.raises(Overdrawn) as caught:
        ledger.transfer("k1", "ann", "bob", 1_001)
    assert (caught.value.account, caught.value.missing) == ("ann", 1)
    for number in range(100):
        ledger.transfer(f"ann {number}", "ann", "bob", 10)
    ledger.transfer("k2", BANK, "ann", 10)
    with pytest.raises(TooFast):
        ledger.transfer("k3", "ann", "bob", 1)
    assert (ledger.balance("ann"), ledger.balance("bob"), ledger.total()) == (10, 1_000, 0)
    entries, cursor = ledger.statement("bob")
    more, end = ledger.statement("bob", cursor)
    assert [each.balance for each in entries + more] == list(range(10, 1_001, 10))
    assert end is None


class Sums:
    """A model of the ledger."""

    def __init__(self) -> None:
        self.balances: dict[str, int] = {}
        self.done: dict[str, tuple[Any, int]] = {}

    def transfer(self, key: str, source: str, target: str, cents: int) -> int:
        request = source, target, cents
        if key in self.done:
            if self.done[key][0] != request:
                raise KeyReused(key=key)
            return self.done[key][1]
        if source == target:
            raise ValueError("cents must be above 0, and go somewhere else")
        if source != BANK and (missing := cents - self.balances.get(source, 0)) > 0:
            raise Overdrawn(account=source, missing=missing)
        self.balances[source] = self.balances.get(source, 0) - cents
        self.balances[target] = self.balances.get(target, 0) + cents
        self.done[key] = request, len(self.done) + 1
        return self.done[key][1]

    def balance(self, account: str) -> int:
        return self.balances.get(account, 0)

    def total(self) -> int:
        return 0


ACCOUNTS = st.sampled_from([BANK, "ann", "bob"])

test_the_ledger_under_faults = fault_test(
    Ledger,
    model=Sums,
    commands=[
        calls(Ledger.transfer, st.sampled_from("abcdefgh"), ACCOUNTS, ACCOUNTS, st.integers(1, 3)),
        calls(Ledger.balance, ACCOUNTS),
        calls(Ledger.total),
    ],
    faults=["crash", "cut"],
)


def test_the_migration_keeps_every_number_and_the_old_clients(tmp_path: Path) -> None:
    """On a real node: version 1 fills it, version 2 takes it over, and both versions' calls work."""
    old = migration.version_1()

    async def main() -> None:
        async with Server(old, data_dir=tmp_path) as server, Client(old, [server.address]) as people:
            for number in range(20):
                await people.add(f"p{number}", f"{number:03}")
        async with Server(migration.People, data_dir=tmp_path) as server:
            client = Client(migration.People, [server.address])
            await client.wait_until(migration.People.edition, until=lambda version: version == 2, timeout_s=20)
            await client.call(migration.People.add, "p7", "700")
            assert await client.call(migration.People.all_numbers, "p7") == ["007", "700"]
            async with Client(old, [server.address]) as people:
                await people.add("p8", "800")
                assert await people.number("p8") == "008"
            assert await client.call(migration.People.forget, "p8") == 2
            await client.close()

    asyncio.run(main())


def test_before_the_migration_both_versions_do_the_same() -> None:
    """And what is new is refused by name, until the last node has it."""
    people = LocalMachine(migration.People, begun_by=migration.version_1())
    people.add("ann", "1")
    people.add("ann", "2")
    assert people.number("ann") == "2"
    with pytest.raises(NotActive):
        people.forget("ann")
    people.upgrade()
    people.add("ann", "3")
    assert (people.number("ann"), people.all_numbers("ann")) == ("2", ["2", "3"])
