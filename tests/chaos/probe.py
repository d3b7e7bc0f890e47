"""What a node's process uses of its host, and which events its log has."""

from __future__ import annotations

import contextlib
import os
from collections import Counter
from pathlib import Path

import msgspec

from raftkv.processes.cluster import NodeProcess

_ESTABLISHED = "01"
"""As proc_pid_net(5) has it."""


class Usage(msgspec.Struct, frozen=True):
    """What one process uses now."""

    rss_bytes: int
    """Resident memory."""
    descriptors: int
    threads: int


def usage(node: NodeProcess) -> Usage:
    """Raises `FileNotFoundError` when the process is gone."""
    assert node.process is not None, f"node {node.node_id} was never started"
    place = Path("/proc") / str(node.process.pid)
    fields = dict(line.split(":", 1) for line in (place / "status").read_text().splitlines() if ":" in line)
    return Usage(
        rss_bytes=int(fields["VmRSS"].split()[0]) * 1024,
        descriptors=len(os.listdir(place / "fd")),
        threads=int(fields["Threads"]),
    )


def unread_bytes(node: NodeProcess) -> int:
    """What has arrived at the node's port for clients, and was not read by its process."""
    port = f":{int(node.own.client_address.rpartition(':')[2]):04X}"
    sockets = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return sum(
        int(queues.rpartition(":")[2], 16)
        for _, local, _, state, queues, *_ in sockets
        if local.endswith(port) and state == _ESTABLISHED
    )


def disk_bytes(node: NodeProcess) -> int:
    """Bytes in a node's data directory; a file with two names counts once."""
    sizes: dict[int, int] = {}
    for place, _, names in os.walk(node.data_dir):
        for name in names:
            with contextlib.suppress(FileNotFoundError):  # files go while they are looked at
                found = os.stat(os.path.join(place, name))
                sizes[found.st_ino] = found.st_blocks * 512
    return sum(sizes.values())


def events(node: NodeProcess) -> Counter[str]:
    """How often each event is in the node's log, as people read it: time, [level], event, and what else is known."""
    counts: Counter[str] = Counter()
    for line in node.log_path.read_text(errors="replace").splitlines():
        words = line.split("]", 1)[-1].split()
        if "[" in line and words:
            counts[words[0]] += 1
    return counts
