"""What the doctor says of a data directory is what a start of its node would come to, and nothing in it changes."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from raftkv.disk import RealDisk
from raftkv.doctor import Evidence, Trial, diagnose
from raftkv.doctor.directories import examine, filesystem_of, holder_of, try_start
from raftkv.doctor.evidence import SPARED
from raftkv.errors import InvalidArgument
from raftkv.model import Member
from raftkv.node import World
from raftkv.node.directory import close_directory, open_directory, rewrite_addresses
from raftkv.node.paths import Options, Paths
from raftkv.state import MemoryStates
from tests.cli.commands import invoke, when_led
from tests.doctor.cases import NOW, directory, lies
from tests.forked import ForkedCluster
from tests.node.belongings import OWN, ROOT, Images
from tests.node.test_belongings import CELLS, REFUSED, arrange

NAMES = {
    "WrongDataDir": "directory-foreign",
    "Corruption": ("directory-damaged", "directory-older"),
    "FormatError": "directory-other-version",
    "StateCorruption": "directory-state-lost",
}


@pytest.fixture(scope="module")
def images():
    """Directories of nodes that have ended well."""
    return Images()


def write_out(disk, root):
    """Put a simulated disk's data directory where a real one can be."""
    for path, data in disk.image().items():
        target = Path(root + path.removeprefix(ROOT))
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)


def tree(root):
    """All that is there, byte by byte, and when it was changed."""
    return {
        path: (path.read_bytes() if path.is_file() else None, path.stat().st_mtime_ns) for path in Path(root).rglob("*")
    }


@pytest.mark.parametrize(("file", "condition", "word"), CELLS)
def test_each_cell_of_the_table_of_files(images, tmp_path, file, condition, word):
    """F77: what a start refuses is found, by the name of what has to be done; what it takes is not found wrong."""
    root = str(tmp_path / "data")
    disk, _, _ = arrange(images, file, condition)
    write_out(disk, root)
    before = tree(root)
    trial = try_start(root, OWN, MemoryStates(RealDisk()))
    assert tree(root) == before
    found = {each.condition for each in diagnose(lies(directory(root, trial=trial)), NOW)}
    if word not in REFUSED:
        assert trial.error is None, trial.text
        assert found <= {"snapshot-refused", "state-rebuilt", "directory-mended"}
        assert word != "ignored" or "snapshot-refused" in found
        assert word != "rebuilt" or "state-rebuilt" in found
        return
    assert trial.error == REFUSED[word].__name__
    assert root in trial.text
    name = NAMES[trial.error]
    assert found & ({name} if isinstance(name, str) else set(name))
    if condition == "damaged" and file in SPARED:
        (finding,) = diagnose(lies(directory(root, trial=trial)), NOW)
        assert finding.commands[0] == f"rm {root}/{file}"


@pytest.fixture(scope="module")
def grown(tmp_path_factory):
    """The directory of a real node that took writes and a snapshot, and was stopped."""
    with ForkedCluster(tmp_path_factory.mktemp("grown"), 1) as cluster:
        node = cluster.nodes[1]
        node.start()
        when_led(node)
        address = ("-a", node.member.client_address)
        assert invoke("put", "a", "1", *address, "--timeout", "30").exit_code == 0
        assert invoke("snapshot", "take", *address, "--timeout", "30").exit_code == 0
        assert invoke("put", "b", "2", *address, "--timeout", "30").exit_code == 0
        assert node.terminate() == 0
        yield node.data_dir


@pytest.fixture
def data(grown, tmp_path):
    """A copy of it."""
    return Path(shutil.copytree(grown, tmp_path / "data"))


def found_in(*directories, **more):
    """The findings on directories, by name; nothing in them changes."""
    before = [tree(each) for each in directories]
    seen = tuple(examine(str(each)) for each in directories)
    findings = {each.condition: each for each in diagnose(Evidence(directories=seen, **more), NOW)}
    assert [tree(each) for each in directories] == before
    return findings


def test_a_sound_directory_has_nothing_wrong(data):
    """With RocksDB: its state is opened to be read only."""
    seen = examine(str(data))
    assert seen.owner.node_id == 1 and seen.starts == 1 and not seen.in_use
    assert seen.trial == Trial(), seen.trial
    assert found_in(data).keys() <= {"directory-full", "directory-in-memory"}


def test_a_directory_of_nobody(tmp_path):
    """An empty one, one with other things, and none at all."""
    assert set(found_in(tmp_path)) >= {"no-directory"}
    (tmp_path / "notes.txt").write_text("buy disks")
    assert "notes.txt" in found_in(tmp_path)["no-directory"].why[0]
    with pytest.raises(InvalidArgument, match="there is no such directory"):
        examine(str(tmp_path / "none"))


