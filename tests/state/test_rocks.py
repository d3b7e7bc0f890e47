"""RocksDB's own dangers: damage that iterators keep quiet about, locks, foreign exceptions."""

from __future__ import annotations

import ast
import shutil
from pathlib import Path

import msgspec
import pytest
import rocksdict

import raftkv
from raftkv.errors import DataDirLocked, DiskError, FormatError, NodeStopped, StateCorruption
from raftkv.state import META_KEY, Applied
from raftkv.state.interface import decode_meta
from raftkv.state.rocks import RocksStates

VALUES = {b"\x02%04d" % number: bytes([number % 251]) * 100 for number in range(2000)}


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    """A flushed, closed store with several files."""
    directory = tmp_path_factory.mktemp("rocks") / "s"
    store = RocksStates().open(str(directory))
    for index, (key, value) in enumerate(VALUES.items(), 1):
        store.write({key: value}, Applied(index, 1))
        if index % 700 == 0:
            store.flush()
    store.flush()
    store.close()
    return directory


def read(directory):
    """Open a store, read everything in every way, and close it."""
    store = RocksStates().open(str(directory))
    try:
        values = {key: value for key, value in store.scan(b"", None) if key != META_KEY}
        assert all(store.get(key) == value for key, value in values.items())
        assert store.verify() == len(values)
        return store.applied, values
    finally:
        store.close()


def test_a_flip_in_any_file_is_found_or_harmless(sound, tmp_path):
    """Each file, at several places: the same state, or a typed error, and never a part of it (F10, F68).

    A database that opens as an empty one is the state before the first entry, and is rebuilt from there.
    """
    applied = read(sound)
    found = 0
    for file in sorted(path.name for path in sound.iterdir() if path.name not in ("LOCK", "LOG")):
        size = (sound / file).stat().st_size
        for position in sorted({0, size // 7, size // 3, size // 2, size - 30, size - 1} & set(range(size))):
            copy = tmp_path / f"{file}-{position}"
            shutil.copytree(sound, copy)
            data = bytearray((copy / file).read_bytes())
            data[position] ^= 0x10
            (copy / file).write_bytes(data)
            try:
                assert read(copy) in (applied, (Applied(), {})), f"{file} at {position}"
            except (StateCorruption, DiskError):
                found += 1
    assert found > 5


def test_a_missing_file_is_found(sound, tmp_path):
    """Without any one of its data files the store does not open, or not as a state with holes (F11)."""
    for file in sorted(path.name for path in sound.iterdir() if path.suffix == ".sst" or path.name == "CURRENT"):
        copy = tmp_path / file
        shutil.copytree(sound, copy)
        (copy / file).unlink()
        try:
            assert read(copy) == (Applied(), {}), file
        except (StateCorruption, DiskError):
            pass
        else:
            assert file == "CURRENT"


def test_a_store_in_use_is_locked(tmp_path):
    """Two processes never write to one state."""
    store = RocksStates().open(str(tmp_path / "s"))
    with pytest.raises(DataDirLocked):
        RocksStates().open(str(tmp_path / "s"))
    store.close()


def test_a_file_in_place_of_the_directory_is_a_disk_error(tmp_path):
    """Foreign exceptions are translated, and the path is in the text."""
    (tmp_path / "s").write_text("")
    with pytest.raises(DiskError, match=rf"{tmp_path}.*; .*, then start the node again"):
        RocksStates().open(str(tmp_path / "s"))


def test_another_format_names_both_versions():
    """A state of another version is refused by name, not misread."""
    data = msgspec.msgpack.encode([9, [1, 1, 1, 1]])
    with pytest.raises(FormatError, match=r"format version 9.*reads version 2"):
        decode_meta(data, "somewhere")
    with pytest.raises(StateCorruption):
        decode_meta(b"\xc1", "somewhere")
    with pytest.raises(NodeStopped):
        decode_meta(None, "somewhere")


def test_a_database_of_somebody_else_is_no_state(tmp_path):
    """Values without a record of what is applied are nobody's state, not an empty one."""
    database = rocksdict.Rdict(str(tmp_path / "s"), rocksdict.Options(raw_mode=True))
    database[b"key"] = b"value"
    database.close()
    with pytest.raises(StateCorruption, match="does not say which entries are applied"):
        RocksStates().open(str(tmp_path / "s"))


def test_nobody_else_iterates():
    """`items`, `keys` and `values` of rocksdict end early on damage and say nothing, so only `scan` iterates."""
    package = Path(raftkv.__file__).parent
    guilty = []
    for path in package.rglob("*.py"):
        text = path.read_text()
        if "rocksdict" not in text:
            continue
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Attribute) and node.attr in ("items", "keys", "values", "iter"):
                owner = ast.unparse(node.value)
                if owner.endswith("_db"):
                    guilty.append(f"{path.name}: {owner}.{node.attr}")
    assert guilty == ["rocks.py: self._db.iter"]
