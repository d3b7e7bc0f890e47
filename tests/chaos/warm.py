"""Nodes forked from a process that has imported all of raftkv: the same processes, for a small part of the time.

It changes nothing of what is tried: a node has a pid, signals, a log and an exit code of its own. Only what every
fresh interpreter draws or reads for itself is the same for all nodes of one parent, above all the seed of hashes; who
wants nodes to differ in that says so in their environment (`differences.Surroundings`), and they are started afresh.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from raftkv.processes.cluster import Launched, import_path, launch
from tests.chaos.forkserver import MESSAGE_MAX, Reap, Start

MODULES = ("raftkv.cli.serve", "raftkv.worlds.workload", "uvloop")
"""What nodes of a campaign import, though not all of it at once."""

RUNNING = ("RAFTKV_", "PYTEST_")
"""How variables begin that are read by who runs already, or not at all; all others may be needed before."""

_COMMAND = [sys.executable, "-m", "raftkv"]


class WarmProcess:
    """A forked node, as `Launched` has it. Any thread may ask."""

    def __init__(self, parent: WarmParent, pid: int, handle: int) -> None:
        self._parent = parent
        self._pid = pid
        self._handle = handle
        """Of this process and never of another one with the same pid; open as long as this object is."""
        self._code: int | None = None
        self._lock = threading.Lock()
        weakref.finalize(self, os.close, handle)

    @property
    def pid(self) -> int:
        return self._pid

    def poll(self) -> int | None:
        """As of `Launched`."""
        with self._lock:
            if self._code is None and self._has_ended(0):
                self._code = self._parent.reap(self._pid)
            return self._code

    def wait(self, timeout: float | None = None) -> int:
        """As of `Launched`."""
        end = time.monotonic() + timeout if timeout is not None else None
        while (code := self.poll()) is None:
            left = end - time.monotonic() if end is not None else None
            if timeout is not None and left is not None and left <= 0:
                raise subprocess.TimeoutExpired(f"forked node with pid {self._pid}", timeout)
            self._has_ended(left)
        return code

    def _has_ended(self, within_s: float | None) -> bool:
        poll = select.poll()
        poll.register(self._handle, select.POLLIN)
        return bool(poll.poll(within_s * 1000 if within_s is not None else None))

    def send_signal(self, sig: int) -> None:
        """As of `Launched`."""
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._handle, sig)


class WarmParent:
    """Starts nodes by forking; its method `launch` is a `Launch`.

    Use it as a context manager, around the clusters that it is for: at its end the nodes that are left are killed.
    What can't be forked is started afresh: another command, or an environment that an interpreter reads as it begins,
    and everything where the system has no descriptors of processes.
    """

    def __init__(self, modules: Sequence[str] = MODULES) -> None:
        self._modules = modules
        self._environment = {**os.environ, "PYTHONPATH": import_path()}
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._is_warm = False

    def __enter__(self) -> WarmParent:
        """Returns before it is warm: the first `launch` waits for that."""
        if sys.platform != "linux":
            return self
        own, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with its:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.chaos.forkserver", str(its.fileno()), *self._modules],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                env=self._environment,
                pass_fds=[its.fileno()],
                start_new_session=True,
            )
        self._socket = own
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None and self._socket is not None:
            with self._lock:
                self._socket.close()
            self._process.wait()

    @property
    def pid(self) -> int:
        """Of the parent itself."""
        assert self._process is not None, "it runs as a context manager, and on Linux"
        return self._process.pid

    def launch(self, command: Sequence[str], environment: Mapping[str, str], log_path: Path) -> Launched:
        """As of `Launch`. Raises `ConnectionError` when the parent has ended."""
        if self._process is None or list(command[: len(_COMMAND)]) != _COMMAND or not self._can_have(environment):
            return launch(command, environment, log_path)
        start = Start(list(command[len(_COMMAND) :]), dict(environment), os.getcwd())
        with log_path.open("ab") as log, self._lock:
            assert self._socket is not None
            try:
                if not self._is_warm:
                    self._receive()  # it says so
                    self._is_warm = True
                socket.send_fds(self._socket, [msgspec.json.encode(start)], [log.fileno()])
                pid, (handle,) = self._receive()
            except OSError as exc:
                text = "the process that nodes are forked from has ended: see what it printed"
                raise ConnectionError(text) from exc
        return WarmProcess(self, int(pid), handle)

    def _can_have(self, environment: Mapping[str, str]) -> bool:
        own = self._environment
        return all(name.startswith(RUNNING) or own.get(name) == environment.get(name) for name in {*own, *environment})

    def reap(self, pid: int) -> int:
        """How a child has ended, which it has: once for each. All were killed if the parent has ended before."""
        with self._lock, contextlib.suppress(OSError):
            assert self._socket is not None
            self._socket.send(msgspec.json.encode(Reap(pid)))
            return int(self._receive()[0])
        return -signal.SIGKILL

    def _receive(self) -> tuple[bytes, list[int]]:
        assert self._socket is not None
        data, handles, _, _ = socket.recv_fds(self._socket, MESSAGE_MAX, 1, socket.MSG_CMSG_CLOEXEC)
        if not data:
            raise ConnectionResetError("end of file")
        return data, handles