def test_a_damaged_log_is_found(data):
    """F9: with the file's name, and how to go on."""
    (segment,) = (data / "log").glob("*.log")
    content = bytearray(segment.read_bytes())
    content[700] ^= 1
    segment.write_bytes(content)
    damaged = found_in(data)["directory-damaged"]
    assert segment.name in damaged.why[0]
    assert damaged.commands[0] == f"raftkv log inspect {data}"


def test_a_missing_vote_file_is_found(data):
    """F11."""
    (data / "vote").unlink()
    assert "vote is missing" in found_in(data)["directory-damaged"].why[0]


def test_an_older_vote_file_is_found(data):
    """F21: put back from a backup that was made before a start."""
    old = (data / "vote").read_bytes()
    options = Options(node_id=1, data_dir=str(data))
    close_directory(open_directory(options, World.real()))
    (data / "vote").write_bytes(old)
    assert "is an older copy" in found_in(data)["directory-older"].why[0]


def test_a_torn_end_is_mended(data):
    """F8: as a crash leaves it."""
    (segment,) = (data / "log").glob("*.log")
    with segment.open("r+b") as file:
        file.seek(0, os.SEEK_END)
        file.write(b"torn")
    mended = found_in(data)
    assert set(mended) & {"directory-mended"}
    assert "is cut off at byte" in mended["directory-mended"].why[0]


def test_half_a_vote_is_mended(data):
    """One of the two copies is damaged, the other one has it."""
    content = bytearray((data / "vote").read_bytes())
    content[20] ^= 1
    (data / "vote").write_bytes(content)
    assert "vote_file_mended" in found_in(data)["directory-mended"].why[0]


def test_a_lost_state_is_made_anew(data):
    """F10: from the snapshot that is there; without that, from the log if it is whole."""
    shutil.rmtree(data / "state")
    assert "newest sound snapshot" in found_in(data)["state-rebuilt"].why[0]
    for each in (data / "snapshots").iterdir():
        shutil.rmtree(each)
    assert "its log, from the first entry on" in found_in(data)["state-rebuilt"].why[0]


def test_a_damaged_state_is_made_anew(data):
    """F10: the database does not open; the node would say so, and take its snapshot."""
    for each in (data / "state").glob("MANIFEST-*"):
        each.write_bytes(b"no manifest")
    rebuilt = found_in(data)["state-rebuilt"]
    assert any("state_damaged" in line for line in rebuilt.why)


def test_strangers_and_addresses_are_named(data):
    """F77, F83: a file of somebody's, and an order of an operator's that is not in the log yet."""
    (data / "notes.txt").write_text("buy disks")
    assert "notes.txt" in found_in(data)["directory-strangers"].why[0]
    moved = Member(1, "10.9.9.9:8001", "10.9.9.9:7001")
    rewrite_addresses(Options(node_id=1, data_dir=str(data)), World.real(), [moved])
    assert "directory-addresses" in found_in(data)


def test_a_copy_beside_its_original_is_found(data, tmp_path):
    """F22: both are sound, and only one may be started."""
    copy = shutil.copytree(data, tmp_path / "copy")
    twice = found_in(data, copy)["directory-twice"]
    assert str(data) in twice.what and str(copy) in twice.what


def test_a_recovery_that_was_cut_off_is_found(data):
    """F88: it is neither the old node nor the new one; the same command goes on."""
    (data / "recovering").write_bytes(b"begun")
    unfinished = found_in(data)
    assert unfinished["recovery-unfinished"].commands == (f"raftkv recover {data}",)
    assert "directory-foreign" not in unfinished


def test_a_directory_in_use_is_looked_at_from_outside(data):
    """F22: and by whom it is used."""
    lock = RealDisk().lock(str(data / "LOCK"))
    try:
        seen = examine(str(data))
        assert seen.in_use and seen.trial is None and seen.owner.node_id == 1
        assert holder_of(Paths(str(data)).lock) == os.getpid() == seen.used_by
        assert str(os.getpid()) in found_in(data)["directory-in-use"].why[0]
    finally:
        lock.release()
    assert not examine(str(data)).in_use
    assert holder_of(Paths(str(data)).lock) is None


def test_a_directory_is_opened_to_be_read_only(data, monkeypatch):
    """Whoever looks may not be allowed to write there, the disk may be mounted so, and somebody else may look, too."""
    real, written = os.open, []

    def watch(path, flags, *more, **named):
        if str(path).startswith(str(data)) and flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            written.append(path)
        return real(path, flags, *more, **named)

    monkeypatch.setattr(os, "open", watch)
    lock = RealDisk().lock_to_read(str(data / "LOCK"))
    try:
        seen = examine(str(data))
    finally:
        lock.release()
    assert not seen.in_use and seen.trial == Trial()
    assert written == []


def test_the_kind_of_a_file_system_is_known():
    """For one that every Linux has."""
    assert filesystem_of("/proc/self") == "proc"
