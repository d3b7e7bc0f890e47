"""Runs Python programs, each in a process of its own that is forked from one which has imported raftkv already.

`python -m tests.programs` is that one. To import all of raftkv costs half a second of processor time, and most
programs that are run by tests take no more than that for all else. A program can't tell, but by its
modules and seed of hashes.
"""

from __future__ import annotations

import atexit
import importlib
import json
import os
import runpy
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parent.parent
MODULES = (
    *("raftkv", "raftkv.cli.serve", "raftkv.client", "raftkv.kv", "raftkv.recipes", "raftkv.server.assembly"),
    *("raftkv.state.rocks", "raftkv.typed"),
)


class Done(NamedTuple):
    """How a program has ended, and what it printed."""

    returncode: int
    stdout: str
    stderr: str


@cache
def _parent() -> subprocess.Popen[str]:
    """For all tests of this process."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "tests.programs"]
    parent = subprocess.Popen(
        command, cwd=ROOT, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    atexit.register(parent.communicate)
    return parent


def run_program(program: Path) -> Done:
    """Run the program as `python PROGRAM` would, in the tree's root; what it prints is kept in files beside it."""
    parent, out, err = _parent(), program.with_suffix(".out"), program.with_suffix(".err")
    assert parent.stdin is not None and parent.stdout is not None
    parent.stdin.write(json.dumps([str(program), str(out), str(err)]) + "\n")
    parent.stdin.flush()
    code = int(parent.stdout.readline())
    return Done(code, out.read_text(), err.read_text())


def _next_program() -> str | None:
    """Returns in each child, with its program; in the parent at the end of its input, with None."""
    for line in iter(sys.stdin.readline, ""):
        program, out, err = json.loads(line)
        child = os.fork()
        if child == 0:
            nothing = os.open(os.devnull, os.O_RDONLY)
            os.dup2(nothing, 0)
            os.close(nothing)
            for target, path in ((1, out), (2, err)):
                file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
                os.dup2(file, target)
                os.close(file)
            return str(program)
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)
    return None


if __name__ == "__main__":
    for module in MODULES:
        loaded = importlib.import_module(module)
        for name in getattr(loaded, "__all__", ()):
            getattr(loaded, name)  # imports what it is from
    found = _next_program()
    if found is not None:
        sys.argv = [found]
        sys.path[0] = str(Path(found).parent)
        runpy.run_path(found, run_name="__main__")
