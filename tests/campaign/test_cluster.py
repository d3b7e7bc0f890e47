"""Worlds and mutants on a Dask cluster: a scheduler and workers as real processes on loopback."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys

import pytest

from raftkv.processes.ports import free_ports
from tests.campaign.fingerprint import ROOT, own_fingerprint
from tests.campaign.mutant import copied
from tests.waiting import until

pytest.importorskip("distributed", reason="needs distributed: pip install 'raftkv[dask]'")

PROCESSES_WITHIN_S = 400.0
"""A scheduler, two workers and a tool, each of which loads Dask: seconds, but for a machine that is very busy."""

WORLDS = 8
WRONG = 3
"""The seed of the world that breaks a promise."""

JUDGE = """
import json, sys
from tests.campaign.cluster import on_dask
from tests.campaign.fingerprint import own_fingerprint
from tests.campaign.jobs import as_they_come
from functools import partial
from tests.campaign.mutant import Trial, judge
mutant = {"layer": "house", "name": "all is lost", "file": "raftkv/addresses.py", "tests": ["tests/test_addresses.py"]}
with on_dask(sys.argv[1]) as place:
    trial = Trial(mutant, "raise ValueError\\n", own_fingerprint())
    (ended,) = as_they_come(place, partial(judge, worlds=False), [trial])
    print(json.dumps(ended.future.result()))
"""


class Cluster:
    """A scheduler, and workers that are started in some copy of the code."""

    def __init__(self, stack, folder):
        self._stack = stack
        self._folder = folder
        port, web = free_ports(2)
        self.address = f"tcp://127.0.0.1:{port}"
        self._start("dask_scheduler", folder, "--host", "127.0.0.1", "--port", port, "--dashboard-address", f":{web}")

    def worker(self, root):
        """Start one, and wait until it has joined."""
        port, web = free_ports(2)
        options = ["--no-nanny", "--nthreads", "1", "--worker-port", port, "--dashboard-address", f":{web}"]
        found = self._start("dask_worker", root, self.address, *options, "--local-directory", self._folder / str(port))
        return f"tcp://127.0.0.1:{port}", found

    def wait(self, *workers):
        """Until these have joined."""
        log = self._folder / "dask_scheduler.log"
        until(
            lambda: all(f"Register worker addr: {worker}" in log.read_text() for worker in workers),
            "all workers",
            PROCESSES_WITHIN_S,
        )

    def _start(self, module, root, *options):
        command = [sys.executable, "-m", f"distributed.cli.{module}", *map(str, options)]
        with (self._folder / f"{module}.log").open("a") as log:
            process = subprocess.Popen(command, cwd=root, env=environment(root), stdout=log, stderr=subprocess.STDOUT)
        self._stack.callback(process.wait)
        self._stack.callback(process.kill)
        return process


def environment(root):
    """In which Python finds the code in `root`, and Dask nobody's settings."""
    return {**os.environ, "PYTHONPATH": str(root), "DASK_CONFIG": str(root / "none"), "PYTHONDONTWRITEBYTECODE": "1"}


def soak(root, ledger, cluster, *options):
    """`tools/soak` in some copy of the code, on a cluster, with a line of the ledger for each world."""
    command = [sys.executable, root / "tools" / "soak", "--dask", cluster.address, "--ledger", ledger, "--virtual", "1"]
    return subprocess.Popen(
        [*command, "--batch", "0.001", *options],
        env=environment(root),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def lines_of(ledger):
    """The whole lines of a ledger."""
    text = ledger.read_text() if ledger.exists() else ""
    return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]


@pytest.fixture
def wrong_code():
    """A copy of the code in which one world breaks a promise."""
    with copied() as copy:
        simulation = copy / "raftkv" / "worlds" / "simulation.py"
        text = simulation.read_text()
        run = "                loop.run(self._run(loop))\n"
        assert text.count(run) == 1
        simulation.write_text(text.replace(run, f"{run}                assert self.seed != {WRONG}, 'a wrong world'\n"))
        (copy / "tools").mkdir()
        shutil.copy(ROOT / "tools" / "soak", copy / "tools" / "soak")
        yield copy


def test_worlds_are_counted_once_though_a_worker_is_killed(tmp_path, wrong_code):
    """The worlds of the lost worker are run by the other; the ledger and the exit code are as on one machine.

    A world that broke a promise is seen again by what the soak said, where it was started.
    """
    ledger = tmp_path / "soak.jsonl"
    with contextlib.ExitStack() as stack:
        cluster = Cluster(stack, tmp_path)
        (one, killed), (other, _) = cluster.worker(wrong_code), cluster.worker(wrong_code)
        cluster.wait(one, other)
        running = stack.enter_context(soak(wrong_code, ledger, cluster, "--worlds", str(WORLDS)))
        stack.callback(running.kill)
        until(lambda: lines_of(ledger) or running.poll() is not None, "a first world", PROCESSES_WITHIN_S)
        os.kill(killed.pid, signal.SIGKILL)
        said = running.communicate()[0]
    lines = lines_of(ledger)
    assert running.returncode == 1, said
    assert killed.wait() == -signal.SIGKILL
    assert len(lines) > 1, said
    assert [line["first"] for line in lines] == [0, *itertools.accumulate(line["worlds"] for line in lines)][:-1]
    assert sum(line["worlds"] for line in lines) == WORLDS
    assert [seed for line in lines for seed in line["failed"]] == [WRONG]
    assert all(line["operations"] > 0 for line in lines if line["failed"] != [WRONG])
    assert f"{WORLDS} worlds from seed 0 on" in said
    again = said.partition("see them again:\n")[2].split()
    assert again == ["raftkv", "replay", str(WRONG), "--virtual", "1"]
    command = [sys.executable, "-m", *again]
    seen = subprocess.run(command, cwd=wrong_code, env=environment(wrong_code), capture_output=True, text=True)
    assert "a wrong world" in seen.stdout + seen.stderr


def test_a_mutant_is_judged_by_a_worker_and_other_code_is_refused(tmp_path, wrong_code):
    """The worker tries the bug on a copy of its own code, and the code that it has is what counts for everybody."""
    with contextlib.ExitStack() as stack:
        cluster = Cluster(stack, tmp_path)
        worker, _ = cluster.worker(ROOT)
        cluster.wait(worker)
        command = [sys.executable, "-c", JUDGE, cluster.address]
        judged = subprocess.run(command, env=environment(ROOT), capture_output=True, text=True, check=False)
        assert judged.returncode == 0, judged.stderr
        row = json.loads(judged.stdout)
        assert (row["killed_by"], row["name"]) == ("tests", "all is lost")
        with soak(wrong_code, tmp_path / "soak.jsonl", cluster, "--worlds", "1") as refused:
            said = refused.communicate()[0]
    assert refused.returncode == 2
    assert f"{worker}: {own_fingerprint()}" in said
    assert "start them anew in a checkout of this version" in said
    assert not (tmp_path / "soak.jsonl").exists()


def test_where_nobody_answers_that_is_said(tmp_path):
    """At once, and with the address; nothing is written."""
    (port,) = free_ports(1)
    command = [sys.executable, ROOT / "tools" / "soak", "--dask", f"nonsense:{port}", "--ledger", tmp_path / "ledger"]
    done = subprocess.run(command, env=environment(ROOT), capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert f"no Dask scheduler answers at nonsense:{port}" in done.stderr
    assert not (tmp_path / "ledger").exists()
