"""raftkv's nodes, with its key-value machine, and how they are operated."""

from __future__ import annotations

import ssl
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from raftkv.client import BlockingAdmin
from raftkv.errors import RaftKVError
from raftkv.kv import BlockingKeyValueClient, Put
from raftkv.model import Member
from raftkv.processes.cluster import member_argument
from tests.chaos.certificates import Authority
from tests.drills.nodes import AT_ONCE, DEADLINE_S, Nodes
from tests.drills.terminal import DrillFailed

ASK_S = 2.0
PATIENCE_S = 10.0
"""For one of many writes."""


class OurNodes(Nodes):
    """Commands find the nodes by `RAFTKV_ADDRESS`."""

    system = "raftkv"
    variable = "RAFTKV_ADDRESS"

    def __init__(self, directory: Path, size: int = 3) -> None:
        super().__init__(directory, size)
        self._tls: ssl.SSLContext | None = None
        self.elsewhere: dict[int, tuple[str, Mapping[str, str]]] = {}
        """Nodes that are run as another module, in an environment of their own: their machines are special."""

    def member(self, number: int) -> str:
        """ID=PEER/CLIENT."""
        return member_argument(Member(number, self.peer(number), self.client(number)))

    def members(self) -> list[str]:
        """The founders, as `--member` each."""
        return [word for number in self.founders for word in ("--member", self.member(number))]

    def serve(self, number: int, *, founds: bool = False, joins: bool = False, more: Sequence[str] = ()) -> None:
        words = ["raftkv", "serve", "--node-id", str(number), "--data-dir", f"n{number}"]
        if founds:
            words += self.members()
        if joins:
            words += ["--join", "--listen", self.client(number), "--peer-listen", self.peer(number)]
        words += [*more, *self.more]
        if number not in self.elsewhere:
            self._launch(number, *words)
            return
        module, environment = self.elsewhere[number]
        own = (sys.executable, "-m", module)
        self.running[number] = self.terminal.start(*words, log=f"n{number}.log", own=own, **environment)

    def restore(self, source: str, into: str) -> None:
        for number in self.founders:
            words = ("--data-dir", f"{into}{number}", "--id", str(number), "--cluster-name", "anew", *self.members())
            self.terminal.type("raftkv", "restore", source, *words)

    def back_up(self, path: str) -> None:
        self.terminal.type("raftkv", "backup", path)

    def export(self, path: str) -> None:
        self.terminal.type("raftkv", "export", path)

    def _kv(self, deadline_s: float = DEADLINE_S) -> BlockingKeyValueClient:
        addresses = [self.client(number) for number in self.running or self.founders]
        return BlockingKeyValueClient(addresses, deadline_s=deadline_s, ssl=self._tls)

    def takes(self, key: str, value: str, within_s: float) -> bool:
        try:
            with self._kv(within_s) as kv:
                kv.put(key.encode(), value.encode())
        except RaftKVError:
            return False
        return True

    def get(self, key: str) -> str | None:
        try:
            with self._kv() as kv:
                found = kv.get(key.encode())
        except RaftKVError as exc:
            raise DrillFailed(f"raftkv answers no read: {exc}") from exc
        return None if found is None else found.value.decode()

    def fill(self, prefix: str, keys: int, value_bytes: int) -> None:
        value = b"x" * value_bytes
        try:
            with self._kv(PATIENCE_S) as kv:
                for first in range(0, keys, AT_ONCE):
                    numbers = range(first, min(keys, first + AT_ONCE))
                    kv.transact((), [Put(f"{prefix}{number:06}".encode(), value) for number in numbers])
        except RaftKVError as exc:
            raise DrillFailed(f"raftkv takes no writes: {exc}") from exc

    def status(self, number: int) -> dict[str, Any]:
        """What a node says of itself; empty while it does not answer."""
        try:
            return BlockingAdmin([self.client(number)], ssl=self._tls).status(ASK_S)
        except RaftKVError:
            return {}

    def answers(self, number: int) -> bool:
        return self.status(number).get("leader") is not None

    def leader(self) -> int:
        def find() -> int | None:
            roles = {number: self.status(number).get("role") for number in self.running}
            return next((number for number, role in roles.items() if role == "leader"), None)

        found = self.until(find, "a leader")
        assert found is not None
        return found

    def speak_tls(self, authority: Authority, cert: Path, key: Path) -> None:
        self.more += ["--tls-ca", "tls/ca.pem", "--tls-cert", "tls/node.pem", "--tls-key", "tls/node.key"]
        self._tls = ssl.create_default_context(cafile=str(authority.path))
        self._tls.load_cert_chain(cert, key)
