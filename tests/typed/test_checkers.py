"""What mypy and pyright find in programs that call a machine: each mistake, and nothing else."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.commands import invoke

ROOT = Path(__file__).parent.parent.parent
PROGRAMS = Path(__file__).parent / "programs"
WRITTEN = ("shop.py", "good.py", "tables.py", "watched.py", "bad.py", "whole.py", "good_parts.py", "bad_parts.py")
CHECKED = (*WRITTEN, "shop_typed.py", "whole_typed.py")
Places = dict[tuple[str, int], str]
"""What was found, by file and line."""


@pytest.fixture
def programs(tmp_path, monkeypatch) -> Path:
    """A folder with the programs, and the faces that they use."""
    for name in WRITTEN:
        shutil.copy(PROGRAMS / name, tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    assert invoke("stubs", "shop:Inventory", "--out", "shop_typed.py").exit_code == 0
    assert invoke("stubs", "whole:Whole", "--out", "whole_typed.py").exit_code == 0
    for name in ("shop", "whole"):
        sys.modules.pop(name, None)
    return tmp_path


def marked(programs: Path) -> set[tuple[str, int]]:
    """The lines that are wrong."""
    return {
        (name, number)
        for name in CHECKED
        for number, line in enumerate((programs / name).read_text().splitlines(), 1)
        if line.endswith("  # bad")
    }


def compare(programs: Path, found: Places) -> None:
    """Each marked line was found, and no other one."""
    wrong = marked(programs)
    assert len(wrong) > 40
    assert not wrong - found.keys(), f"not found: {sorted(wrong - found.keys())}"
    assert not found.keys() - wrong, {place: text for place, text in found.items() if place not in wrong}


def test_mypy_finds_each_mistake_and_nothing_else(programs):
    """Wrong types, wrong arity, typos, another machine's method, a forgotten await: with `mypy --strict`."""
    options = ["--strict", "--follow-imports=silent", "--cache-dir", str(programs / "cache"), "--hide-error-context"]
    done = subprocess.run(
        [sys.executable, "-m", "mypy", *options, *CHECKED],
        cwd=programs,
        env={**os.environ, "MYPYPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1, done.stdout + done.stderr
    errors = re.findall(r"^([\w.]+):(\d+): error: (.*)", done.stdout, re.M)
    compare(programs, {(name, int(line)): text for name, line, text in errors})


def pyright() -> str:
    """Where pyright is. It is a program for Node that its package gets from npm when it runs first."""
    beside = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    found = shutil.which("pyright", path=beside)
    if found is None:
        pytest.skip("pyright is not installed: pip install 'pyright[nodejs]'")
    done = subprocess.run([found, "--version"], capture_output=True, text=True, timeout=180, check=False)
    if done.returncode:
        pytest.skip(f"pyright does not run here, it could not get itself from npm: {done.stderr.strip()[-200:]}")
    return found


def test_pyright_finds_each_mistake_and_nothing_else(programs):
    """The same, in its strict mode."""
    settings = {"typeCheckingMode": "strict", "extraPaths": [str(ROOT)], "reportUnusedVariable": False}
    (programs / "pyrightconfig.json").write_text(json.dumps({**settings, "reportUnusedExpression": False}))
    done = subprocess.run(
        [pyright(), "--outputjson", "--pythonpath", sys.executable, "-p", str(programs)],
        cwd=programs,
        capture_output=True,
        text=True,
        check=False,
    )
    found = json.loads(done.stdout)["generalDiagnostics"]
    errors = [each for each in found if each["severity"] == "error"]
    compare(
        programs,
        {(Path(each["file"]).name, each["range"]["start"]["line"] + 1): each["message"] for each in errors},
    )
