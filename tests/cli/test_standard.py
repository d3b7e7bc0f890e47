"""A process that was started without something that most have: a directory to work in, stdin, stdout."""

from __future__ import annotations

import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

from raftkv.processes.cluster import import_path
from tests.cli.commands import when_led
from tests.forked import ForkedCluster


def run_adrift(directory: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run a command in a directory that is removed before it starts."""
    program = """
import os, sys
os.chdir(sys.argv[1])
os.rmdir(sys.argv[1])
os.execv(sys.executable, [sys.executable, *sys.argv[2:]])
"""
    directory.mkdir()
    return subprocess.run(
        [sys.executable, "-c", program, str(directory), "-m", "raftkv", *words],
        text=True,
        capture_output=True,
        check=False,
        timeout=60,
        env={**os.environ, "PYTHONPATH": import_path()},
    )


def assert_told(done: subprocess.CompletedProcess[str], kind: str) -> None:
    """What was typed is refused, in words that say where the trouble is."""
    output = done.stdout + done.stderr
    assert done.returncode == 2, output
    assert kind in output and "was removed: change to one that is there (cd), or give whole paths" in output, output
    assert "Traceback" not in output and "bug" not in output, output


def test_a_name_that_begins_in_a_removed_directory_is_refused_in_words(tmp_path):
    """A shell may stand in a directory that somebody has removed. What is made nowhere is no bug of raftkv, and whole
    paths do."""
    gone, file = tmp_path / "gone", tmp_path / "a.backup"
    with ForkedCluster(tmp_path / "nodes", 1) as cluster:
        cluster.start_all()
        when_led(cluster.nodes[1])
        assert_told(run_adrift(gone, "backup", "a.backup", "-a", *cluster.addresses), "InvalidArgument: ")
        made = run_adrift(gone, "backup", str(file), "-a", *cluster.addresses)
        assert made.returncode == 0, made.stderr
    founder = ("--id", "1", "--cluster-name", "two", "--member", "1=127.0.0.1:8001/127.0.0.1:7001")
    assert_told(run_adrift(gone, "restore", str(file), "--data-dir", "n", *founder), "InvalidArgument: ")
    restored = run_adrift(gone, "restore", str(file), "--data-dir", "n", *founder, "--json")
    assert_told(restored, '"error":"InvalidArgument"')


def test_a_node_does_not_start_with_its_data_in_a_removed_directory(tmp_path):
    """The error is one of the setting, and no stack of calls that looks like a bug."""
    assert_told(run_adrift(tmp_path / "gone", "serve"), "ConfigError: data_dir = 'raftkv-data'")


def test_a_class_is_found_from_a_removed_directory(tmp_path):
    """What is installed needs no directory to work in, and what is not found is named."""
    done = run_adrift(tmp_path / "gone", "stubs", "raftkv.kv:KeyValue")
    assert done.returncode == 0 and "compare_and_set" in done.stdout, done.stderr
    done = run_adrift(tmp_path / "gone", "stubs", "nowhere:Inventory")
    assert done.returncode == 2 and "No module named 'nowhere'" in done.stderr, done.stderr


@pytest.mark.parametrize(
    ("words", "closed", "said"),
    [
        (
            ("put", "closed"),
            0,
            "the value comes from stdin, as there is none in the command and no --file, and",
        ),
        (("import", "-"), 0, "what to import comes from stdin, and this was started with stdin closed"),
        (("export", "-"), 1, "what is exported goes to stdout, and this was started with stdout closed"),
    ],
)
def test_what_there_is_none_of_is_not_taken_for_empty(words, closed, said, run, one_node):
    """A job that was started with stdin closed would put an empty value over what is there, and one with stdout closed
    would tell of keys that went nowhere."""
    done = subprocess.run(
        [sys.executable, "-m", "raftkv", *words, "-a", one_node.member.client_address],
        preexec_fn=partial(os.close, closed),
        stderr=subprocess.PIPE,
        text=True,
        check=False,
        timeout=60,
        env={**os.environ, "PYTHONPATH": import_path()},
    )
    assert done.returncode == 2 and f"InvalidArgument: {said}" in done.stderr, done.stderr
    assert run("get", "closed").exit_code == 1
