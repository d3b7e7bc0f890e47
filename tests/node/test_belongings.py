"""What is found in a data directory is compared with whose directory it is before it is believed (F77)."""

from __future__ import annotations

import asyncio
import posixpath
import struct
from types import SimpleNamespace

import msgspec
import pytest
import xxhash

from raftkv.disk.simulated import SimDisk
from raftkv.errors import Corruption, FormatError, NodeStopped, StateCorruption, WrongDataDir
from raftkv.kv import KeyValue
from raftkv.log import VoteFile, sealed
from raftkv.model import HardState, Member, Membership
from raftkv.node import Options, directory
from raftkv.node.directory import close_directory, open_directory
from raftkv.node.identity import Founding, save_founding
from raftkv.node.starts import begin_starts
from raftkv.snapshot import Receipts, manifest
from raftkv.snapshot.manifest import read_manifest
from raftkv.state import META_KEY, MemoryStates
from raftkv.testing import play, scenario
from raftkv.testing.world.workers import Crash
from tests.node.belongings import ROOT, Images, open_here, paths_under, put

SLOT_BYTES, HEADER_BYTES = 4096, 512
REFUSED = {"wrong": WrongDataDir, "corrupt": Corruption, "format": FormatError, "members": StateCorruption}


def table():
    """The cells of the table in the module's docstring: file, condition, and what is to happen."""
    rows = [[cell.strip() for cell in line.split("|")] for line in directory.__doc__.splitlines() if " | " in line]
    conditions = rows[0][1:]
    return [(row[0], name, word) for row in rows[1:] for name, word in zip(conditions, row[1:], strict=True)]


CELLS = table()


@pytest.fixture(scope="module")
def images():
    """Made once: growing three clusters takes a second."""
    return Images()


def test_the_table_has_all_cells():
    """No file without a condition, none twice."""
    assert len(CELLS) == len({cell[:2] for cell in CELLS}) >= 60


def newest(disk, where):
    """The last file or directory there, the manifest aside."""
    names = [name for name in disk.listdir(posixpath.join(ROOT, where)) if name != "MANIFEST"]
    return posixpath.join(ROOT, where, names[-1])


def place(disk, file):
    """Where a file of the table is on `disk`, and where it is taken from."""
    match file:
        case "log/SEGMENT":
            return newest(disk, "log")
        case "snapshots/NEW":
            return newest(disk, "snapshots")
        case "state.new" | "state.old":
            return posixpath.join(ROOT, "state")
        case "state.unfit":
            return posixpath.join(ROOT, "peers")  # some bytes: what it says is for people
        case "tmp" | "staging":
            return newest(disk, "snapshots")
        case _:
            return posixpath.join(ROOT, file)


def target(disk, file, found):
    """Where it is put: a snapshot keeps its name, and what is left over has one of its own."""
    match file:
        case "snapshots/NEW":
            return found
        case "tmp":
            return f"{ROOT}/snapshots/tmp-1"
        case "staging":
            return f"{ROOT}/snapshots/staging-{'0' * 32}"
        case "state.new" | "state.old" | "state.unfit":
            return posixpath.join(ROOT, file)
        case _:
            return place(disk, file)


def of_another_version(data, at=0, size=None):
    """Sealed bytes, as a later raftkv would write them."""
    head = struct.Struct("<8sII")
    magic, _, length = head.unpack_from(data, at)
    body = data[at + sealed.SEAL_BYTES : at + sealed.SEAL_BYTES + length]
    piece = sealed.seal(magic, body, version=9)
    return data[:at] + piece + data[at + len(piece) :]


def manifest_of_another_version(data):
    """The same for a snapshot's manifest."""
    magic, _, length = struct.unpack_from("<8sII", data)
    head, body = struct.pack("<8sII", magic, 9, length), data[32:]
    assert manifest.CHECKSUM_BYTES == 16
    return head + xxhash.xxh3_128_digest(head + body) + body


def state_of_another_version(data):
    """The same for the state."""
    pairs = dict(msgspec.msgpack.decode(data[8:]))
    meta = msgspec.msgpack.decode(pairs[META_KEY])
    pairs[META_KEY] = msgspec.msgpack.encode([9, *meta[1:]])
    body = msgspec.msgpack.encode(list(pairs.items()))
    return xxhash.xxh3_64_digest(body) + body


def change_version(disk, file, where):
    """Let what is at `where` be of version 9."""
    for path in paths_under(disk, where):
        data = disk.image()[path]
        match file:
            case "vote":
                data = of_another_version(of_another_version(data), SLOT_BYTES)
            case "snapshots/NEW" | "snapshots" | "tmp" | "staging":
                data = manifest_of_another_version(data) if path.endswith("MANIFEST") else data
            case "state" | "state.new" | "state.old":
                data = state_of_another_version(data) if path.endswith("image") else data
            case "state.unfit":
                pass
            case _:
                data = of_another_version(data)
        disk.write_atomic(path, data)


