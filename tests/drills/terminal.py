"""An operator's terminal: what is typed there is done, and from the trouble to the relief it is counted."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

PATIENCE_S = 120.0
"""For a command to end: none of them takes so long."""

ROOT = Path(__file__).parents[2]

OWN = (sys.executable, "-m", "raftkv")
"""What `raftkv` is: that of this checkout."""


class DrillFailed(Exception):
    """A drill did not come to its end; the text has what was done, and what was said."""


class Terminal:
    """Runs commands in a directory of its own, and keeps those that an operator types between trouble and relief.

    Addresses of this run are kept as names that stay the same from run to run. As a context manager it ends every
    process that it has started.
    """

    def __init__(self, directory: Path, environment: Mapping[str, str], names: Mapping[str, str]) -> None:
        """`names` has what is written for each address."""
        directory.mkdir(parents=True, exist_ok=True)
        self.directory = directory
        self._environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])),
            **environment,
        }
        self._names = dict(names)
        self._started: list[subprocess.Popen[bytes]] = []
        self._began: float | None = None
        self.typed: list[str] = []
        """What was typed since the trouble began, as it is kept."""
        self.seconds: float | None = None
        """From the trouble to the relief."""

    def trouble(self) -> None:
        """From now on commands count, and time."""
        self.typed, self._began = [], time.monotonic()

    def relief(self) -> None:
        """All is as it should be: what comes now counts no more."""
        assert self._began is not None, "relief of no trouble"
        if self.seconds is None:
            self.seconds = time.monotonic() - self._began

    def note(self, line: str) -> None:
        """Keep a line that was typed, if there is trouble now."""
        if self._began is None or self.seconds is not None:
            return
        for address, name in self._names.items():
            line = line.replace(address, name)
        self.typed.append(line)

    def type(self, *words: str, into: str | None = None) -> str:
        """Run a command to its end; what it printed on both streams. With `into` its output goes to that file.

        Raises `DrillFailed` when it fails.
        """
        self.note(shlex.join(words) + (f" > {into}" if into is not None else ""))
        code, out, said = self._run(words)
        if code:
            raise DrillFailed(f"{shlex.join(words)}: ended with {code}: {said}{out.decode(errors='replace')}")
        if into is not None:
            (self.directory / into).write_bytes(out)
            return said
        return out.decode(errors="replace") + said

    def complaint(self, *words: str) -> str | None:
        """Run a command that looks for something wrong: what it said if it failed, None if it did not."""
        self.note(shlex.join(words))
        code, out, said = self._run(words)
        return out.decode(errors="replace") + said if code else None

    def _run(self, words: Sequence[str]) -> tuple[int, bytes, str]:
        """Exit code, output, and what was said on stderr."""
        try:
            done = subprocess.run(
                _command(words),
                cwd=self.directory,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=PATIENCE_S,
                check=False,
            )
        except subprocess.TimeoutExpired as exc:
            raise DrillFailed(f"{shlex.join(words)}: not done within {PATIENCE_S:g} s") from exc
        return done.returncode, done.stdout, done.stderr.decode(errors="replace")

    def start(self, *words: str, log: str, own: Sequence[str] = OWN, **more: str) -> subprocess.Popen[bytes]:
        """Start a command that goes on; what it prints goes to the end of a file.

        `own` is run for `raftkv`, and `more` is in its environment.
        """
        self.note(shlex.join(words))
        with (self.directory / log).open("ab") as file:
            process = subprocess.Popen(
                _command(words, own),
                cwd=self.directory,
                env={**self._environment, **more},
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                start_new_session=True,
            )
        self._started.append(process)
        return process

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._started:
            if process.poll() is None:
                process.send_signal(signal.SIGKILL)
        for process in self._started:
            process.wait()


def _command(words: Sequence[str], own: Sequence[str] = OWN) -> list[str]:
    first, *rest = words
    return [*own, *rest] if first == "raftkv" else [first, *rest]
