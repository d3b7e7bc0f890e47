"""The README does what it says: every block of Python runs, every command that it names can be given."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import click
import pytest

from raftkv.cli import main

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", TEXT, re.S)
COMMANDS = [
    line.partition("  #")[0].strip()
    for block in re.findall(r"```bash\n(.*?)```", TEXT, re.S)
    for line in block.splitlines()
    if line.strip()
]


@pytest.mark.parametrize("block", BLOCKS, ids=range(len(BLOCKS)))
def test_every_python_block_runs_and_prints_what_it_says(block, tmp_path):
    """Each block is a program; what a `print` is said to print stands behind it in a comment."""
    program = tmp_path / "program.py"
    program.write_text(block)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, str(program)]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    promised = re.findall(r"print\(.*\)\s+# (.*)", block)
    assert done.stdout.splitlines() == promised


def test_the_test_of_an_application_passes(tmp_path):
    """The block that shows `fault_test` is a file of tests; they are collected, and pass."""
    (block,) = [each for each in BLOCKS if "fault_test(" in each]
    (tmp_path / "test_seats.py").write_text(block)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "raftkv.testing.plugin"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert "2 passed" in done.stdout, done.stdout + done.stderr


@pytest.mark.parametrize("line", COMMANDS)
def test_every_command_can_be_given(line):
    """Tools are there and executable; what follows `raftkv` is parsed by the command that it names, and not run."""
    program, *arguments = shlex.split(line)
    if program.startswith("tools/"):
        assert (ROOT / program).stat().st_mode & 0o100
        return
    if program == "python3":
        assert arguments == ["-m", "pip", "install", "."]
        return
    assert program == "raftkv"
    command: click.Command = main
    context = click.Context(main)
    while isinstance(command, click.Group):
        name, command, arguments = command.resolve_command(context, arguments)
        context = click.Context(command, parent=context, info_name=name)
    command.make_context(command.name, list(arguments), parent=context.parent)


def test_every_tool_and_module_that_is_named_is_there():
    """Whatever a reader would type or look for exists."""
    for name in set(re.findall(r"\b(?:tools|tests)/[\w/-]+", TEXT)):
        assert (ROOT / name).exists(), f"{name} is not there"
    for name in set(re.findall(r"python -m benchmarks (\w+)", TEXT)):
        assert (ROOT / "benchmarks" / "suites" / f"{name}.py").exists(), f"there is no suite {name}"
