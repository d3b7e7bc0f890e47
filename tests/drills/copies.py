"""Drills of copies: backups made, checked and restored, and everything exported."""

from __future__ import annotations

import shutil

from tests.drills.drill import Drill
from tests.drills.etcds import EtcdNodes
from tests.drills.nodes import Nodes
from tests.drills.ours import OurNodes
from tests.drills.terminal import DrillFailed

KEYS, VALUE_BYTES = 2_000, 1_000
COPY = "all.copy"


def _stored(nodes: Nodes) -> None:
    """Two megabytes in three nodes."""
    nodes.found()
    nodes.fill("k/", KEYS, VALUE_BYTES)


def backup(nodes: Nodes) -> None:
    """Everything in one file, while the cluster goes on."""
    _stored(nodes)
    nodes.terminal.trouble()
    nodes.back_up(COPY)
    if (nodes.terminal.directory / COPY).stat().st_size < KEYS * VALUE_BYTES / 100:
        raise DrillFailed(f"{COPY} can't have everything")
    nodes.served()


def _spoilt(nodes: Nodes) -> None:
    """A backup has a flipped bit."""
    _stored(nodes)
    nodes.back_up(COPY)
    path = nodes.terminal.directory / COPY
    content = bytearray(path.read_bytes())
    content[len(content) * 2 // 3] ^= 1
    path.write_bytes(content)
    nodes.terminal.trouble()


def our_spoilt_backup(nodes: OurNodes) -> None:
    """Every byte has a checksum."""
    _spoilt(nodes)
    if nodes.terminal.complaint("raftkv", "backup", "verify", COPY) is None:
        raise DrillFailed("a flipped bit in the backup was not found")
    nodes.terminal.relief()


def etcds_spoilt_backup(nodes: EtcdNodes) -> None:
    """What shows a backup may not see it; restoring it does."""
    _spoilt(nodes)
    if nodes.terminal.complaint("etcdctl", "snapshot", "status", COPY) is None:
        if nodes.terminal.complaint("etcdctl", "snapshot", "restore", COPY, "--data-dir", "scratch") is None:
            raise DrillFailed("a flipped bit in the backup was not found")
        nodes.terminal.type("rm", "-r", "scratch")
    nodes.terminal.relief()


def _lost(nodes: Nodes, *, moved: bool) -> None:
    """All nodes are gone, and a backup is left."""
    _stored(nodes)
    nodes.back_up(COPY)
    nodes.kill(*nodes.running)
    for number in nodes.founders:
        shutil.rmtree(nodes.directory(number))
        nodes.place[number] += 3 if moved else 0
    nodes.terminal.trouble()


def _restored(nodes: Nodes, *, moved: bool) -> None:
    _lost(nodes, moved=moved)
    nodes.restore(COPY, "n")
    for number in nodes.founders:
        nodes.serve(number)
    nodes.all_up()
    nodes.served()


def restored(nodes: Nodes) -> None:
    """Three nodes where they were."""
    _restored(nodes, moved=False)


def restored_elsewhere(nodes: Nodes) -> None:
    """Three nodes at other addresses."""
    _restored(nodes, moved=True)


def export(nodes: Nodes) -> None:
    """All keys and values, as JSON."""
    _stored(nodes)
    nodes.terminal.trouble()
    nodes.export("all.json")
    if (nodes.terminal.directory / "all.json").stat().st_size < KEYS * VALUE_BYTES:
        raise DrillFailed("all.json has not everything")
    nodes.served()


DRILLS = (
    Drill("backup", "a backup is wanted", backup, backup),
    Drill("backup-spoilt", "is a backup whole? (one of its bits is flipped)", our_spoilt_backup, etcds_spoilt_backup),
    Drill("restore", "all disks are lost, and there is a backup", restored, restored),
    Drill("restore-elsewhere", "the same, at other addresses", restored_elsewhere, restored_elsewhere),
    Drill("export", "all keys and values are wanted as JSON", export, export),
)
