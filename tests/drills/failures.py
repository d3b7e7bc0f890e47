"""Drills of what breaks: processes, disks, directories, and majorities."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.chaos.fullness import FILLER, fill
from tests.drills.drill import Drill
from tests.drills.etcds import EtcdNodes
from tests.drills.nodes import Nodes
from tests.drills.ours import OurNodes
from tests.drills.terminal import DrillFailed

IN_STEPS = "a write that etcd has dropped, having no leader, is tried again after 2 s: its seconds come in such steps"

SMALL_DISK_MIB = 160
"""Two of etcd's log files fit, and little more."""


def leader_killed(nodes: Nodes) -> None:
    """Others take over by themselves."""
    nodes.found()
    leader = nodes.leader()
    nodes.terminal.trouble()
    nodes.kill(leader)
    nodes.served()


def leader_paused(nodes: Nodes) -> None:
    """Its connections stay open, and nothing comes any more."""
    nodes.found()
    leader = nodes.leader()
    nodes.terminal.trouble()
    nodes.pause(leader)
    nodes.served()


def node_started_again(nodes: Nodes) -> None:
    """A killed node has its directory, and comes back."""
    nodes.found()
    nodes.kill(3)
    nodes.terminal.trouble()
    nodes.serve(3)
    nodes.all_up()
    nodes.served()


def our_dead_node(nodes: OurNodes) -> None:
    """Node 4 in the place of node 3."""
    nodes.found()
    nodes.kill(3)
    nodes.terminal.trouble()
    nodes.serve(4, joins=True)
    nodes.terminal.type("raftkv", "replace", f"3=4@{nodes.peer(4)}/{nodes.client(4)}")
    nodes.all_up()
    nodes.served()


def etcds_dead_node(nodes: EtcdNodes) -> None:
    """The dead one is removed first, as etcd's manual says."""
    nodes.found()
    nodes.settle()
    nodes.kill(3)
    nodes.terminal.trouble()
    ids = nodes.member_ids()
    nodes.terminal.type("etcdctl", "member", "remove", ids[3])
    nodes.terminal.type("etcdctl", "member", "add", "m4", "--peer-urls", nodes.peer(4))
    nodes.serve(4, joins=True)
    nodes.all_up()
    nodes.served()


def _lose_majority(nodes: Nodes) -> int:
    """All nodes and all disks but one are gone; that one has what was there before."""
    nodes.found()
    survivor = nodes.leader()
    nodes.kill(*nodes.running)
    for number in nodes.founders:
        if number != survivor:
            shutil.rmtree(nodes.directory(number))
    nodes.terminal.trouble()
    return survivor


def our_lost_majority(nodes: OurNodes) -> None:
    """The survivor goes on alone."""
    survivor = _lose_majority(nodes)
    words = ("--i-accept-loss", "--cluster-name", "raftkv")
    nodes.terminal.type("raftkv", "recover", f"n{survivor}", *words)
    nodes.serve(survivor)
    nodes.served()


def etcds_lost_majority(nodes: EtcdNodes) -> None:
    """Started with a flag that must not stay, so it is started once more without."""
    survivor = _lose_majority(nodes)
    nodes.serve(survivor, more=["--force-new-cluster"])
    nodes.all_up()
    nodes.stop(survivor)
    nodes.serve(survivor)
    nodes.served()


def no_small_disks() -> str | None:
    """Why no file systems in memory can be mounted; None when they can."""
    if os.geteuid() != 0:
        return "needs root, to mount small file systems"
    return None if shutil.which("mount") else "mount is not installed"


@contextmanager
def _small_disks(nodes: Nodes) -> Iterator[None]:
    """A small file system below each founder's directory; at the end the nodes are gone, too."""
    mounted: list[Path] = []
    try:
        for number in nodes.founders:
            place = nodes.directory(number)
            place.mkdir()
            options = f"size={SMALL_DISK_MIB}m"
            subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(place)], check=True)
            mounted.append(place)
        yield
    finally:
        nodes.kill(*nodes.running)
        for place in mounted:
            subprocess.run(["umount", "-l", str(place)], check=True)


def full_disks(nodes: Nodes) -> None:
    """Something else has filled all three disks; it is removed, and whoever has ended is started again."""
    with _small_disks(nodes):
        nodes.found()
        for number in nodes.founders:
            fill(nodes.directory(number) / FILLER)
        nodes.until(lambda: _refuses(nodes), "writes are refused")
        nodes.terminal.trouble()
        nodes.terminal.type("rm", *[f"n{number}/{FILLER}" for number in nodes.founders])
        for number in nodes.founders:
            if nodes.running[number].poll() is not None:
                nodes.serve(number)
        nodes.all_up()
        nodes.served()


def _refuses(nodes: Nodes) -> bool:
    """Whether a large write is not taken any more."""
    return not nodes.takes("large", "x" * 100_000, 2.0)


def overwrite(nodes: Nodes) -> None:
    """The same hundred keys again and again, 30 MB in all. Raises `DrillFailed` when nothing is taken any more."""
    for _ in range(30):
        nodes.fill("same/", 100, 10_000)


def our_old_values(nodes: OurNodes) -> None:
    """What was overwritten is not kept."""
    nodes.found()
    overwrite(nodes)
    nodes.terminal.trouble()
    nodes.served()


def etcds_old_values(nodes: EtcdNodes) -> None:
    """The quota is used up by history, and an alarm refuses writes until somebody has made room and ended it."""
    nodes.more = ["--quota-backend-bytes", str(16 << 20)]
    nodes.found()
    try:
        overwrite(nodes)
    except DrillFailed as exc:
        if "space exceeded" not in str(exc):
            raise
    else:
        raise DrillFailed("etcd's quota was not used up")
    nodes.terminal.trouble()
    nodes.make_room()
    nodes.terminal.type("etcdctl", "alarm", "disarm")
    nodes.served()


