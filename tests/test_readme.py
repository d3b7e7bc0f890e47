"""The README does what it says: every block of Python runs, every command that it names can be given."""

from __future__ import annotations

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
def test_every_python_block_runs_and_prints_what_it_says(block):
    """Each block is a program; what a `print` is said to print stands behind it in a comment."""
    done = subprocess.run([sys.executable, "-c", block], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    promised = re.findall(r"print\(.*\)\s+# (.*)", block)
    assert done.stdout.splitlines() == promised


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
    for name in set(re.findall(r"python -m (benchmarks\.\w+)", TEXT)):
        assert (ROOT / (name.replace(".", "/") + ".py")).exists(), f"{name} is not there"