def arrange(images, file, condition):
    """The node's disk with the file exchanged; where that is, and what it holds."""
    disk = images.now.copy()
    if condition == "missing":
        where = target(disk, file, place(disk, file))
        disk.remove_tree(where) if disk.is_dir(where) else disk.exists(where) and disk.remove(where)
        return disk, where, {}
    source = images.now if condition == "other version" else images.of(condition)
    found = place(source, file)
    where = target(disk, file, found)
    put(disk, where, source, found)
    if condition == "other version":
        change_version(disk, file, where)
    return disk, where, contents(disk, where)


def contents(disk, where):
    """The files there."""
    return {path: disk.image()[path] for path in paths_under(disk, where)}


@pytest.mark.parametrize(("file", "condition", "word"), CELLS)
def test_each_cell_of_the_table(images, file, condition, word):
    """F77: it is refused by name and left as it is, or the node is what it was, members and all."""
    disk, where, held = arrange(images, file, condition)
    before = disk.image()
    if word in REFUSED:
        for _ in range(2):  # however often it is tried
            with pytest.raises(REFUSED[word]) as refusal:
                open_here(disk)
            assert type(refusal.value) is REFUSED[word]
            assert contents(disk, where) == held
        assert names_what_it_is_about(str(refusal.value), file)
        if word == "wrong" and not file.startswith("log"):
            assert {path: data for path, data in disk.image().items() if "LOCK" not in path} == before
        return
    opened = open_here(disk)
    sound = open_here(images.now.copy())
    assert opened.view.last_id == sound.view.last_id
    assert opened.view.membership == sound.view.membership
    assert opened.store.applied == sound.store.applied
    assert opened.vote.identity == sound.vote.identity
    check_what_is_left(disk, opened, where, word, held)


def names_what_it_is_about(text, file):
    """The error names the file or its directory, and what to do; a newer vote file looks like an older log."""
    names = [f"{ROOT}/{file.split('/')[0]}", *([f"{ROOT}/log"] if file == "vote" else [])]
    what_to_do = ("Remove", "remove", "Put", "use the raftkv", "--rebuild")
    return any(name in text for name in names) and any(words in text for words in what_to_do)


def check_what_is_left(disk, opened, where, word, held):
    """What became of the file itself."""
    refused = opened.snapshots.refused()
    match word:
        case "ignored":
            assert contents(disk, where) == held
            assert "neither taken nor received by this node" in refused[posixpath.basename(where)]
        case "removed":
            assert held
            assert not contents(disk, where)
        case "kept":
            assert contents(disk, where) == held
        case "used":
            assert opened.snapshot.index == 486
        case "rebuilt":
            assert opened.store.get(b"\x00applied") is None
        case _:
            raise AssertionError(word)


@pytest.mark.parametrize("size", [1, 3])
def test_a_snapshot_of_another_cluster_changes_nothing(images, size):
    """F77: it is of later entries and terms, and of other members: the node stays what it was, and says so.

    Before, the node took its membership and led alone; what it then acknowledged was lost.
    """

    async def story(cluster):
        client = cluster.client()
        await client.remote.put(b"key", b"own")
        sim = cluster.nodes[1]
        sim.crash()
        foreign = newest(images.foreign, "snapshots")
        put(sim.disk, foreign, images.foreign, foreign)
        await sim.start()
        await client.remote.put(b"key", b"newer")
        await cluster.until_equal()
        assert sim.node.raft.membership.voters == tuple(range(1, size + 1))
        assert (await client.remote.get(b"key")).value == b"newer"
        assert len({node.raft.leader for node in cluster.running}) == 1
        (problem,) = sim.node.status().damaged
        assert f"{foreign} (of the cluster" in problem and "remove it, or move it" in problem
        await sim.node.orders.take_snapshot()
        assert contents(sim.disk, foreign) == contents(images.foreign, foreign)
        await client.close()

    play(KeyValue, story, size=size, seed=1)


def test_without_receipts_a_snapshot_of_another_cluster_still_does_not_count(images):
    """When the record of its own snapshots is lost, the node goes by its log, which has no entry of the foreign one."""
    disk = images.now.copy()
    own = open_here(disk.copy()).snapshot
    found = newest(images.foreign, "snapshots")
    put(disk, found, images.foreign, found)
    disk.remove(f"{ROOT}/receipts")
    opened = open_here(disk)
    assert opened.snapshot == own
    assert any(found in reason for reason in opened.snapshots.refused().values()), opened.snapshots.refused()


