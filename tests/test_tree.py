"""The rules of the tree that a reader relies on: what lies where, and that nothing depends on one machine."""

from __future__ import annotations

import ast
import os
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
TOP_LEVEL = {"README.md", "LICENSE", "pyproject.toml", "setup.cfg", "raftkv", "tests", "benchmarks", "tools"}
MODULES = sorted(ROOT.glob("raftkv/**/*.py"))
TESTS = sorted(ROOT.glob("tests/**/test_*.py"))


def tracked() -> list[str]:
    """What git tracks; the rules about the tree hold only where there is a checkout to ask."""
    if not (ROOT / ".git").exists():
        pytest.skip("not a checkout: what belongs to the tree can't be told from what was built in it")
    found = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True)
    return found.stdout.splitlines()


def test_the_top_level_holds_only_what_a_reader_looks_for() -> None:
    """Nothing stands beside the code, its tests, its tools and its benchmarks but names that tools expect."""
    top = {name.split("/")[0] for name in tracked()}
    strangers = {name for name in top - TOP_LEVEL if not name.startswith(".")}
    assert not strangers, f"the top level holds {sorted(strangers)}"


def test_every_module_says_what_it_owns() -> None:
    """The first line of every module is a sentence."""
    silent = []
    for path in MODULES:
        said = ast.get_docstring(ast.parse(path.read_text())) if path.read_text().strip() else None
        if not said:
            silent.append(str(path.relative_to(ROOT)))
    assert not silent, f"no docstring in {silent}"


def test_every_test_says_what_it_shows() -> None:
    """A test without a docstring can't be judged when it fails."""
    silent = []
    for path in TESTS:
        for node in ast.walk(ast.parse(path.read_text())):
            is_test = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test")
            if is_test and ast.get_docstring(node) is None:
                silent.append(f"{path.relative_to(ROOT)}:{node.lineno} {node.name}")
    assert not silent, "\n".join(silent)


def test_every_folder_of_tests_is_a_package() -> None:
    """Two test files of one name in two folders must not hide each other."""
    missing = {str(path.parent.relative_to(ROOT)) for path in TESTS if not (path.parent / "__init__.py").exists()}
    assert not missing, f"no __init__.py in {sorted(missing)}"


def test_no_test_sleeps() -> None:
    """Tests wait for conditions or turn virtual clocks; a sleep is either too long or too short."""
    sleep = re.compile(r"\b(?:time|asyncio)\.sleep\((?!0\))")
    found = [
        f"{path.relative_to(ROOT)}:{number}"
        for path in TESTS
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if sleep.search(line)
    ]
    assert not found, f"sleeps in {found}"


def test_the_tools_are_executable_and_know_no_machine() -> None:
    """Tools run from a fresh checkout: marked executable, started by a name that every system has."""
    for path in [*sorted((ROOT / "tools").iterdir()), ROOT / ".ci" / "run"]:
        if path.is_dir() or path.suffix in (".py", ".toml"):
            continue
        text = path.read_text()
        assert text.startswith("#!/usr/bin/env "), f"{path.name} begins with {text.splitlines()[0]}"
        assert os.access(path, os.X_OK), f"{path.name} is not executable"


def test_no_file_names_a_place_of_one_machine() -> None:
    """A path of somebody's home works nowhere else."""
    place = re.compile(r"/(?:" + "root|home/[a-z]+|Users|work" + r")/")
    found = []
    for name in tracked():
        path = ROOT / name
        if path.is_file() and path.suffix in {"", ".py", ".md", ".toml", ".cfg", ".txt"}:
            found += [
                f"{name}:{number}"
                for number, line in enumerate(path.read_text(errors="replace").splitlines(), 1)
                if place.search(line)
            ]
    assert not found, f"paths of one machine in {found}"
