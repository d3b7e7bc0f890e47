"""Generated mutants on a Dask cluster: each is tried once, though a worker is killed with some under way."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("cosmic_ray", reason="comes with the extra `dev`")
pytest.importorskip("coverage", reason="comes with the extra `dev`")
pytest.importorskip("distributed", reason="needs distributed: pip install 'raftkv[dask]'")

from tests.campaign.fingerprint import ROOT
from tests.campaign.mutant import copied
from tests.campaign.test_cluster import PROCESSES_WITHIN_S, Cluster, environment
from tests.mutation.batch import Batch, BatchFailed, batches, judge
from tests.mutation.mutations import mutants_of
from tests.mutation.table import Table
from tests.waiting import until

HOUSE = """

LAYERS = (Layer("house", ("raftkv/addresses.py",), ("tests/test_addresses.py",)),)
"""

WHAT = "is_elsewhere"
"""The function that is changed: a dozen mutants, so three batches for two workers."""


@pytest.fixture
def house():
    """A copy of the code whose only layer is a small one, with quick tests; none of its mutants is known."""
    with copied() as copy:
        layers = copy / "tests" / "mutation" / "layers.py"
        layers.write_text(layers.read_text() + HOUSE)
        (copy / "tools" / "mutants.d").mkdir(parents=True)
        shutil.copy(ROOT / "tools" / "mutate", copy / "tools" / "mutate")
        yield copy


def has_child(process):
    """Whether a process runs another."""
    with contextlib.suppress(FileNotFoundError):
        tasks = Path(f"/proc/{process.pid}/task")
        return any((task / "children").read_text() for task in tasks.iterdir())
    return False


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc to see that a worker is at work")
def test_each_mutant_is_tried_once_though_a_worker_is_killed(tmp_path, house):
    """Those that the lost worker was at are tried by the other one; the table is as whole as from one machine."""
    with contextlib.ExitStack() as stack:
        cluster = Cluster(stack, tmp_path)
        (one, killed), (other, _) = cluster.worker(house), cluster.worker(house)
        cluster.wait(one, other)
        command = [
            sys.executable,
            house / "tools" / "mutate",
            "--dask",
            cluster.address,
            "--record",
            "--batch",
            "4",
            "--only",
            WHAT,
        ]
        running = stack.enter_context(
            subprocess.Popen(
                command, env=environment(house), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
            )
        )
        stack.callback(running.kill)
        until(lambda: has_child(killed) or running.poll() is not None, "a batch is under way", PROCESSES_WITHIN_S)
        os.kill(killed.pid, signal.SIGKILL)
        said = running.communicate()[0]
    mutants = [mutant for mutant in mutants_of(house, "raftkv/addresses.py") if mutant.function == WHAT]
    rows = Table(house / "tools" / "mutants.d" / "generated.tsv").rows
    assert f"{len(rows)} of {len(mutants)} mutants tried" in said, said
    assert rows.keys() == {mutant.key for mutant in mutants}
    verdicts = [row.verdict for row in rows.values()]
    assert verdicts.count("killed") > len(mutants) / 2, said
    assert running.returncode == ("survived" in verdicts), said


def test_changed_code_and_unknown_tests_are_no_verdict():
    """A batch that can't be tried says so: nothing of it counts as killed or as a survivor."""
    key = mutants_of(ROOT, "raftkv/core/quorum.py")[0].key
    (batch,) = batches("core", [key], 10, {key: "tests/x.py::test_y", "other": "z"}, 5.0, "another version")
    assert batch == Batch("core", [key], {key: "tests/x.py::test_y"}, 5.0, "another version")
    with pytest.raises(BatchFailed, match="since this began: begin anew"):
        judge(batch)


def test_no_mutant_is_left_out_of_its_batch():
    """Nor is one in two."""
    keys = [str(number) for number in range(25)]
    parts = [batch.keys for batch in batches("core", keys, 10, {}, 5.0, "")]
    assert [len(part) for part in parts] == [10, 10, 5]
    assert [key for part in parts for key in part] == keys
