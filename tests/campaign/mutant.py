"""A known bug in a copy of the code: which suites are tried on it, and which of them notices."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from tests.campaign.fingerprint import ROOT, fingerprint

WORLDS = """
import random, sys
from tests.core.harness.simulation import Simulation
for seed in range(150):
    print("example", seed + 1, flush=True)
    Simulation(random.Random(seed).randrange).run(350)
"""

SMALL = """
import random
from tests.core.harness.small_world import Search
for late in (True, False):
    search = Search(late_writes=late)
    for most in range(5_000, 50_001, 5_000):
        search.breadth_first(most)
        print("example", most, flush=True)
    search.walk(300, random.Random(1))
"""

NODES = """
import time
from raftkv.worlds.simulation import simulate
for seed in range(60):
    print("example", seed + 1, flush=True)
    simulate(seed, duration_s=10.0)
    if time.process_time() > 60:
        break
"""

PYTEST = ["-m", "pytest", "-x", "-q", "-p", "no:cacheprovider"]

CORE = (
    ("worlds of cores", ["-c", WORLDS]),
    ("small world", ["-c", SMALL]),
    ("scenarios", [*PYTEST, "tests/core/test_scripts.py"]),
    (
        "unit and paper tests",
        [*PYTEST, "tests/core", "--ignore=tests/core/test_scripts.py", "--ignore=tests/core/test_simulation.py",
         "--ignore=tests/core/test_small_world.py"],
    ),
)  # fmt: skip
"""What is tried on a mutant of the core, in this order, until one fails."""

WHOLE_NODES = ("worlds", ["-c", NODES])
"""What is tried on all others when their own tests have passed."""

SUITE_SECONDS_MAX = 100
"""Of the processor's time: a machine that is busy with other things, or stands still, proves nothing."""

Mutant = dict[str, Any]
Suite = tuple[str, list[str]]


def suites_of(mutant: Mutant) -> list[Suite]:
    """What is tried on a mutant; with `only_worlds`, whole nodes in simulated worlds must notice it by themselves."""
    if mutant.get("only_worlds"):
        return [WHOLE_NODES]
    if mutant["layer"] == "core":
        return list(CORE)
    return [("tests", [*PYTEST, *mutant["tests"]]), WHOLE_NODES]


class BoardError(Exception):
    """Mutants can't be judged as things are; the text says what to mend."""


class Trial(NamedTuple):
    """A mutant to be judged, here or on another machine that has the same code."""

    mutant: Mutant
    text: str
    """Its file as a whole, with the bug."""
    fingerprint: str = ""
    """Of the code that the copy must be of; whatever is on the disk, if there is none."""


def trial_of(mutant: Mutant, fingerprint: str = "") -> Trial:
    """Put it into its file's text. What it replaces must be there exactly once. Raises `BoardError`."""
    text = (ROOT / mutant["file"]).read_text()
    if text.count(mutant["old"]) != 1:
        raise BoardError(f"{mutant['name']}: its text occurs {text.count(mutant['old'])} times in {mutant['file']}")
    return Trial(mutant, text.replace(mutant["old"], mutant["new"]), fingerprint)


def run_suite(arguments: list[str], copy: Path) -> tuple[bool, str, str]:
    """Whether the suite passed, after how many examples it failed, and which test it was."""
    done = run_once(arguments, copy)
    if done.returncode == -signal.SIGKILL:
        return False, "hangs", ""
    examples = re.findall(r"^example (\d+)", done.stdout, re.M)
    passed = re.findall(r"(\d+) passed", done.stdout)
    failed = re.findall(r"^(?:FAILED|ERROR) (?:tests/)?(\S+)", done.stdout, re.M)
    count = examples[-1] if examples else str(int(passed[-1]) + 1 if passed else 1)
    return done.returncode == 0, count, failed[0] if failed else ""


def run_once(arguments: list[str], copy: Path) -> subprocess.CompletedProcess[str]:
    """Run the suite on the copy; it is killed when it works far longer than it should."""
    return subprocess.run(
        ["sh", "-c", f'ulimit -t {SUITE_SECONDS_MAX}; exec "$0" "$@"', sys.executable, *arguments],
        cwd=copy,
        env={**os.environ, "CAMPAIGNS": "1", "PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )


@contextlib.contextmanager
def copied(expected: str = "") -> Iterator[Path]:
    """A copy of the code and its tests that goes away. Raises `BoardError` if it is not what was expected."""
    with tempfile.TemporaryDirectory() as scratch:
        copy = Path(scratch)
        ignore = shutil.ignore_patterns("__pycache__", ".hypothesis")
        for folder in ("raftkv", "tests"):
            shutil.copytree(ROOT / folder, copy / folder, ignore=ignore)
        for name in ("pyproject.toml", "setup.cfg"):
            shutil.copy(ROOT / name, copy / name)
        if expected and fingerprint(copy) != expected:
            raise BoardError(f"the code in {ROOT} has changed since this began: begin anew, with new workers")
        yield copy


def check_suite(suite: Suite) -> None:
    """A suite that fails without any mutant would seem to kill them all. Raises `BoardError`."""
    with copied() as copy:
        passed, _, failed = run_suite(suite[1], copy)
    if not passed:
        raise BoardError(f"the {suite[0]} fail on the code as it is ({failed or suite[1][-1]}): mend that first")


def judge(trial: Trial, *, worlds: bool) -> Mutant:
    """Find out what kills a mutant; with `worlds` also after how many worlds of whole nodes it would be noticed."""
    started = time.perf_counter()
    mutant = trial.mutant
    row = {**mutant, "killed_by": "", "examples": "", "test": "", "worlds": ""}
    with copied(trial.fingerprint) as copy:
        (copy / mutant["file"]).write_text(trial.text)
        for suite, arguments in suites_of(mutant):
            is_worlds = suite == WHOLE_NODES[0]
            if row["killed_by"] and not (worlds and is_worlds):
                continue
            passed, examples, test = run_suite(arguments, copy)
            if is_worlds:
                row["worlds"] = "-" if passed else examples
            if not passed and not row["killed_by"]:
                row |= {"killed_by": suite, "examples": examples, "test": test}
    return {**row, "seconds": round(time.perf_counter() - started, 1)}
