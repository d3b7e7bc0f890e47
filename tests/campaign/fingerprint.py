"""Which version of the code this is: by its content, which machines that work together must share, and by commit."""

from __future__ import annotations

import functools
import hashlib
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent

FOLDERS = ("raftkv", "tests")

CHANGED = "-dirty"
"""How a commit ends when the code was changed since."""


def fingerprint(root: Path) -> str:
    """Of the code and its tests below `root`, by their names and bytes, and of the version of Python.

    What tools leave behind (names that begin with a dot, `__pycache__`) doesn't count.
    """
    found = hashlib.sha256()
    for path in sorted(path for folder in FOLDERS for path in (root / folder).rglob("*")):
        inside = path.relative_to(root)
        if path.is_file() and not any(part.startswith((".", "__pycache__")) for part in inside.parts):
            data = path.read_bytes()
            found.update(f"{inside.as_posix()} {len(data)}\n".encode() + data)
    return f"{found.hexdigest()[:16]} on Python {sys.version_info.major}.{sys.version_info.minor}"


@functools.cache
def own_fingerprint() -> str:
    """Of the code that this process has loaded: as it was on the disk when this was first asked."""
    return fingerprint(ROOT)


def commit() -> str:
    """Of the code, and whether it was changed since; empty where git can't say."""
    try:
        command = ["git", "describe", "--always", f"--dirty={CHANGED}"]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False).stdout.strip()
    except OSError:
        return ""
