"""Makes one of each file that a node writes, and tells what is in them as today's code reads it.

    python -m tests.formats.make FOLDER

The files in `tests/formats/kept` were made so by the raftkv that first wrote their formats, and are never made anew:
whoever changes a format gives it another version, and keeps files of that one in a new folder beside. What is in a
folder: `node.tar.gz`, the data directory of a stopped node; `kept.backup`, a backup of it; `content.json`, what they
hold.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import sys
import tarfile
from pathlib import Path
from typing import Any

import msgspec

from raftkv import Admin, Client, Events, History, Listen, Server, StateMachine, Table, command, query
from raftkv.config import KIB, Config
from raftkv.disk import RealDisk
from raftkv.entry import Entry
from raftkv.log import VoteFile, load_owned
from raftkv.log.manifest import read_manifest as read_list
from raftkv.log.reader import read_log
from raftkv.model import Member
from raftkv.node import World
from raftkv.node.directory import rewrite_addresses
from raftkv.node.identity import load_founding
from raftkv.node.live import load_settings
from raftkv.node.paths import Options, Paths
from raftkv.node.peers.met import load_known
from raftkv.node.peers.moved import load_moved
from raftkv.node.starts import load_starts
from raftkv.processes.ports import free_ports
from raftkv.snapshot import Receipts
from raftkv.snapshot.backup import check_backup
from raftkv.snapshot.manifest import read_manifest
from raftkv.state import OWNER_FILE
from raftkv.state.rocks import RocksStates
from raftkv.transport.memory import pause

STOCK = {"apple": 3, "birne": 5, "größe": 7}
LATER_S = 400 * 24 * 3600.0
SETTING = {"snapshot_rate_bytes_s": 1 << 20}
MOVED = Member(1, "n1.test:8001", "n1.test:7001")
CONFIG = Config(segment_bytes=64 * KIB, snapshot_interval_s=0)
"""Small segments, as zeros are written ahead of what is in them."""

LEFT_OUT = ("/LOCK", "/LOG")
"""What holds nothing: a lock, and what RocksDB has to say of the machine that it ran on."""

_OWNER_MAGIC = b"RKVowns\n"


class Sold(msgspec.Struct, tag=True):
    """An event of the kept history."""

    name: str


class Kept(StateMachine, history=History(count=100)):
    """A bit of everything that a state may hold: rows, changes, events, a scheduled command, sessions."""

    stock = Table(str, int, watch="old")
    sold = Events(Sold)

    @command
    def put(self, name: str, count: int) -> int:
        """Write one row."""
        self.stock[name] = count
        return count

    @command
    def sell(self, name: str) -> None:
        """A change and an event."""
        self.stock[name] -= 1
        self.sold.emit(Sold(name))

    @command
    def clear(self, name: str) -> None:
        """What is scheduled."""
        del self.stock[name]

    @command
    def clear_later(self, name: str) -> None:
        """Set a timer that no test outlives."""
        self.schedule(LATER_S, Kept.clear, name)

    @query
    def count(self, name: str) -> int | None:
        """Read one row."""
        return self.stock.get(name)


def make(folder: Path) -> None:
    """Keep what is on the disk of a node that has run for a while."""
    folder.mkdir(parents=True)
    work = folder / "work"
    asyncio.run(live(work, folder / "kept.backup"))
    asyncio.run(move(str(work / "node")))
    content = describe(work / "node", folder / "kept.backup")
    (folder / "content.json").write_text(json.dumps(content, indent=1, sort_keys=True, ensure_ascii=False) + "\n")
    with tarfile.open(folder / "node.tar.gz", "w:gz") as tar:
        tar.add(work / "node", "node", filter=lambda each: None if each.name.endswith(LEFT_OUT) else each)
    shutil.rmtree(work)


async def move(directory: str) -> None:
    """Give an operator's order that nobody has carried out yet."""
    world = World.real()
    try:
        rewrite_addresses(Options(node_id=1, data_dir=directory), world, [MOVED])
    finally:
        await world.close()


async def live(work: Path, backup: Path) -> None:
    """Run a node, beside one that joins for a moment, and let it do a bit of everything."""
    node = Server(Kept, data_dir=work / "node", cluster_name="kept", config=CONFIG)
    async with node as server, Client(Kept, [server.address]) as kept, Admin([server.address]) as admin:
        for name, count in STOCK.items():
            await kept.call(Kept.put, name, count + 1)
        await kept.call(Kept.clear_later, "apple")
        await admin.take_snapshot()
        for name in STOCK:
            await kept.call(Kept.sell, name)
        peers, clients = (f"127.0.0.1:{port}" for port in free_ports(2))
        listen = Listen(peers=peers, clients=clients)
        async with Server(Kept, data_dir=work / "two", node_id=2, join=True, listen=listen):
            await admin.add_learner(Member(2, peers, clients))
            while not any(peer.connected for peer in server.status().peers):
                await pause(0.05)
        await admin.settings(SETTING)
        await admin.backup(backup)


def describe(directory: Path, backup: Path) -> dict[str, Any]:
    """What is in each file, as values of JSON; bytes in base64. Raises what is wrong with one."""
    disk, paths = RealDisk(), Paths(str(directory))
    vote = VoteFile.look(disk, paths.vote)
    assert vote is not None
    owner = vote.identity
    snapshot = min(name for name in disk.listdir(paths.snapshots) if name[0].isdigit())
    sealed = read_manifest(disk, f"{paths.snapshots}/{snapshot}")
    receipts = Receipts.open(disk, paths.receipts, owner)
    store = RocksStates(read_only=True).open(paths.state)
    try:
        applied, rows = store.applied, [[key.hex(), value] for key, value in store.scan(b"", None)]
    finally:
        store.close()
    found = {
        "vote": vote,
        "cluster": load_founding(disk, paths.founding),
        "starts": load_starts(disk, paths.starts, owner),
        "peers": sorted(load_known(disk, paths.peers, owner).items()),
        "receipts": [receipts.has(sealed.digest), receipts.arrived],
        "addresses": load_moved(disk, paths.addresses, owner),
        "settings": sorted(load_settings(disk, paths.settings, owner).items()),
        "log manifest": read_list(disk, f"{paths.log}/MANIFEST"),
        "log": entries_in(disk, paths.log),
        "snapshot": [snapshot, sealed.digest, sealed.manifest],
        "state owner": load_owned(disk, f"{paths.state}/{OWNER_FILE}", _OWNER_MAGIC, bool),
        "state": [applied, rows],
        "backup": check_backup(disk, str(backup)).head,
    }
    described: dict[str, Any] = json.loads(msgspec.json.encode(found))
    return described


def entries_in(disk: RealDisk, directory: str) -> list[Entry]:
    """Every entry of a log."""
    entries: list[Entry] = []

    def take(behind: int, more: list[Entry]) -> None:
        entries[:] = [entry for entry in entries if entry.index <= behind] + more

    seen = read_log(disk, directory, take)
    assert not seen.problems, seen.problems
    return entries


if __name__ == "__main__":
    make(Path(sys.argv[1]))