def our_damaged_node(nodes: OurNodes) -> None:
    """State and snapshots of node 3 are damaged, and its log does not reach back to the beginning."""
    nodes.more = [word for value in ("keep_entries=2", "segment_bytes=1KiB") for word in ("--set", value)]
    nodes.found()
    nodes.fill("k/", 60, 100)
    nodes.terminal.type("raftkv", "snapshot", "take", "--all")
    nodes.kill(3)
    for path in [*nodes.directory(3).glob("snapshots/*/*.sst"), *nodes.directory(3).glob("state/*.sst")]:
        _flip(path)
    (nodes.directory(3) / "state" / "CURRENT").unlink()
    nodes.terminal.trouble()
    nodes.serve(3)
    nodes.until(lambda: nodes.running[3].poll() is not None, "node 3 stops")
    if "--rebuild" not in nodes.said(3):
        raise DrillFailed(f"node 3 does not say what to do: {nodes.said(3)}")
    nodes.serve(3, more=["--rebuild"])
    nodes.all_up()
    nodes.served()


def etcds_damaged_node(nodes: EtcdNodes) -> None:
    """Its database is damaged: it ends, and there is nothing but a new member with an empty directory."""
    nodes.found()
    nodes.settle()
    nodes.fill("k/", 60, 100)
    nodes.kill(3)
    database = nodes.directory(3) / "member" / "snap" / "db"
    content = bytearray(database.read_bytes())
    content[: len(content) // 2] = bytes(len(content) // 2)
    database.write_bytes(content)
    nodes.terminal.trouble()
    nodes.serve(3)
    nodes.until(lambda: nodes.running[3].poll() is not None, "member 3 ends")
    del nodes.running[3]
    ids = nodes.member_ids()
    nodes.terminal.type("etcdctl", "member", "remove", ids[3])
    nodes.terminal.type("etcdctl", "member", "add", "m3", "--peer-urls", nodes.peer(3))
    nodes.terminal.type("rm", "-r", "n3")
    nodes.serve(3, joins=True)
    nodes.all_up()
    nodes.served()


def _flip(path: Path) -> None:
    """One bit in the middle, in a file of its own: snapshots share theirs with the state."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.unlink()
    path.write_bytes(content)


def our_wrong_directory(nodes: OurNodes) -> None:
    """It does not start."""
    _start_on_a_copy(nodes)
    nodes.all_up()
    nodes.served()


def etcds_wrong_directory(nodes: EtcdNodes) -> None:
    """It takes part as the other one, which may end by that: then it is made anew."""
    _start_on_a_copy(nodes)
    nodes.until(lambda: nodes.answers(3), "node 3 answers")
    nodes.until(lambda: nodes.running[2].poll() is not None or nodes.answers(2), "node 2 has ended or answers")
    if nodes.running[2].poll() is not None:
        nodes.kill(2)
        its_id = nodes.member_id_at(2)
        nodes.settle()
        nodes.terminal.type("etcdctl", "member", "remove", its_id)
        nodes.terminal.type("etcdctl", "member", "add", "m2", "--peer-urls", nodes.peer(2))
        nodes.terminal.type("rm", "-r", "n2")
        nodes.serve(2, joins=True)
    nodes.all_up()
    nodes.served()


def _start_on_a_copy(nodes: Nodes) -> None:
    """Node 3 was started on a copy of node 2's directory, and its own lies beside it; then it is started on that."""
    nodes.found()
    nodes.kill(3)
    nodes.directory(3).rename(nodes.directory(3).with_name("n3.own"))
    shutil.copytree(nodes.directory(2), nodes.directory(3), copy_function=_copy)
    nodes.serve(3)
    nodes.until(lambda: nodes.running[3].poll() is not None or nodes.answers(3), "node 3 ends or answers")
    nodes.terminal.trouble()
    if nodes.running[3].poll() is None:
        nodes.stop(3)
    nodes.terminal.type("rm", "-r", "n3")
    nodes.terminal.type("mv", "n3.own", "n3")
    nodes.serve(3)


def _copy(source: str, target: str) -> None:
    """Of a directory whose node runs: files may go meanwhile."""
    try:
        shutil.copy2(source, target)
    except OSError as exc:
        if exc.errno != errno.ENOENT:
            raise


DRILLS = (
    Drill("leader-killed", "the leader is killed", leader_killed, leader_killed, note=IN_STEPS),
    Drill("leader-paused", "the leader hangs, its connections open", leader_paused, leader_paused, note=IN_STEPS),
    Drill("node-killed", "a killed node is to come back", node_started_again, node_started_again),
    Drill("node-dead", "a node is dead for good", our_dead_node, etcds_dead_node),
    Drill("majority-lost", "two disks of three are lost for good", our_lost_majority, etcds_lost_majority),
    Drill("disks-full", "all disks are full", full_disks, full_disks, missing=no_small_disks),
    Drill(
        "old-values",
        "30 MB were written over the same 100 keys",
        our_old_values,
        etcds_old_values,
        note="etcd keeps what was overwritten until it is compacted, within a quota, here of 16 MiB; raftkv has none",
    ),
    Drill("node-damaged", "a node's data is damaged", our_damaged_node, etcds_damaged_node),
    Drill(
        "wrong-directory",
        "a node was started on a copy of another one's directory",
        our_wrong_directory,
        etcds_wrong_directory,
    ),
)
