"""Nodes of a system as an operator has them: a directory and addresses each, started from a terminal."""

from __future__ import annotations

import signal
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import ClassVar, TypeVar

from raftkv.processes.ports import free_ports
from tests.chaos.certificates import Authority
from tests.drills.terminal import DrillFailed, Terminal

T = TypeVar("T")

PLACES = 8
"""Machines, as it were: node N is on machine N at first, and the others are there for those that come or move."""

DEADLINE_S = 60.0
POLL_S = 0.02

AT_ONCE = 100
"""Keys that are set together: etcd takes 128 operations in a transaction."""

BEFORE, AFTER = "before", "after"
"""Keys that are written before the trouble, and to see whether it is over."""


class Nodes(ABC):
    """A cluster in a directory: node N has its data in `nN` and its log in `nN.log`, founders are 1, 2 and 3.

    What is typed is counted by the terminal; the rest is the drill's own work. As a context manager it leaves no
    process behind.
    """

    system: ClassVar[str]
    variable: ClassVar[str]
    """Of the environment, with the addresses that commands talk to."""
    scheme: str = ""
    """Before addresses, where the system wants one."""

    def __init__(self, directory: Path, size: int = 3) -> None:
        ports = free_ports(2 * PLACES)
        self._clients = {at + 1: f"127.0.0.1:{ports[2 * at]}" for at in range(PLACES)}
        self._peers = {at + 1: f"127.0.0.1:{ports[2 * at + 1]}" for at in range(PLACES)}
        names = {address: f"10.0.0.{at}:7001" for at, address in self._clients.items()}
        names |= {address: f"10.0.0.{at}:8001" for at, address in self._peers.items()}
        self.founders = list(range(1, size + 1))
        self.place = {number: number for number in range(1, PLACES + 1)}
        """On which machine each node is."""
        self.more: list[str] = []
        """Said at each start besides."""
        self.running: dict[int, subprocess.Popen[bytes]] = {}
        self.terminal = Terminal(directory, self.environment(), names)

    def environment(self) -> Mapping[str, str]:
        """What an operator has set, so that commands need no addresses."""
        return {self.variable: ",".join(self.client(number) for number in self.founders)}

    def client(self, number: int) -> str:
        """Where clients reach a node."""
        return self.scheme + self._clients[self.place[number]]

    def peer(self, number: int) -> str:
        """Where other nodes reach it."""
        return self.scheme + self._peers[self.place[number]]

    def directory(self, number: int) -> Path:
        return self.terminal.directory / f"n{number}"

    @abstractmethod
    def serve(self, number: int, *, founds: bool = False, joins: bool = False, more: Sequence[str] = ()) -> None:
        """Type what starts a node: a founder for the first time, one that joins, or one that has its directory."""

    @abstractmethod
    def restore(self, source: str, into: str) -> None:
        """Type what makes each founder's directory, `into` and its number, of a backup."""

    @abstractmethod
    def back_up(self, path: str) -> None:
        """Type what makes a backup."""

    @abstractmethod
    def export(self, path: str) -> None:
        """Type what writes all keys and values into a file, as JSON."""

    @abstractmethod
    def takes(self, key: str, value: str, within_s: float) -> bool:
        """Whether a write is taken in time. Writes and reads of the drill itself are not typed."""

    @abstractmethod
    def get(self, key: str) -> str | None:
        """A linearizable read. Raises `DrillFailed` when nobody answers within the deadline."""

    @abstractmethod
    def fill(self, prefix: str, keys: int, value_bytes: int) -> None:
        """Set keys. Raises `DrillFailed` when that is refused."""

    @abstractmethod
    def leader(self) -> int:
        """Who leads; waits for it."""

    @abstractmethod
    def answers(self, number: int) -> bool:
        """Whether a node is there, and knows a leader."""

    @abstractmethod
    def speak_tls(self, authority: Authority, cert: Path, key: Path) -> None:
        """Nodes that are started from now on show `tls/node.pem`; who asks them shows this certificate."""

    def _launch(self, number: int, *words: str) -> None:
        self.running[number] = self.terminal.start(*words, log=f"n{number}.log")

    def found(self) -> None:
        """Start all founders; returns when they serve, with one key in them."""
        for number in self.founders:
            self.serve(number, founds=True)
        self.all_up()
        self.put(BEFORE, "1")

    def all_up(self) -> None:
        """Wait until every node that was started answers."""
        for number in self.running:
            self._up(number)

    def _up(self, number: int) -> None:
        self.until(lambda: self.answers(number), f"node {number} answers")

    def put(self, key: str, value: str) -> None:
        """Raises `DrillFailed` when nobody takes it within the deadline."""
        if not self.takes(key, value, DEADLINE_S):
            raise DrillFailed(f"{self.system} has not taken a write within {DEADLINE_S:g} s")

    def kill(self, *numbers: int) -> None:
        """SIGKILL, by a power that types nothing."""
        for number in numbers:
            self.running[number].kill()
        for number in numbers:
            self.running.pop(number).wait()

    def stop(self, number: int) -> None:
        """Type what ends a node, and wait for its end."""
        process = self.running.pop(number)
        self.terminal.note(f"kill $(pidof n{number})")
        process.send_signal(signal.SIGTERM)
        process.wait(DEADLINE_S)

    def pause(self, number: int) -> None:
        """Let a node hang: SIGSTOP, not typed."""
        self.running[number].send_signal(signal.SIGSTOP)

    def served(self) -> None:
        """Wait until a write is taken, and see that what was there before is there; that is the relief."""
        # What is refused at once, as by a node that has not looked again whether its disk has room, is tried again.
        self.until(lambda: self.takes(AFTER, "2", DEADLINE_S), "a write is taken")
        self.terminal.relief()
        if (found := self.get(BEFORE)) != "1":
            raise DrillFailed(f"what was there before the trouble is not there any more: {found!r}")

    def until(self, condition: Callable[[], T], what: str, within_s: float = DEADLINE_S) -> T:
        """Look until it gives something true. Raises `DrillFailed`."""
        end = time.monotonic() + within_s
        while not (found := condition()):
            if time.monotonic() > end:
                raise DrillFailed(f"{self.system}: not within {within_s:g} s: {what}")
            time.sleep(POLL_S)
        return found

    def said(self, number: int) -> str:
        """What a node has printed so far."""
        return (self.terminal.directory / f"n{number}.log").read_text(errors="replace")
