"""The release before this one, from the history of its source: what a downgrade by one minor goes back to."""

from __future__ import annotations

import io
import subprocess
import tarfile
from pathlib import Path

RELEASE = "0.2.0"
"""The minor before this one. Whoever begins another minor writes the one here that has just ended."""

ROOT = Path(__file__).parents[2]


class Missing(Exception):
    """The history of the source isn't there, or does not go back so far; the text says which."""


def commit() -> str:
    """The commit that was released: by what it calls itself, as it may be another one in a copied history."""
    if not (ROOT / ".git").exists():
        raise Missing(f"without git's history there is no raftkv {RELEASE} to go back to")
    names = f'__version__ = "{RELEASE}"'
    found = _git("log", "--format=%H", "--reverse", f"-S{names}", "--", "raftkv/version.py").decode().split()
    if not found:
        raise Missing(f"git's history does not go back to raftkv {RELEASE}")
    return found[0]


def unpack(folder: Path) -> Path:
    """That release's source under `folder`, its tests included. Raises `Missing`."""
    archive = _git("archive", "--format=tar", commit(), "raftkv", "tests", "setup.cfg", "pyproject.toml")
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        tar.extractall(folder, filter="data")
    return folder


def environment(tree: Path) -> dict[str, str]:
    """With which a Python imports what is in `tree`, whatever is installed and wherever it is started."""
    return {"PYTHONPATH": str(tree), "PYTHONSAFEPATH": "1"}


def _git(*arguments: str) -> bytes:
    done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, check=False)
    if done.returncode:
        raise Missing(f"git {arguments[0]}: {done.stderr.decode().strip()}")
    return done.stdout
