"""The README does what it says: every block of Python runs, every command that it names is there."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", TEXT, re.S)


@pytest.mark.parametrize("block", BLOCKS, ids=range(len(BLOCKS)))
def test_every_python_block_runs_and_prints_what_it_says(block):
    """Each block is a program; what a `print` is said to print stands behind it in a comment."""
    done = subprocess.run([sys.executable, "-c", block], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    promised = re.findall(r"print\(.*\)\s+# (.*)", block)
    assert done.stdout.splitlines() == promised


def test_every_tool_that_is_named_is_there():
    """A command that a reader would type must exist and be executable."""
    for name in set(re.findall(r"\btools/[\w-]+", TEXT)):
        assert (ROOT / name).stat().st_mode & 0o100, f"{name} can't be run"
