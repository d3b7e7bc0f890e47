"""The README does what it says: every block of Python runs, every command that it names can be given."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import tomllib
from collections import Counter
from pathlib import Path

import click
import pytest

from raftkv.cli import main
from raftkv.kv import KeyValue
from raftkv.testing import elapse, play
from raftkv.testing.judging.checks import all_checks
from tests.campaign.coverage import FAULTS, KINDS
from tests.programs import run_program

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
    done = run_program(program)
    assert done.returncode == 0, done.stderr
    promised = re.findall(r"print\(.*\)\s+# (.*)", block)
    assert done.stdout.splitlines() == promised


def test_the_tests_of_applications_pass(tmp_path):
    """The blocks that show `fault_test`, `upgrade_test` and the fixtures are files of tests; they are collected, and
    pass."""
    passed = {"fault_test(": 2, "upgrade_test(": 1, "raftkv_cluster(": 2}
    for number, shown in enumerate(passed):
        (block,) = [each for each in BLOCKS if shown in each]
        (tmp_path / f"test_seats_{number}.py").write_text(block)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    command = [sys.executable, "-m", "pytest", "-rA", "-p", "no:cacheprovider", "-p", "raftkv.testing.plugin"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    found = Counter(re.findall(r"^PASSED test_seats_(\d)\.py::", done.stdout, re.M))
    assert found == {str(number): count for number, count in enumerate(passed.values())}, done.stdout + done.stderr
    assert done.returncode == 0


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


def test_every_link_leads_to_a_heading():
    """As GitHub makes anchors of headings: small letters and hyphens, and nothing else."""
    headings = re.findall(r"^##+ (.*)$", TEXT, re.M)
    anchors = {re.sub(r"[^a-z0-9 -]", "", heading.lower()).replace(" ", "-") for heading in headings}
    links = re.findall(r"\]\(#([^)]*)\)", TEXT)
    assert links and not {*links} - anchors


def test_every_tool_and_module_that_is_named_is_there():
    """Whatever a reader would type or look for exists."""
    for name in set(re.findall(r"\b(?:tools|tests)/[\w/-]+", TEXT)):
        assert (ROOT / name).exists(), f"{name} is not there"
    for name in set(re.findall(r"python -m benchmarks (\w+)", TEXT)):
        assert (ROOT / "benchmarks" / "suites" / f"{name}.py").exists(), f"there is no suite {name}"


def test_the_numbers_are_those_of_the_code():
    """Kinds of faults, invariants and bugs of others are that many; no bug is counted as put back that is not there."""

    def said(words):
        (number,) = re.findall(rf"(\d+)\s+{words}", TEXT)
        return int(number)

    assert said("kinds\\s+of\\s+faults") == len(KINDS)
    assert said("bugs\\s+and\\s+mishaps") == len(FAULTS)
    # The core's own after each input and the bound of log time stand beside the list.
    assert said("invariants") == len(all_checks()) + 2
    boards = {path.stem: tomllib.loads(path.read_text()) for path in (ROOT / "tools" / "mutants.d").glob("*.toml")}
    known = dict.fromkeys(boards, 0)
    for layer, number in re.findall(r"^\| (\w+) \| (\d+) \|", TEXT, re.M):
        known[layer] += int(number)
    later = re.search(r"^(\d+) more were added later: (.*?);", TEXT, re.M | re.S)
    parts = [(int(number), layer) for number, layer in re.findall(r"(\d+)\s+in\s+(\w+)", later[2])]
    assert sum(number for number, _ in parts) == int(later[1])
    for number, layer in parts:
        known[layer] += number
    assert all(number <= len(boards[layer]["mutant"]) for layer, number in known.items())


def steps():
    """The files and functions of "One write, followed", as the README names them."""
    text = TEXT.partition("### One write, followed")[2].partition("\n### ")[0]
    found = re.findall(r"`([\w/]+\.py)`(?:[^`(]*\((`\w+`(?:, `\w+`)*)\)|,\s+`(\w+)`)?", " ".join(text.split()))
    return {(file, name.strip("` ")) for file, many, one in found for name in (many or one).split(",") if name}


def test_one_write_passes_by_all_that_is_named():
    """Every function of the walk is where it is said to be, and a write in a simulated cluster calls it. (There
    the network is another one, and the client is not the key-value one.)"""
    named = steps()
    assert len(named) > 20
    for file, name in named:
        assert re.search(rf"def {name}\b", (ROOT / "raftkv" / file).read_text()), f"{file} has no {name}"
    seen = set()

    def look(frame, event, _):
        file = frame.f_code.co_filename
        if event == "call" and file.startswith(str(ROOT / "raftkv")):
            seen.add((str(Path(file).relative_to(ROOT / "raftkv")), frame.f_code.co_name))

    async def story(cluster):
        async with cluster.client() as kv:
            await kv.put(b"apple", b"2")
            sys.setprofile(look)
            try:
                await kv.put(b"apple", b"3")
                await elapse(1)
            finally:
                sys.setprofile(None)

    play(KeyValue, story)
    other = {("kv/client.py", "put"), ("transport/mesh.py", "send")}
    assert named - seen <= other, sorted(named - seen - other)
