"""etcd's members, as Debian packages it, with default settings, and how they are operated."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.chaos.certificates import Authority
from tests.drills.nodes import AT_ONCE, DEADLINE_S, Nodes
from tests.drills.terminal import DrillFailed

TRY_S = 2.0
"""For one try of a write or read, as a member that is asked may be the one that hangs."""

LATER = "later"
"""Written after what must not be lost; drills count and delete the keys in `k/`."""

HEALTHY_S = 6.0
"""Members are changed only while all have been connected for five seconds, so that is waited for before the trouble."""

PLAIN = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "ETCDCTL_API": "3"}


def missing() -> str | None:
    """Why there can be no etcd here; None when it can."""
    return None if shutil.which("etcd") and shutil.which("etcdctl") else "etcd is not installed"


class EtcdNodes(Nodes):
    """Node N is member `mN`. Commands find the members by `ETCDCTL_ENDPOINTS`."""

    system = "etcd"
    variable = "ETCDCTL_ENDPOINTS"
    scheme = "http://"

    def __init__(self, directory: Path, size: int = 3) -> None:
        super().__init__(directory, size)
        self._trust: tuple[str, ...] = ()
        self._began = time.monotonic()
        self._restored_into = "n"

    def environment(self) -> Mapping[str, str]:
        return {"ETCDCTL_API": "3", **super().environment()}

    def cluster(self, *numbers: int) -> str:
        """These members, for `--initial-cluster`."""
        return ",".join(f"m{number}={self.peer(number)}" for number in numbers)

    def serve(self, number: int, *, founds: bool = False, joins: bool = False, more: Sequence[str] = ()) -> None:
        client, peer = self.client(number), self.peer(number)
        words = ["etcd", "--name", f"m{number}", "--data-dir", f"{self._restored_into}{number}"]
        words += ["--listen-client-urls", client, "--advertise-client-urls", client, "--listen-peer-urls", peer]
        if founds or joins:
            members = self.founders if founds else [*(each for each in self.running if each != number), number]
            words += ["--initial-advertise-peer-urls", peer, "--initial-cluster", self.cluster(*members)]
            words += ["--initial-cluster-state", "new" if founds else "existing"]
        self._launch(number, *words, *more, *self.more, "--logger", "zap", "--log-level", "warn")

    def settle(self) -> None:
        """Wait until a change of the members would not be refused because they have just started."""
        self.until(lambda: time.monotonic() - self._began > HEALTHY_S, "members are taken for healthy")

    def found(self) -> None:
        """As all do; and a member's files have what it has acknowledged, for those who are left with nothing else: it
        writes its database a moment later, and one that goes on alone drops what its log does not say is committed."""
        super().found()
        self.put(LATER, "1")
        self.until(lambda: all(map(self._has_later, self.founders)), "all members have applied it")
        since = time.time_ns()
        self.until(lambda: all(self._written_ns(number) > since for number in self.founders), "all have written it")
        self._began = time.monotonic()

    def _has_later(self, number: int) -> bool:
        return self._ask("get", LATER, "--consistency=s", at=[self.client(number)]).stdout != ""

    def _written_ns(self, number: int) -> int:
        """When a member's database was written; it is made to write one."""
        self.put(LATER, "2")
        return (self.directory(number) / "member" / "snap" / "db").stat().st_mtime_ns

    def restore(self, source: str, into: str) -> None:
        """A database of a member that was not saved has no hash, which must be said."""
        is_saved = not source.endswith("/db")
        self._restored_into = into
        for number in self.founders:
            words = ["--name", f"m{number}", "--data-dir", f"{into}{number}", "--initial-cluster"]
            words += [self.cluster(*self.founders), "--initial-advertise-peer-urls", self.peer(number)]
            words += [] if is_saved else ["--skip-hash-check"]
            self.terminal.type("etcdctl", "snapshot", "restore", source, *words)

    def back_up(self, path: str) -> None:
        one = f"{self.variable}={self.client(self.founders[0])}"  # it takes no more than one
        self.terminal.type("env", one, "etcdctl", "snapshot", "save", path)

    def export(self, path: str) -> None:
        self.terminal.type("etcdctl", "get", "", "--from-key", "--write-out", "json", into=path)

    def make_room(self) -> None:
        """Type what gives history up, and writes each database anew."""
        shown = self.terminal.type("etcdctl", "endpoint", "status", "--write-out", "json")
        revision = json.loads(shown.splitlines()[0])[0]["Status"]["header"]["revision"]
        self.terminal.type("etcdctl", "compact", str(revision))
        self.terminal.type("etcdctl", "defrag")

    def member_ids(self) -> dict[int, str]:
        """Type what shows the members, and read their ids, which other commands want; by the nodes' numbers."""
        return {int(row[2].removeprefix("m")): row[0] for row in self._members() if row[2].startswith("m")}

    def member_id_at(self, number: int) -> str:
        """As `member_ids`, of the one that others reach at a node's address, whatever its name is now."""
        return next(row[0] for row in self._members() if row[3] == self.peer(number))

    def _members(self) -> list[list[str]]:
        rows = [line.split(", ") for line in self.terminal.type("etcdctl", "member", "list").splitlines()]
        return [row for row in rows if len(row) > 3]

    def _ask(self, *words: str, at: Sequence[str] = (), given: str = "") -> subprocess.CompletedProcess[str]:
        """An `etcdctl` of the drill's own, which is not typed."""
        chosen = ",".join(at or [self.client(number) for number in self.running or self.founders])
        return subprocess.run(
            ["etcdctl", f"--command-timeout={TRY_S:g}s", *self._trust, *words],
            input=given,
            capture_output=True,
            text=True,
            env={**PLAIN, "ETCDCTL_ENDPOINTS": chosen},
            timeout=DEADLINE_S,
            check=False,
        )

    def takes(self, key: str, value: str, within_s: float) -> bool:
        end = time.monotonic() + within_s
        while self._ask("put", key, value).returncode:
            if time.monotonic() > end:
                return False
        return True

    def get(self, key: str) -> str | None:
        def read() -> list[str] | None:
            done = self._ask("get", key, "--print-value-only")
            return None if done.returncode else [done.stdout.strip()]

        found = self.until(read, "a read is answered")
        assert found is not None
        return found[0] or None

    def fill(self, prefix: str, keys: int, value_bytes: int) -> None:
        value = "x" * value_bytes
        for first in range(0, keys, AT_ONCE):
            lines = [f"put {prefix}{number:06} {value}\n" for number in range(first, min(keys, first + AT_ONCE))]
            done = self._ask("txn", given="\n" + "".join(lines) + "\n\n")
            if done.returncode:
                raise DrillFailed(f"etcd takes no writes: {done.stderr}")

    def status(self, number: int) -> dict[str, Any]:
        """What a member says of itself; empty while it does not answer."""
        text = self._ask("endpoint", "status", "--write-out", "json", at=[self.client(number)]).stdout
        found: list[dict[str, Any]] = json.loads(text) if text.strip() else []
        return dict(found[0]["Status"]) if found else {}

    def answers(self, number: int) -> bool:
        return bool(self.status(number).get("leader"))

    def leader(self) -> int:
        def find() -> int | None:
            for number in self.running:
                status = self.status(number)
                if status.get("leader") and status["leader"] == status["header"]["member_id"]:
                    return number
            return None

        found = self.until(find, "a leader")
        assert found is not None
        return found

    def speak_tls(self, authority: Authority, cert: Path, key: Path) -> None:
        self.scheme = "https://"
        for kind in ("", "peer-"):
            self.more += [f"--{kind}cert-file=tls/node.pem", f"--{kind}key-file=tls/node.key"]
            self.more += [f"--{kind}trusted-ca-file=tls/ca.pem", f"--{kind}client-cert-auth"]
        self._trust = (f"--cacert={authority.path}", f"--cert={cert}", f"--key={key}")
