"""Whole ranges from the command line: exported, imported elsewhere, counted, deleted; cut off and gone on with."""

from __future__ import annotations

import io
import os
import resource
import stat
import subprocess
import sys
from typing import Any

import pytest

from raftkv.cli.records import FORMATS, RecordError, whole_records
from raftkv.processes.cluster import NodeProcess, import_path
from tests.cli.commands import value_of

AWKWARD = [b"\x00", b"\xff\xfe", b"a\nb", "ä".encode(), b"x" * 300, b"y" * 70_000]


def fill(run, prefix: str, count: int) -> None:
    """So many keys; each value is its number."""
    for at in range(0, count, 100):
        lines = [f"put {prefix}{number:05d} {number}" for number in range(at, min(count, at + 100))]
        assert run("txn", *lines).exit_code == 0


@pytest.mark.parametrize("name", list(FORMATS))
def test_what_is_exported_can_be_imported(run, tmp_path, name):
    """Every key and value comes back as it was, also bytes that are no text; other keys are left alone."""
    prefix = f"ex-{name}/"
    fill(run, prefix, 250)
    run("put", "--hex", (prefix.encode() + b"\xff").hex(), b"\xfe\x00".hex())
    file = str(tmp_path / "data")
    done = run("export", file, "--prefix", prefix, "--format", name)
    assert done.exit_code == 0 and "exported 251 keys" in done.stderr
    assert "251 keys" in run("count", "--prefix", prefix).stdout
    assert "251 keys deleted" in run("delete", "--prefix", prefix).stdout
    assert value_of(run("count", "--prefix", prefix, "--json")) == {"keys": 0, "bytes": 0}
    imported = run("import", file, "--format", name)
    assert imported.exit_code == 0 and "imported 251 keys" in imported.stderr
    assert run("get", f"{prefix}00249").stdout == "249\n"
    assert run("get", "--hex", (prefix.encode() + b"\xff").hex()).stdout == "fe00\n"
    again = str(tmp_path / "again")
    run("export", again, "--range", prefix, "ex-zzz", "--format", name, "--one-index")
    assert (tmp_path / "again").read_bytes() == (tmp_path / "data").read_bytes()


def test_keys_that_are_there_can_be_left_alone(run, tmp_path):
    """With --if-absent only those are set that are missing; it is said how many were there."""
    fill(run, "ab/", 10)
    file = str(tmp_path / "data")
    run("export", file, "--prefix", "ab/")
    run("put", "ab/00003", "mine")
    run("delete", "ab/00004")
    done = run("import", file, "--if-absent", "--json")
    assert value_of(done) == {"imported": 1, "skipped": 9}
    assert run("get", "ab/00003").stdout == "mine\n"
    assert run("get", "ab/00004").stdout == "4\n"


@pytest.mark.parametrize("name", list(FORMATS))
def test_an_export_that_was_cut_off_goes_on(run, tmp_path, name):
    """Behind the last whole record: the file is then as if nothing had happened."""
    prefix = f"cut-{name}/"
    fill(run, prefix, 60)
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    run("export", str(whole), "--prefix", prefix, "--format", name)
    cut.write_bytes(whole.read_bytes()[:700])
    refused = run("export", str(cut), "--prefix", prefix, "--format", name)
    assert refused.exit_code == 2 and "exists already" in refused.stderr
    assert run("export", str(cut), "--prefix", prefix, "--format", name, "--resume").exit_code == 0
    assert cut.read_bytes() == whole.read_bytes()


def test_nobody_else_reads_what_was_exported(run, tmp_path):
    """Whatever the user's mask says: there may be anything in it, as in a backup."""
    file, before = tmp_path / "out", os.umask(0)
    try:
        assert run("export", str(file), "--prefix", "nothing/").exit_code == 0
    finally:
        os.umask(before)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def export_apart(node: NodeProcess, *words: str, **settings: Any) -> subprocess.CompletedProcess[str]:
    """Run an export in a process of its own, which keeps no bytecode: cut off by a limit, it would end others."""
    return subprocess.run(
        [sys.executable, "-m", "raftkv", "export", *words, "-a", node.member.client_address],
        env={**os.environ, "PYTHONPATH": import_path(), "PYTHONDONTWRITEBYTECODE": "1"},
        stderr=subprocess.PIPE,
        text=True,
        check=False,
        **settings,
    )


