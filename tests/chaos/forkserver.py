"""`python -m tests.chaos.forkserver DESCRIPTOR MODULE…`: has raftkv imported, and forks a node whenever it is asked to.

To start a node costs well over a second of processor time, nearly all of it for imports, and a campaign starts nodes
all the time. This process has done the imports, and a child of it goes on as `python -m raftkv` would: in a session,
directory and environment of its own, with its own standard files, and ends as a fresh one does, as it comes to the
same end of the interpreter. What is decided when an interpreter begins is this process's for all of its children:
the seed of hashes, the language, the time zone. It has no thread, no event loop and no open database.

It is asked at a socket (`warm.WarmParent` does), which gets a descriptor of each child (pidfd) and, when that says so,
is told how the child has ended. When the socket ends, this process does, and its children are killed.
"""

from __future__ import annotations

import ctypes
import gc
import importlib
import os
import runpy
import signal
import socket
import sys

import msgspec

MESSAGE_MAX = 1 << 17
"""Bytes of a request: an environment and a command."""

_PR_SET_PDEATHSIG = 1


class Start(msgspec.Struct, frozen=True, tag=True):
    """Run `python -m raftkv` with these arguments; where it prints to comes with this as a descriptor."""

    arguments: list[str]
    environment: dict[str, str]
    directory: str


class Reap(msgspec.Struct, frozen=True, tag=True):
    """Tell how a child has ended, which it has, and forget it."""

    pid: int


def serve(own: socket.socket) -> Start | None:
    """Returns in each child, with what it is to do; in the parent, with None, when nobody can ask any more."""
    parent = os.getpid()
    while True:
        try:
            data, descriptors, _, _ = socket.recv_fds(own, MESSAGE_MAX, 1)
        except ConnectionResetError:  # the other end went with something unread
            return None
        if not data:
            return None
        match msgspec.json.decode(data, type=Start | Reap):
            case Reap(pid):
                _, status = os.waitpid(pid, 0)
                own.send(b"%d" % os.waitstatus_to_exitcode(status))
            case Start() as start:
                (log,) = descriptors
                has_left, leaves = os.pipe()
                child = os.fork()
                if child == 0:
                    own.close()
                    os.close(has_left)
                    _leave(parent, log)
                    os.close(leaves)
                    return start
                os.close(log)
                os.close(leaves)
                os.read(has_left, 1)  # nobody may stop it before that: it would outlive all others
                os.close(has_left)
                handle = os.pidfd_open(child)
                socket.send_fds(own, [b"%d" % child], [handle])
                os.close(handle)


def _leave(parent: int, log: int) -> None:
    """In a child: end with the parent, and have nothing else of it."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGKILL)  # it ended before it could be asked for that
    os.setsid()
    nothing = os.open(os.devnull, os.O_RDONLY)
    for source, target in ((nothing, 0), (log, 1), (log, 2)):
        os.dup2(source, target)
    os.close(nothing)
    os.close(log)


def become(start: Start) -> None:
    """Go on as `python -m raftkv`; returns or raises what ends a fresh process, too."""
    os.chdir(start.directory)
    os.environ.clear()
    os.environ.update(start.environment)
    sys.argv = ["raftkv", *start.arguments]
    runpy.run_module("raftkv", run_name="__main__", alter_sys=True)


def main(descriptor: int, modules: list[str]) -> None:
    """Import, say that it is done, and fork."""
    own = socket.socket(fileno=descriptor)
    for module in modules:
        importlib.import_module(module)
    assert len(os.listdir("/proc/self/task")) == 1, "a module starts a thread when it is imported: children lack it"
    gc.collect()
    gc.freeze()  # else children copy what they only look at
    own.send(b"warm")
    start = serve(own)
    if start is not None:
        become(start)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])
