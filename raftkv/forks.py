"""What becomes of clients and nodes in a child made by `fork`: their sockets, files and loops are the parent's.

The child has copies of all descriptors, and none of the threads. So every object that owns such things is told of
the fork, in the child and before anything else runs there, and has three duties:

- It touches nothing that it shares with the parent. A byte written to an inherited socket would be sent in the
  parent's name, and an inherited event loop, closed or collected, would take the parent's descriptors out of the
  epoll set that both share.
- It lets go of what would outlive the parent: a listening socket, a connection or a lock that a child still holds
  makes a parent that was killed look alive to its peers, and keeps it from being started again.
- From then on it works afresh, or refuses; it never waits for a thread that is not there.
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
    """An object that is told of a fork."""

    def after_fork(self) -> None:
        """Called first of all in the child: leave the parent's things alone; work afresh from now on, or refuse."""


_told: WeakSet[Forked] = WeakSet()


def tell_of_fork(part: Forked) -> None:
    """Tell `part` of every fork from now on, as long as it lives."""
    _told.add(part)


def leave(*things: object) -> None:
    """Keep things of the parent for ever, unused: to delete them would close, flush or unregister what is the parent's.

    A list somewhere would not do, as it is cleared when the interpreter ends.
    """
    for thing in things:
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(thing))


def let_go(descriptor: int) -> None:
    """Close the child's copy of a descriptor, but keep its number taken: a later close of it then hits nothing else."""
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
    """Let go of the epoll set that the loop shares with the parent: closing the loop in the child would empty that set.

    uvloop makes itself a set of its own when it is forked.
    """
    selector = getattr(loop, "_selector", None)
    if sys.platform == "linux" and isinstance(selector, selectors.EpollSelector):
        let_go(selector.fileno())


def _in_child() -> None:
    for part in list(_told):
        part.after_fork()


os.register_at_fork(after_in_child=_in_child)
