"""Files of every format that was ever released are read as they were written; those of a later one are refused."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import struct
import tarfile
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
import xxhash

from raftkv import Client, Server
from raftkv.disk import RealDisk
from raftkv.errors import FormatError
from raftkv.history import BEGINNING
from raftkv.log.sealed import seal
from raftkv.model import Member
from raftkv.node import World
from raftkv.node.directory import open_directory
from raftkv.node.formats import FORMATS, OLDEST_READ, PROTOCOL
from raftkv.node.paths import Options
from raftkv.node.restoring import RestorePlan, restore
from raftkv.snapshot.backup import check_backup
from raftkv.state import META_KEY
from raftkv.state.rocks import RocksStates
from raftkv.transport.memory import pause
from tests.formats.make import MOVED, SETTING, STOCK, Kept, Sold, describe

KEPT = sorted((Path(__file__).parent / "kept").iterdir())
HEAD = struct.Struct("<8sII")
LATER = 9
SLOT_BYTES = 4096


@pytest.fixture(params=KEPT, ids=lambda folder: folder.name)
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A copy of kept files."""
    with tarfile.open(request.param / "node.tar.gz") as tar:
        tar.extractall(tmp_path, filter="data")
    for name in ("kept.backup", "content.json"):
        shutil.copy(request.param / name, tmp_path)
    return tmp_path


def test_every_kept_file_is_read_as_it_was_written(folder: Path) -> None:
    """Entry by entry, row by row, field by field; fields that were added later have what older files mean by it."""
    written = json.loads((folder / "content.json").read_text())
    found = describe(folder / "node", folder / "kept.backup")
    assert set(written) == set(found)
    for name, content in written.items():
        assert known(found[name], content) == content, name


def known(found: object, written: object) -> object:
    """What was found, without the fields that did not exist when it was written."""
    if isinstance(found, dict) and isinstance(written, dict):
        return {name: known(value, written.get(name)) for name, value in found.items() if name in written}
    if isinstance(found, list) and isinstance(written, list) and len(found) == len(written):
        return [known(*pair) for pair in zip(found, written, strict=True)]
    return found


def test_a_node_goes_on_from_kept_files(folder: Path) -> None:
    """It serves what was written, with the history, what is scheduled, and the settings that were kept; and writes."""

    async def story() -> None:
        async with Server(Kept, data_dir=folder / "node") as server:
            client = server.client()
            await check(server, client)
            status = server.status()
            assert {each.name: each.value for each in status.settings if each.name in SETTING} == SETTING
            while server.status().membership.member(1) != MOVED:  # the leader carries out the operator's order
                await pause(0.02)
            await client.call(Kept.put, "neu", 1)
            assert await client.call(Kept.count, "neu") == 1

    asyncio.run(asyncio.wait_for(story(), 60))


def test_a_cluster_begins_from_a_kept_backup(folder: Path) -> None:
    """The same state, in another cluster."""

    async def begin() -> None:
        world = World.real()
        try:
            members = (Member(1, "127.0.0.1:1", "127.0.0.1:2"),)
            plan = RestorePlan(node_id=1, data_dir=str(folder / "new"), members=members, cluster_name="new")
            restore(world, str(folder / "kept.backup"), plan)
        finally:
            await world.close()
        async with Server(Kept, data_dir=folder / "new") as server:
            await check(server, server.client())

    asyncio.run(asyncio.wait_for(begin(), 60))


async def check(server: Server[Kept], client: Client[Kept]) -> None:
    """What `make` has written is there."""
    for name, count in STOCK.items():
        assert await client.call(Kept.count, name) == count
    timers = server.status().timers
    assert timers is not None and timers.waiting == 1
    told = []
    async for change in client.watch(Kept.sold, BEGINNING):
        told.append(change.value)
        if len(told) == len(STOCK):
            break
    assert told == [Sold(name) for name in STOCK]


def later(data: bytes, checksum: Callable[[bytes], bytes], at: int = 0) -> bytes:
    """The same bytes as a later raftkv would seal them: everything else holds."""
    magic, _, length = HEAD.unpack_from(data, at)
    begun = HEAD.pack(magic, LATER, length)
    size = len(checksum(b""))
    body = data[at + HEAD.size + size : at + HEAD.size + size + length]
    return data[:at] + begun + checksum(begun + body) + body + data[at + HEAD.size + size + length :]


