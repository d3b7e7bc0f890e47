"""Open files: those that every process has, and that sockets of strangers never take what the node's data needs."""

from __future__ import annotations

import asyncio
import errno
import os
import sys

import msgspec

from raftkv.config import Config
from raftkv.listener import ClientLimits
from raftkv.logs import EventLog
from raftkv.node import OpenFiles
from raftkv.transport import TransportLimits

if sys.platform != "win32":
    import resource

logger = EventLog(__name__)

OWN_MIN = 256
"""Kept for logs, tables, snapshots and peers, if the limit is large enough: an idle node has about 30 open."""

WATCH_S = 2.0

LOW = 0.05
"""Of the limit: what is left when the operator is warned."""


class Room(msgspec.Struct, frozen=True):
    """How many files this process may have open, and for what; None where there is no limit to be known."""

    limit: int | None
    own: int
    """What connections of clients and strangers leave free."""

    def server_limits(self, config: Config) -> ClientLimits:
        """For the listener: as configured, or fewer connections, which is said in the log."""
        limits = ClientLimits.of(config)
        if self.limit is None or limits.connections_max <= (fit := max(1, self.limit - self.own)):
            return limits
        logger.warning(
            "connections_limited",
            connections_max=fit,
            configured=limits.connections_max,
            open_files=self.limit,
            hint="raise the limit of open files (ulimit -Hn, LimitNOFILE=; RLIMIT_NOFILE in a program of your own) "
            "to serve more clients",
        )
        return msgspec.structs.replace(limits, connections_max=fit)

    def transport_limits(self, config: Config) -> TransportLimits:
        """For the peer port: strangers in their handshake may have a quarter of what clients leave free."""
        limits = TransportLimits.of(config)
        return msgspec.structs.replace(limits, strangers_max=min(limits.strangers_max, max(4, self.own // 4)))


def make_room() -> Room:
    """Raise the soft limit of open files to the hard one, as nothing here uses `select`, and share it out."""
    if sys.platform != "win32":
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        if soft != hard and hard != resource.RLIM_INFINITY:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return share_room()


def share_room() -> Room:
    """Share out the open files that this process may have; for programs whose own limit it is not ours to raise."""
    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0] if sys.platform != "win32" else None
    if soft is None or soft == resource.RLIM_INFINITY:
        return Room(None, OWN_MIN * 4)
    return Room(soft, max(soft // 4, min(OWN_MIN, soft // 2)))


def open_files() -> OpenFiles:
    """How near this process is to its limit."""
    if sys.platform == "win32":
        return OpenFiles()
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return OpenFiles(_lowest_free(limit), 0 if limit == resource.RLIM_INFINITY else limit)


async def watch() -> None:
    """Say in the log when files run out, and when there are enough again; for as long as it is not cancelled.

    The system closes connections that it can't accept for want of a descriptor, and tells nobody.
    """
    is_low = False
    while sys.platform != "win32":
        used, limit = open_files()
        was_low, is_low = is_low, limit > 0 and limit - used <= limit * LOW
        if is_low and not was_low:
            logger.warning(
                "files_run_out",
                open=used,
                limit=limit,
                hint="new connections are closed until there is room; raise the limit of open files (ulimit -n)",
            )
        elif was_low and not is_low:
            logger.info("files_enough", open=used, limit=limit)
        await asyncio.sleep(WATCH_S)


def _lowest_free(limit: int) -> int:
    """The number that the next file would get, `limit` when there is none: all below it are taken."""
    try:
        found = os.dup(2)
    except OSError as exc:
        if exc.errno == errno.EMFILE:
            return limit
        raise
    os.close(found)
    return found
