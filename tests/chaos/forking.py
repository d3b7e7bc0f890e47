"""A program that counts with a client in two threads and forks meanwhile; `python -m` this, for `forks.Forks`.

Its arguments are the key, how many children, and the nodes' addresses. It prints a `Counted` as JSON.
"""

from __future__ import annotations

import os
import select
import signal
import sys
import threading
import time
import warnings

import msgspec

from raftkv.client import BlockingClient
from raftkv.errors import Indeterminate, RaftKVError
from raftkv.worlds.workload import Workload

CALL_S = 20.0
"""For each call: a leader may be lost meanwhile."""

CHILD_S = 90.0
"""A child that says nothing for so long hangs: its calls have all run out by then."""

CHILD_CALLS = 3

GAP_S = 0.05

THREADS = 2


class Counted(msgspec.Struct):
    """What came of increments in one process, or in all of them."""

    numbers: list[int] = []
    unknown: int = 0
    """Of how many nobody knows whether they were done."""
    hung: int = 0
    """Children that said nothing."""

    def add(self, other: Counted) -> None:
        """Count another process's too."""
        self.numbers += other.numbers
        self.unknown += other.unknown
        self.hung += other.hung

    def count(self, client: BlockingClient[Workload], key: bytes) -> None:
        """Once more."""
        try:
            self.numbers.append(client.call("increment", key))
        except Indeterminate:
            self.unknown += 1
        except RaftKVError:
            pass  # certainly not done


def fork(client: BlockingClient[Workload], key: bytes, *, closes: bool) -> Counted:
    """A child that goes on with the client that it finds, or only closes it; what it says."""
    reads, writes = os.pipe()
    pid = os.fork()
    if pid == 0:
        counted = Counted()
        try:
            for _ in range(0 if closes else CHILD_CALLS):
                counted.count(client, key)
            client.close()
            os.write(writes, msgspec.json.encode(counted))
        finally:
            os._exit(0)
    os.close(writes)
    has_said = bool(select.select([reads], [], [], CHILD_S)[0])
    said = os.read(reads, 65536) if has_said else b""
    os.close(reads)
    if not said:
        os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return msgspec.json.decode(said, type=Counted) if said else Counted(hung=1)


def main(key: bytes, children: int, addresses: list[str]) -> Counted:
    """Count in threads, and in one child after the other."""
    client, found, stopping = BlockingClient(Workload, addresses, deadline_s=CALL_S), Counted(), threading.Event()

    def count_on() -> None:
        while not stopping.wait(GAP_S / 5):
            found.count(client, key)

    threads = [threading.Thread(target=count_on) for _ in range(THREADS)]
    for thread in threads:
        thread.start()
    told = []
    for number in range(children):
        time.sleep(GAP_S)
        told.append(fork(client, key, closes=number % 4 == 3))
    stopping.set()
    for thread in threads:
        thread.join()
    client.close()
    for each in told:
        found.add(each)
    return found


if __name__ == "__main__":
    warnings.simplefilter("ignore", DeprecationWarning)  # of forks with threads, which is what this is about
    _, key_given, children_given, *addresses_given = sys.argv
    print(msgspec.json.encode(main(key_given.encode(), int(children_given), addresses_given)).decode())