def short(data: bytes) -> bytes:
    """The checksum of what belongs to the log."""
    return xxhash.xxh3_64_intdigest(data).to_bytes(8, "little")


def the_log(data: bytes) -> bytes:
    """What is sealed as the log is."""
    return later(data, short)


def the_vote(data: bytes) -> bytes:
    """Both copies."""
    return later(later(data, short), short, SLOT_BYTES)


def the_snapshot(data: bytes) -> bytes:
    """What is sealed as a manifest is."""
    return later(data, xxhash.xxh3_128_digest)


SMALL = ["cluster", "starts", "peers", "receipts", "addresses", "settings", "log/MANIFEST", "state/OWNER"]


@pytest.mark.parametrize(
    ("where", "changed"),
    [("vote", the_vote), ("log/*.log", the_log), ("snapshots/*/MANIFEST", the_snapshot)]
    + [(name, the_log) for name in SMALL],
)
def test_a_file_of_a_later_version_keeps_the_node_from_starting(
    folder: Path, where: str, changed: Callable[[bytes], bytes]
) -> None:
    """With its name and both versions; it is left as it was, for the raftkv that can read it."""
    path = max((folder / "node").glob(where))  # of the snapshots, the newest
    data = changed(path.read_bytes())
    path.write_bytes(data)
    with pytest.raises(FormatError, match=rf"{path.name}.* has format version {LATER}, this raftkv reads version \d"):
        refused(folder / "node")
    assert path.read_bytes() == data


def refused(directory: Path) -> None:
    """Open a directory, as the start of its node does."""

    async def begin() -> None:
        world = World.real()
        try:
            open_directory(Options(node_id=1, data_dir=str(directory)), world)
        finally:
            await world.close()

    asyncio.run(begin())


def test_a_state_of_a_later_version_is_refused(folder: Path) -> None:
    """It says so itself, in the database."""
    store = RocksStates().open(str(folder / "node" / "state"))
    _, applied = msgspec.msgpack.decode(store.get(META_KEY) or b"")
    store.db[META_KEY] = msgspec.msgpack.encode([LATER, applied])
    store.close()
    with pytest.raises(FormatError, match=f"has format version {LATER}, this raftkv reads version"):
        refused(folder / "node")


@pytest.mark.parametrize("part", ["head", "manifest"])
def test_a_backup_of_a_later_version_is_refused(folder: Path, part: str) -> None:
    """Its own version, and that of the snapshot in it."""
    path = folder / "kept.backup"
    data = path.read_bytes()
    if part == "manifest":
        _, _, length = HEAD.unpack_from(data)
        end = HEAD.size + 16 + length
        head = msgspec.msgpack.decode(data[HEAD.size + 16 : end])
        head["manifest"] = the_snapshot(head["manifest"])
        body = msgspec.msgpack.encode(head)
        begun = HEAD.pack(data[:8], 1, len(body))
        data = begun + xxhash.xxh3_128_digest(begun + body) + body + data[end:]
    else:
        data = the_snapshot(data)
    path.write_bytes(data)
    with pytest.raises(FormatError, match=rf"kept.backup has format version {LATER}, this raftkv reads version \d"):
        check_backup(RealDisk(), str(path))


def test_the_oldest_version_that_is_said_to_be_read_is_kept_here_and_read() -> None:
    """`raftkv upgrade check` goes by what is said; that of which files are kept is read by the tests above."""
    kept: dict[str, set[int]] = {}
    for folder in KEPT:
        for name, version in re.findall(r"([a-z]+)(\d+)", folder.name):
            kept.setdefault(name, set()).add(int(version))
    assert {name: min(versions) for name, versions in kept.items()} == OLDEST_READ
    assert {name: max(versions) for name, versions in kept.items()} | {PROTOCOL: FORMATS[PROTOCOL]} == FORMATS


def test_the_log_is_sealed_as_it_was() -> None:
    """The envelope itself is the one thing that no version changes, or none could name another."""
    assert (
        seal(b"RKVtest\n", b"body", 2).hex()
        == "524b56746573740a0200000004000000" + short(HEAD.pack(b"RKVtest\n", 2, 4) + b"body").hex() + b"body".hex()
    )
