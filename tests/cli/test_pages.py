"""The pages of the README for bad days, done as they stand there: every command of theirs, in their order."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from raftkv.processes.cluster import NodeProcess, import_path
from raftkv.processes.ports import free_ports
from tests.cli.commands import invoke, when_led
from tests.forked import ForkedCluster
from tests.waiting import until

TEXT = (Path(__file__).parents[2] / "README.md").read_text()
FILES = ("shop.backup", "backups", "restored", "stock.jsonl", "n1", "n3", "n4")
"""What the commands name beside addresses."""


def commands_of(page: str) -> list[list[str]]:
    """The commands of a page, without `raftkv`."""
    section = TEXT.partition(f"\n## {page}\n")[2].partition("\n## ")[0]
    lines = [line for block in re.findall(r"```bash\n(.*?)```", section, re.S) for line in block.splitlines()]
    assert len(lines) > 6
    return [shlex.split(line.partition("  #")[0])[1:] for line in lines]


class Page:
    """Does commands with addresses and files of this test in place of those that stand in the page."""

    def __init__(self, directory: Path, places: dict[str, str]) -> None:
        self.directory = directory
        self.places = {**places, **{name: str(directory / name) for name in FILES}}
        self.started: list[NodeProcess] = []

    def put(self, word: str) -> str:
        """A word as it is typed here. Addresses are given their ports when they first come."""
        if word in self.places:
            return self.places[word]
        for found in re.findall(r"10\.0\.\d\.\d:\d{4}", word):
            if found not in self.places:
                self.places[found] = f"127.0.0.1:{free_ports(1)[0]}"
        return re.sub(r"10\.0\.\d\.\d:\d{4}", lambda match: self.places[match[0]], word)

    def run(self, words: list[str], *more: str) -> str:
        """Do a command, which must succeed; returns what it printed."""
        typed = [self.put(word) for word in words]
        if words[0] not in ("recover", "restore") and words[:2] not in (["backup", "verify"], ["backup", "show"]):
            more = (*more, "--timeout", "60")
        done = invoke(*typed, *more)
        assert done.exit_code == 0, f"{' '.join(typed)}: {done.output}"
        return done.output

    def serve(self, cluster: ForkedCluster, words: list[str]) -> None:
        """Start a node as it stands there; it ends with the cluster."""
        typed = [self.put(word) for word in words[1:]]
        at = typed.index("--data-dir")
        model = next(iter(cluster.nodes.values()))
        node = NodeProcess(model.member, typed[at + 1], typed, {}, launch=cluster.launch)
        cluster.nodes[1000 + len(self.started)] = node
        self.started.append(node)
        node.start()


def test_backup_and_restore(tmp_path):
    """A backup from one node, one every hour, a new cluster from it; keys out, deleted, and in again."""
    with ForkedCluster(tmp_path / "old", 1) as cluster:
        cluster.start_all()
        when_led(cluster.nodes[1])
        (address,) = cluster.addresses
        page = Page(tmp_path, {"10.0.0.2:7001": address, "10.0.0.2:7001,10.0.0.3:7001": address})
        (tmp_path / "backups").mkdir()
        for name in ("apple", "pear"):
            assert invoke("put", f"stock/{name}", "3", "-a", address).exit_code == 0
        for words in commands_of("Backup and restore"):
            match words:
                case ["backup", "--every", *_]:
                    regularly(page, words)
                case ["serve", *_]:
                    page.serve(cluster, words)
                case ["status", *_]:
                    until(lambda words=words: invoke(*map(page.put, words)).exit_code == 0 or None, "it serves")
                case ["export" | "count" | "delete" | "import", *_]:
                    said = page.run(words, "-a", address)
                    assert "2 keys" in said
                case _:
                    page.run(words)
        restored = page.put("10.0.1.1:7001")
        for place in (address, restored):
            assert invoke("get", "stock/pear", "-a", place, "--timeout", "30").stdout == "3\n"


def regularly(page: Page, words: list[str]) -> None:
    """Until the first one is there; then SIGINT, which it heeds."""
    typed = [page.put(word) for word in words]
    environment = {**os.environ, "PYTHONPATH": import_path()}
    process = subprocess.Popen(
        [sys.executable, "-m", "raftkv", *typed], env=environment, stdout=subprocess.PIPE, text=True
    )
    try:
        line = process.stdout.readline()
        assert line.startswith("made "), line
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
    (made,) = (page.directory / "backups").iterdir()
    assert invoke("backup", "verify", str(made)).exit_code == 0


def test_disaster(tmp_path):
    """Three nodes are killed, one disk is gone and then another; the survivor goes on with a new node beside it."""
    with ForkedCluster(tmp_path, 3) as cluster:
        cluster.start_all()
        assert invoke("put", "a", "1", "-a", ",".join(cluster.addresses), "--timeout", "30").exit_code == 0
        cluster.kill_all()
        survivor = cluster.nodes[1].own
        page = Page(tmp_path, {})
        for words in commands_of("Disaster"):
            match words:
                case ["serve", *_]:
                    page.serve(cluster, words)
                case ["member", *_]:
                    page.run(words, "-a", survivor.client_address)
                case _:
                    page.run(words)
        new = page.put("10.0.0.4:7001")
        assert invoke("put", "b", "2", "-a", new, "--timeout", "30").exit_code == 0
        for key, value in (("a", "1"), ("b", "2")):
            assert invoke("get", key, "-a", new, "--timeout", "30").stdout == f"{value}\n"


@pytest.mark.parametrize("page", ["Backup and restore", "Disaster"])
def test_a_page_names_only_what_is_there(page):
    """Each option that the text names in passing is one of the command line."""
    section = TEXT.partition(f"\n## {page}\n")[2].partition("\n## ")[0]
    helps = "".join(
        invoke(*command, "--help").output
        for command in (
            ["backup", "make"],
            ["backup", "verify"],
            ["restore"],
            ["recover"],
            ["export"],
            ["import"],
            ["delete"],
            ["count"],
            ["serve"],
        )
    )
    for option in set(re.findall(r"--[a-z][a-z-]+", section)):
        assert option in helps, f"{option} is not there"
