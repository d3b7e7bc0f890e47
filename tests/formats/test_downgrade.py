"""There is a way back to the minor before: it reads what today's nodes write, and goes on from it.

Its own tests judge: today's files are put in the place of those that it keeps. `tests/integration/test_rolling.py` has
nodes of both in one cluster.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from raftkv.version import __version__
from tests.formats import before
from tests.formats.make import make

JUDGES = (
    "test_every_kept_file_is_read_as_it_was_written",
    "test_a_node_goes_on_from_kept_files",
    "test_a_cluster_begins_from_a_kept_backup",
)
WITHIN_S = 240.0


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The source of the release before."""
    try:
        return before.unpack(tmp_path_factory.mktemp("before"))
    except before.Missing as exc:
        pytest.skip(str(exc))


def test_the_release_before_is_one_minor_behind() -> None:
    """Else what is tested here would be no longer what is promised."""
    minors = [int(number) for number in re.findall(r"^(\d+)\.(\d+)", before.RELEASE)[0]]
    assert [int(number) for number in re.findall(r"^(\d+)\.(\d+)", __version__)[0]] == [minors[0], minors[1] + 1]


def test_the_release_before_reads_every_file_of_today_and_goes_on_from_them(tree: Path, tmp_path: Path) -> None:
    """Each file field by field, a data directory with its timers, changes and settings, and a backup."""
    made = tmp_path / "today"
    make(made)
    kept = tree / "tests" / "formats" / "kept"
    shutil.rmtree(kept)
    shutil.copytree(made, kept / "today")
    judged = judge(tree, *JUDGES)
    assert judged.returncode == 0, judged.stdout
    assert f"{len(JUDGES)} passed" in judged.stdout


def judge(tree: Path, *tests: str) -> subprocess.CompletedProcess[str]:
    """Run tests of that tree, by its own code."""
    where = "tests/formats/test_formats.py"
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-v", *(f"{where}::{name}" for name in tests)],
        cwd=tree,
        env={**os.environ, **before.environment(tree)},
        capture_output=True,
        text=True,
        timeout=WITHIN_S,
        check=False,
    )
