"""What a child made by `fork` finds of clients and nodes: theirs are the parent's sockets, files, loops and threads.

The child has copies of all descriptors, and none of the threads. So whoever owns such things is told of the fork,
in the child and before anything else runs there, and has three duties:

- It touches nothing that the parent shares. A byte written to an inherited socket would be the parent's, and an
  inherited event loop, closed or collected, would take the parent's descriptors out of the epoll set that both share.
- It lets go of what would outlive the parent: a listening socket, a connection or a lock that a child still holds
  makes a parent that was killed look alive to its peers, and keeps it from being started again.
- It is new, or it refuses; it never waits for a thread that is not there.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import selectors
import sys
from typing import Protocol
from weakref import WeakSet


class Forked(Protocol):
    """Who is told of a fork."""

    def after_fork(self) -> None:
        """In the child, before anything else: leave the parent's things alone, and be new or refuse."""


_told: WeakSet[Forked] = WeakSet()


def tell_of_fork(part: Forked) -> None:
    """From now on `part` is told, as long as it lives."""
    _told.add(part)


def leave(*things: object) -> None:
    """Keep things of the parent for ever, unused: their end would close, flush or unregister what is the parent's.

    A list somewhere would not do, as it is cleared when the interpreter ends.
    """
    for thing in things:
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(thing))


def let_go(descriptor: int) -> None:
    """Close the child's copy of a descriptor, and keep its number taken: whoever closes that later hits nobody else."""
    if descriptor < 0:
        return
    nothing = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    try:
        os.dup2(nothing, descriptor, inheritable=False)
    finally:
        os.close(nothing)


def let_go_of(transport: asyncio.BaseTransport | None) -> None:
    """The same for the socket of a connection, if it still has one."""
    sock = transport.get_extra_info("socket") if transport is not None else None
    if sock is not None:
        let_go(sock.fileno())


def let_go_of_loop(loop: asyncio.AbstractEventLoop) -> None:
    """A loop whose set of descriptors (epoll) both processes share; taken down in the child, it would empty that set.

    uvloop makes itself a set of its own when it is forked.
    """
    selector = getattr(loop, "_selector", None)
    if sys.platform == "linux" and isinstance(selector, selectors.EpollSelector):
        let_go(selector.fileno())


def _in_child() -> None:
    for part in list(_told):
        part.after_fork()


os.register_at_fork(after_in_child=_in_child)
