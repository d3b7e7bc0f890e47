"""The rules of the tree that a reader relies on: what lies where, and that nothing depends on one machine."""

from __future__ import annotations

import ast
import functools
import graphlib
import os
import re
import subprocess
import tomllib
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parent.parent
TOP_LEVEL = {"README.md", "LICENSE", "pyproject.toml", "setup.cfg", "raftkv", "tests", "benchmarks", "tools"}
MODULES = sorted(ROOT.glob("raftkv/**/*.py"))
TESTS = sorted(ROOT.glob("tests/**/test_*.py"))
PYTHON = [*MODULES, *sorted(ROOT.glob("tests/**/*.py")), *sorted(ROOT.glob("benchmarks/**/*.py"))]
TOOLS = sorted(path for path in (ROOT / "tools").iterdir() if path.is_file())

LINES_MAX = 500
PARAMETERS_MAX = 10


class Read(NamedTuple):
    """What the rules go by of a module. Its tree is not kept: a million nodes make every look for garbage slow."""

    docstring: str | None
    silent_tests: list[tuple[int, str]]
    """Tests without a docstring: their lines and names."""
    imports: list[ast.Import | ast.ImportFrom]
    constructors: list[tuple[int, int]]
    """The lines of all `__init__`, and how many parameters each has beside self."""


@functools.cache
def read_all() -> dict[Path, Read]:
    """Every module, parsed once for all tests here."""
    return {path: read(path) for path in PYTHON}


def read(path: Path) -> Read:
    """The module at `path`."""
    tree = ast.parse(path.read_text())
    found = Read(ast.get_docstring(tree), [], [], [])
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            found.imports.append(node)
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            if node.name.startswith("test") and ast.get_docstring(node) is None:
                found.silent_tests.append((node.lineno, node.name))
            if node.name == "__init__":
                count = len(node.args.posonlyargs) + len(node.args.args) + len(node.args.kwonlyargs) - 1
                found.constructors.append((node.lineno, count))
    return found


def places_of(pattern: str, paths: list[Path]) -> list[str]:
    """Every line in which `pattern` is found, as file and number."""
    sought = re.compile(pattern)
    return [
        f"{path.relative_to(ROOT)}:{number}"
        for path in paths
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if sought.search(line)
    ]


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
    silent = [str(path.relative_to(ROOT)) for path in MODULES if not read_all()[path].docstring]
    assert not silent, f"no docstring in {silent}"


def test_every_test_says_what_it_shows() -> None:
    """A test without a docstring can't be judged when it fails."""
    silent = [
        f"{path.relative_to(ROOT)}:{line} {name}" for path in TESTS for line, name in read_all()[path].silent_tests
    ]
    assert not silent, "\n".join(silent)


def test_every_folder_of_tests_is_a_package() -> None:
    """Two test files of one name in two folders must not hide each other."""
    missing = {str(path.parent.relative_to(ROOT)) for path in TESTS if not (path.parent / "__init__.py").exists()}
    assert not missing, f"no __init__.py in {sorted(missing)}"


def test_no_test_sleeps() -> None:
    """Tests wait for conditions or turn virtual clocks; a sleep is either too long or too short."""
    found = places_of(r"\b(?:time|asyncio)\.sleep\((?!0\))", TESTS)
    assert not found, f"sleeps in {found}"


def test_the_tools_are_executable_and_know_no_machine() -> None:
    """Tools run from a fresh checkout: marked executable, started by a name that every system has."""
    for path in [*sorted((ROOT / "tools").iterdir()), ROOT / ".ci" / "run"]:
        if path.is_dir() or path.suffix in (".py", ".toml"):
            continue
        text = path.read_text()
        assert text.startswith("#!/usr/bin/env "), f"{path.name} begins with {text.splitlines()[0]}"
        assert os.access(path, os.X_OK), f"{path.name} is not executable"


def test_the_types_of_every_tool_are_checked() -> None:
    """Tools have no ending, so mypy finds only those that it is told of."""
    told = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["mypy"]["files"]
    for path in TOOLS:
        if path.read_text().startswith("#!/usr/bin/env python3"):
            assert f"tools/{path.name}" in told, f"add tools/{path.name} to mypy's files"


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


def module_name(path: Path) -> str:
    """What `path` is imported as."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def imports_of(path: Path, modules: set[str]) -> set[str]:
    """Which of `modules` a module names in its imports, wherever in it: for types only and inside functions, too."""
    name = module_name(path)
    package = name.split(".") if path.name == "__init__.py" else name.split(".")[:-1]
    found = set()
    for node in read_all()[path].imports:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        else:
            above = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            names = {f"{base}.{alias.name}" for alias in node.names}
            found |= names if names <= modules else {base, *names}
    return (found & modules) - {name}


def test_no_modules_import_each_other() -> None:
    """There is an order in which the modules can be read, each after those that it uses.

    An import for types only is one: who reads the module has to know the other. So is a late one inside a function; it
    saves time at the start, and is no way around this. That the names in `raftkv.testing` are found late hides none,
    because they are imported for types as well.
    """
    paths = {module_name(path): path for path in PYTHON}
    graph = {name: imports_of(path, set(paths)) for name, path in paths.items()}
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as exc:
        pytest.fail("a circle of imports: " + " -> ".join(reversed(exc.args[1])))


def test_every_module_fits_a_reader() -> None:
    """A module has one idea, and five hundred lines to say it in. Files of tests are lists, and may be longer."""
    lines = {
        path: len(path.read_text().splitlines()) for path in [*PYTHON, *TOOLS] if not path.name.startswith("test_")
    }
    long = [f"{path.relative_to(ROOT)}: {count}" for path, count in lines.items() if count > LINES_MAX]
    assert not long, f"more than {LINES_MAX} lines in {long}"


def test_no_constructor_takes_more_than_can_be_told_apart() -> None:
    """Who is handed more than ten things has more than one idea, or is handed parts of one that has no name yet."""
    found = [
        f"{path.relative_to(ROOT)}:{line} takes {count}"
        for path in PYTHON
        for line, count in read_all()[path].constructors
        if count > PARAMETERS_MAX
    ]
    assert not found, f"constructors with more than {PARAMETERS_MAX} parameters: {found}"


def test_nobody_asks_whether_a_node_is_whole() -> None:
    """A node is made with all of its parts, so there is none that it might not have yet."""
    found = places_of(r"hasattr\(\s*[\w.]*\b_?node\b", MODULES)
    assert not found, f"hasattr on nodes in {found}"


def test_no_rulers_stand_for_walls() -> None:
    """What needs a line drawn through its file is two things, and wants two classes or two modules."""
    found = places_of(r"^\s*#\s*[-=~*#]{4,}", [*PYTHON, *TOOLS])
    assert not found, f"rulers in {found}"