def limit_files() -> None:
    """Let this process make no file longer than 700 bytes."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (700, resource.RLIM_INFINITY))


def test_an_export_that_the_system_does_not_take_says_why_and_goes_on(run, one_node, tmp_path):
    """One error, with what to do, and no trouble with the rest at the end; then the rest is there."""
    fill(run, "limit/", 60)
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    run("export", str(whole), "--prefix", "limit/")
    words = (str(cut), "--prefix", "limit/")
    told = f"DiskError: writing {cut}: File too large; raise the limit of a file's size (ulimit -f), then go on with"
    for more in ((), ("--resume",)):
        done = export_apart(one_node, *words, *more, preexec_fn=limit_files)
        assert done.returncode == 5 and told in done.stderr and "Traceback" not in done.stderr, done.stderr
        assert "0 keys were done. Go on with the same command and --resume" in done.stderr
        assert cut.read_bytes() == whole.read_bytes()[:700]
    assert run("export", *words, "--resume").exit_code == 0
    assert cut.read_bytes() == whole.read_bytes()


def test_whoever_reads_an_export_may_take_its_beginning_only(run, one_node):
    """`raftkv export - | head -1`: that is no error to tell, least of all to go on with a file that there is not."""
    fill(run, "head/", 60)
    ours, theirs = os.pipe()
    os.close(ours)
    try:
        done = export_apart(one_node, "-", "--prefix", "head/", stdout=theirs)
    finally:
        os.close(theirs)
    assert (done.returncode, done.stderr) == (1, "")


def test_an_import_that_fails_says_where_to_go_on(run, tmp_path):
    """Everything before the broken line is there, and the command that goes on behind it works."""
    fill(run, "im/", 300)
    file = tmp_path / "data"
    run("export", str(file), "--prefix", "im/")
    run("delete", "--prefix", "im/")
    lines = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(b"".join(lines[:200]) + b"nonsense\n" + b"".join(lines[200:]))
    failed = run("import", str(file))
    assert failed.exit_code == 2 and "line 201" in failed.stderr
    (after,) = [word for line in failed.stderr.splitlines() if "--after" in line for word in line.split()[-1:]]
    file.write_bytes(b"".join(lines))
    assert run("import", str(file), "--after", after).exit_code == 0
    assert "300 keys" in run("count", "--prefix", "im/").stdout


def test_nothing_is_deleted_or_written_by_a_slip(run, tmp_path):
    """An empty prefix, a key and a range at once, no key at all; a file that is no export is not cut."""
    run("put", "slip", "1")
    for words in (["--prefix", ""], ["slip", "--prefix", "s"], [], ["--prefix", "a", "--range", "a", "b"]):
        assert run("delete", *words).exit_code == 2
    assert run("get", "slip").stdout == "1\n"
    other = tmp_path / "other"
    other.write_text("hello\n")
    assert run("export", str(other), "--resume").exit_code == 2
    assert other.read_text() == "hello\n"


@pytest.mark.parametrize("name", list(FORMATS))
def test_every_record_is_read_as_it_was_written_and_a_cut_is_found(name):
    """Any bytes; wherever the file ends, the whole records before are found, and not more."""
    chosen = FORMATS[name]
    keys = sorted(AWKWARD)
    records = [chosen.encode(key, key[::-1]) for key in keys]
    data = b"".join(records)
    assert list(chosen.decode(io.BytesIO(data))) == [(key, key[::-1]) for key in keys]
    ends = [sum(map(len, records[:count])) for count in range(len(records) + 1)]
    for size in (*range(0, 300, 7), len(data) - 1, len(data), *ends):
        last, whole = whole_records(io.BytesIO(data[:size]), chosen)
        assert whole == max(end for end in ends if end <= size)
        assert last == (keys[ends.index(whole) - 1] if whole else None)
    with pytest.raises(RecordError):
        list(chosen.decode(io.BytesIO(data[:-1])))
    with pytest.raises(RecordError, match="do not go up"):
        whole_records(io.BytesIO(records[1] + records[0]), chosen)