@scenario(KeyValue, seed=1)
async def test_an_older_record_of_the_cluster_is_refused_by_a_node_that_has_joined(cluster):
    """Else the node would join whichever cluster it meets first."""
    sim = cluster.add(4)
    await cluster.leader.orders.add_learner(sim.member)
    sim.cluster.network.cut(4, 1)
    await sim.start()
    await cluster.until(lambda: sim.node.cluster_id != "", 10, "node 4 has joined")
    await cluster.until(lambda: sim.node.opened.vote.identity.cluster_id != "", 10, "its vote file knows")
    joined = sim.disk.read_bytes("/data/cluster")
    own = sim.node.opened.vote.identity
    await sim.stop()
    before = msgspec.structs.replace(own, cluster_id="")
    save_founding(sim.disk, "/data/cluster", before, Founding(cluster_id="", membership=Membership()))
    with pytest.raises(Corruption, match="/data/cluster is an older copy: this node had not joined the cluster"):
        await sim.start()
    sim.disk.write_atomic("/data/cluster", joined)
    await sim.start()


@scenario(KeyValue, seed=1)
async def test_a_join_that_is_cut_off_between_its_two_files_is_finished(cluster):
    """The cluster's file says it first; a start lets the vote file say it too."""
    sim = cluster.add(4)
    await cluster.leader.orders.add_learner(sim.member)
    await sim.start()
    await cluster.until(lambda: sim.node.opened.vote.identity.cluster_id != "", 10, "it has joined")
    own = sim.node.opened.vote.identity
    await sim.stop()
    vote = VoteFile.look(sim.disk, "/data/vote")
    sim.disk.remove("/data/vote")
    VoteFile.create(sim.disk, "/data/vote", msgspec.structs.replace(own, cluster_id=""), HardState(term=99)).close()
    assert vote.identity == own
    sim.disk.remove("/data/starts")
    begin_starts(sim.disk, "/data/starts", own)
    await sim.start()
    assert sim.node.opened.vote.identity == own


@pytest.mark.parametrize("number", range(1, 4))
@scenario(KeyValue, seed=1)
async def test_a_crash_around_a_receipt_leaves_a_snapshot_that_counts_or_none(cluster, number):
    """F59: before each operation on the disk that belongs to the receipt; the node takes another one later."""
    client = cluster.client()
    for count in range(30):
        await client.remote.put(b"key-%d" % count, b"value")
    sim = cluster.nodes[1]
    left = number

    def hook(kind, path):
        nonlocal left
        if "receipts" in path:
            left -= 1
            if left == 0:
                raise Crash

    sim.disk.fault = hook
    with pytest.raises((NodeStopped, asyncio.CancelledError)):
        await sim.node.orders.take_snapshot()
    await sim.start()
    assert sim.node.opened.snapshots.damaged() == sim.node.opened.snapshots.refused() == {}
    await sim.node.orders.take_snapshot()
    await cluster.until_equal()
    await client.close()


@pytest.mark.parametrize("is_arrived", [True, False])
def test_a_snapshot_of_ones_own_is_ahead_of_the_log_only_while_it_is_installed(images, is_arrived):
    """Else the log is an older one, and what it lacks had been acknowledged: never cut it to fit the snapshot."""
    disk = images.now.copy()
    put(disk, f"{ROOT}/log", images.older, f"{ROOT}/log")
    put(disk, f"{ROOT}/vote", images.older, f"{ROOT}/vote")
    put(disk, f"{ROOT}/starts", images.older, f"{ROOT}/starts")
    if not is_arrived:
        with pytest.raises(Corruption, match="does not have entry 486@2, of which this node took or installed"):
            open_here(disk)
        return
    owner = VoteFile.look(disk, f"{ROOT}/vote").identity
    receipts = Receipts.open(disk, f"{ROOT}/receipts", owner)
    receipts.accept(read_manifest(disk, newest(disk, "snapshots")).digest, from_leader=True)
    opened = open_here(disk)
    assert opened.view.start.index == opened.store.applied.index == 486
    assert Receipts.open(disk, f"{ROOT}/receipts", owner).arrived is None


def test_the_data_of_another_state_machine_are_refused():
    """Else a cluster of one would start, read them as something else, and write its own over them."""
    disk = SimDisk()
    world = SimpleNamespace(disk=disk, states=MemoryStates(disk), nonce="nonce")
    options = Options(node_id=1, data_dir=ROOT, members=(Member(1, "a:1", "a:2"),), machine="Inventory")
    close_directory(open_directory(options, world))
    other = msgspec.structs.replace(options, machine="KeyValue")
    with pytest.raises(WrongDataDir, match="holds the data of the state machine Inventory, not of KeyValue"):
        open_directory(other, world)
    close_directory(open_directory(options, world))
