"""Tells systemd, or whoever else has set NOTIFY_SOCKET, that the node serves, that it lives, and that it ends."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable, Mapping

from raftkv.logs import EventLog
from raftkv.node import Node
from raftkv.node.workers import Worker, error_of

logger = EventLog(__name__)

LOOK_S_MAX = 5.0
"""How old the status may be."""

BEATS = 4
"""So many times within the watchdog's time the node is looked at: a disk may hang for three quarters of it."""

STATUS_CHARS_MAX = 500


class Supervisor:
    """Sends datagrams to the one who supervises this process; it never waits, and no error of it ends a node.

    The watchdog hears of each look at which the disk's thread has answered the loop. So it restarts a process whose
    loop or whose disk hangs for good, and the node's own limit for a disk (`disk_stall_stop_s`) should come first.
    """

    def __init__(self, address: str, watchdog_s: float | None) -> None:
        """`address` is the path of a socket, or an abstract name behind `@`."""
        self._address = b"\0" + os.fsencode(address[1:]) if address.startswith("@") else os.fsencode(address)
        self._watchdog_s = watchdog_s
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        self._socket.setblocking(False)
        self._status: Callable[[], str] = str
        self._worker: Worker | None = None
        self._asked: asyncio.Future[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._said = ""
        self._is_ready_said = self._is_loss_said = False

    @classmethod
    def of(cls, environment: Mapping[str, str], pid: int) -> Supervisor | None:
        """The one that the environment names; None when it names none, or one that can't be spoken to."""
        address = environment.get("NOTIFY_SOCKET", "")
        if not address:
            return None
        if not hasattr(socket, "AF_UNIX") or address[0] not in "/@" or address == "@":
            logger.warning("not_notified", socket=address, hint="NOTIFY_SOCKET must be an absolute path, or @NAME")
            return None
        return cls(address, _watchdog_s(environment, pid))

    def starting(self) -> None:
        """The process begins to recover what is on its disk."""
        self._send("STATUS=recovering what is on its disk")

    def serving(self, status: Callable[[], str], worker: Worker) -> None:
        """The node serves from now on; `worker` is its disk's thread, and `status` tells of the node in a line."""
        self._status, self._worker = status, worker
        self._look()

    def stopping(self, reason: str) -> None:
        """The node ends. It is not looked at any more: its disk's thread may end, and its loop, too."""
        self._send(f"STOPPING=1\nSTATUS={_line(reason)}")
        self.close()

    def close(self) -> None:
        """Speak to it no more. It may be repeated."""
        self._worker = None
        if self._timer is not None:
            self._timer.cancel()
        self._socket.close()

    def _look(self) -> None:
        loop = asyncio.get_running_loop()
        every_s = LOOK_S_MAX if self._watchdog_s is None else min(LOOK_S_MAX, self._watchdog_s / BEATS)
        self._timer = loop.call_later(every_s, self._look)
        self._say_status()
        if self._watchdog_s is not None and self._worker is not None and self._asked is None:
            self._asked = self._worker.run(_nothing)
            self._asked.add_done_callback(self._answered)

    def _answered(self, asked: asyncio.Future[None]) -> None:
        self._asked = None
        if error_of(asked) is None and not asked.cancelled() and self._worker is not None:
            self._send("WATCHDOG=1")

    def _say_status(self) -> None:
        """What has changed, and that the node is ready until that has got through once."""
        status = _line(self._status())
        if not self._is_ready_said:
            self._is_ready_said = self._send(f"READY=1\nSTATUS={status}")
        elif status != self._said:
            self._send(f"STATUS={status}")
        self._said = status

    def _send(self, text: str) -> bool:
        """Whether it was taken. One that does not take it is told of the next thing; the log says so once."""
        try:
            self._socket.sendto(text.encode("utf-8", "replace"), self._address)
        except OSError as exc:
            if not self._is_loss_said:
                self._is_loss_said = True
                logger.warning("supervisor_unreached", socket=os.fsdecode(self._address), reason=str(exc))
            return False
        return True


def status_line(node: Node) -> str:
    """A node in a line, as `systemctl status` shows it: what it is, and the first of what is wrong."""
    status = node.status()
    if status.role == "leader":
        line = f"node {status.node_id} leads in term {status.term}"
    else:
        whom = f"node {status.leader}" if status.leader is not None else "no leader"
        line = f"node {status.node_id} follows {whom} in term {status.term}"
    reached = sum(peer.connected for peer in status.peers)
    if status.peers:
        line += f", reaches {reached} of {len(status.peers)} others"
    problems = status.problems()
    more = f" (and {len(problems) - 1} more: raftkv doctor)" if len(problems) > 1 else ""
    return f"{line}; {problems[0]}{more}" if problems else line


def _watchdog_s(environment: Mapping[str, str], pid: int) -> float | None:
    """How often the process must be heard of; None when nobody waits for that, or for another process."""
    if environment.get("WATCHDOG_PID", str(pid)) != str(pid):
        return None
    try:
        given = int(environment.get("WATCHDOG_USEC", "0"))
    except ValueError:
        logger.warning("not_watched", watchdog_usec=environment["WATCHDOG_USEC"], hint="it must be a whole number")
        return None
    return given / 1_000_000 if given > 0 else None


def _line(text: str) -> str:
    """Each line would be a variable of its own."""
    return " ".join(text.split())[:STATUS_CHARS_MAX]


def _nothing() -> None:
    """What the disk's thread is asked to do."""
