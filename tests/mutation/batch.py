"""Some mutants of one layer, tried in a process of their own: here, or where only their keys have gone.

What is sent names changes, and holds no code: whoever tries them makes them out of its own, which must be the same.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from tests.campaign.fingerprint import ROOT, fingerprint
from tests.campaign.jobs import JobsFailed


class BatchFailed(JobsFailed):
    """Mutants can't be tried as things are; the text says what to mend."""


class Batch(NamedTuple):
    """Mutants to be tried, by their keys."""

    layer: str
    keys: list[str]
    killers: dict[str, str]
    """The test that killed each before, by key; those that are not known are left out."""
    patience_s: float
    fingerprint: str
    """Of the code that they are changes of."""


class Judged(NamedTuple):
    """What became of a mutant, as `running.Verdict` has it."""

    key: str
    killed_by: str | None
    tests: int
    seconds: float
    hangs: bool


def batches(
    layer: str, keys: Iterable[str], size: int, killers: dict[str, str], patience_s: float, expected: str
) -> Iterator[Batch]:
    """So many mutants each. For each batch the layer's tests are measured anew, so it should not be a small one."""
    left = list(keys)
    while left:
        some, left = left[:size], left[size:]
        yield Batch(layer, some, {key: killers[key] for key in some if key in killers}, patience_s, expected)


def judge(batch: Batch) -> list[Judged]:
    """Try them with the tests of their layer. Raises `BatchFailed`.

    In a new process, as a worker of a cluster has threads, and may be no parent of others.
    """
    command = [sys.executable, "-m", "tests.mutation.batch"]
    done = subprocess.run(command, cwd=ROOT, input=json.dumps(batch), capture_output=True, text=True, check=False)
    if done.returncode:
        raise BatchFailed(f"mutants of {batch.layer} can't be tried: {(done.stderr or done.stdout).strip()[-2000:]}")
    return [Judged(*json.loads(line)) for line in done.stdout.splitlines() if line.startswith("[")]


def main() -> None:
    """Try the batch on standard input, and print a line for each."""
    from tests.mutation import running
    from tests.mutation.layers import LAYERS
    from tests.mutation.mutations import mutants_of

    batch = Batch(*json.load(sys.stdin))
    if (found := fingerprint(ROOT)) != batch.fingerprint:
        raise SystemExit(f"the code in {ROOT} has changed to {found} since this began: begin anew, with new workers")
    (layer,) = (layer for layer in LAYERS if layer.name == batch.layer)
    known = {mutant.key: mutant for path in layer.paths(ROOT) for mutant in mutants_of(ROOT, path)}
    chosen = [known[key] for key in batch.keys]
    how = {"patience_s": batch.patience_s, "killers": batch.killers}
    with tempfile.TemporaryDirectory() as scratch:
        for verdict in running.in_a_process(ROOT, layer.tests, chosen, Path(scratch), **how):
            judged = Judged(verdict.mutant.key, verdict.killed_by, verdict.tests, verdict.seconds, verdict.hangs)
            print(json.dumps(judged), flush=True)


if __name__ == "__main__":
    main()
