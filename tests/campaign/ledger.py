"""What campaigns have done so far, by the commit that was run: the kept ledger, and the tables of it in the README.

Runs of `tools/chaos` and `tools/soak` write long lines of their own. What is kept of each is a short one, `ChaosRun` or
`WorldsRun`; `tools/ledger` adds them, and writes the tables anew.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from tests.campaign.fingerprint import CHANGED
from tests.chaos import links
from tests.chaos.clocks import ClockWrong
from tests.chaos.kills import LeaderKilled, NodesKilled, Paused
from tests.chaos.lineages import BackupRestored, SurvivorRecovered
from tests.chaos.points import KilledAt
from tests.chaos.power import all_nodes, one_node
from tests.chaos.rights import RightsChanged
from tests.chaos.rotation import SecretReplaced
from tests.chaos.sinks import LogUnread
from tests.chaos.strangers import Malformed
from tests.chaos.transfers import TransferCut
from tests.chaos.vandals import FILE_FLIPPED, ForeignFiles

KEPT = Path(__file__).parent / "ledger.jsonl"

BEGIN, END = "<!-- begin: written by tools/ledger -->\n", "<!-- end: written by tools/ledger -->\n"
"""Around the tables in the README."""

FAULTS: Mapping[str, Sequence[str]] = {
    "kills": (LeaderKilled.kind, NodesKilled.kind),
    "at failpoints": (KilledAt.kind,),
    "power cuts, ext4": (one_node("ext4"),),
    "of all, ext4": (all_nodes("ext4"),),
    "power cuts, XFS": (one_node("xfs"),),
    "of all, XFS": (all_nodes("xfs"),),
    "flipped bits": (FILE_FLIPPED,),
    "partitions": (
        links.Partitions.kind,
        links.EveryShape.kind,
        links.LeaderCutOff.kind,
        links.Bridge.kind,
        TransferCut.kind,
    ),
    "pauses": (Paused.kind, Paused.long),
    "malformed frames": (Malformed.kind,),
    "foreign files": (ForeignFiles.kind,),
    "unread logs": (LogUnread.kind,),
    "wrong clocks": (ClockWrong.kind, ClockWrong.rate),
    "backups restored": (BackupRestored.kind,),
    "survivors recovered": (SurvivorRecovered.kind,),
    "rights changed": (RightsChanged.kind,),
    "secrets replaced": (SecretReplaced.kind,),
}
"""What is counted in the tables, and the kinds of faults that it is."""

T = TypeVar("T")


class ChaosRun(msgspec.Struct, frozen=True, tag="chaos"):
    """A run of `tools/chaos`."""

    commit: str
    ended: str
    seed: int
    seconds: int
    load_max: float
    """Threads for each core that ran or wanted to: others used the machine, too, when there are many."""
    scenes: int
    operations: int
    faults: dict[str, int]
    """By the names of `FAULTS`."""
    owed: dict[str, tuple[int, int]] | None
    """What it did not do of what a run of its length has to: how much it did, of how much. None when it was told which
    faults to do."""
    losses: int
    """Writes that were lost or done twice, reads that were too old."""
    failed: list[int]
    """The seeds of its scenes that failed, for whatever reason."""


class WorldsRun(msgspec.Struct, frozen=True, tag="worlds"):
    """Batches of simulated worlds of one commit with consecutive seeds."""

    commit: str
    ended: str
    first: int
    worlds: int
    virtual_s: int
    operations: int
    failed: list[int]


Run = ChaosRun | WorldsRun


class NotToKeep(ValueError):
    """What is in a file is nothing to keep; the text says why."""


def kept_runs(path: Path = KEPT) -> list[Run]:
    """In the order in which they were added."""
    return [msgspec.json.decode(line, type=Run) for line in path.read_bytes().splitlines()]


def add(paths: Iterable[Path], kept: Path = KEPT) -> list[Run]:
    """Keep what these ledgers have, and return what of it is new. Raises `NotToKeep`."""
    before = {_identity(run): run for run in (kept_runs(kept) if kept.exists() else ())}
    told = {_identity(run): run for path in paths for run in runs_of(path.read_bytes())}
    kept.write_bytes(b"".join(msgspec.json.encode(run) + b"\n" for run in (before | told).values()))
    return [run for identity, run in told.items() if before.get(identity) != run]


def _identity(run: Run) -> tuple[str, str, int]:
    """Of a run of worlds that has gone on since it was kept, the longer one is kept."""
    return (type(run).__name__, run.commit, run.seed if isinstance(run, ChaosRun) else run.first)


def runs_of(ledger: bytes) -> list[Run]:
    """What is to be kept of a ledger of either tool; its batches of worlds are one run as long as they go on."""
    runs: list[Run] = []
    for line in map(msgspec.json.decode, ledger.splitlines()):
        commit = line["version"]
        if not commit or commit.endswith(CHANGED):
            raise NotToKeep(f"a run of {commit or 'no version'} is of no commit: commit, run again, and add that")
        run = _kept(line)
        if isinstance(run, WorldsRun) and runs and isinstance(last := runs[-1], WorldsRun) and _goes_on(last, run):
            runs[-1] = _joined(last, run)
        else:
            runs.append(run)
    return runs


def _kept(line: Mapping[str, Any]) -> Run:
    """What is kept of a line: fields of its own name, and what is made of the others."""
    common = {**line, "commit": line["version"]}
    if "fired" not in line:
        return msgspec.convert({**common, "type": "worlds"}, WorldsRun)
    faults = {name: sum(line["fired"].get(kind, 0) for kind in kinds) for name, kinds in FAULTS.items()}
    owed = None if line.get("only") else line["unmet"]
    return msgspec.convert({**common, "type": "chaos", "faults": faults, "owed": owed}, ChaosRun)


def _goes_on(last: WorldsRun, run: WorldsRun) -> bool:
    return last.commit == run.commit and last.first + last.worlds == run.first


def _joined(last: WorldsRun, run: WorldsRun) -> WorldsRun:
    return WorldsRun(
        commit=run.commit,
        ended=run.ended,
        first=last.first,
        worlds=last.worlds + run.worlds,
        virtual_s=last.virtual_s + run.virtual_s,
        operations=last.operations + run.operations,
        failed=[*last.failed, *run.failed],
    )


def tables(runs: Sequence[Run]) -> str:
    """What stands in the README between `BEGIN` and `END`: a row for each commit, and one for all of them."""
    chaos = [run for run in runs if isinstance(run, ChaosRun)]
    worlds = [run for run in runs if isinstance(run, WorldsRun)]
    faults_head = [
        "commit",
        "run until",
        "minutes",
        "load of a core",
        "scenes",
        *FAULTS,
        "operations",
        "lost or stale",
        "failed scenes",
    ]
    worlds_head = ["commit", "run until", "worlds", "virtual hours", "operations", "failed worlds"]
    return (
        "\nReal faults (`tools/chaos`):\n\n"
        + _table([*faults_head, "owed by the last run"], _rows(chaos, _chaos_cells))
        + "\nSimulated worlds (`tools/soak`):\n\n"
        + _table(worlds_head, _rows(worlds, _worlds_cells))
        + "\n"
    )


def _rows(runs: Sequence[T], cells: Callable[[Sequence[T]], list[str]]) -> list[list[str]]:
    """A row for each commit in the order of their first runs, and one for all when there are several."""
    commits = list(dict.fromkeys(_commit(run) for run in runs))
    of_commit = [[run for run in runs if _commit(run) == commit] for commit in commits]
    rows = [[commit, *cells(found)] for commit, found in zip(commits, of_commit, strict=True)]
    if len(commits) > 1:
        rows.append(["all", *cells(runs)])
    return rows


def _commit(run: object) -> str:
    assert isinstance(run, ChaosRun | WorldsRun)
    return run.commit


def _chaos_cells(runs: Sequence[ChaosRun]) -> list[str]:
    return [
        _day(runs),
        f"{sum(run.seconds for run in runs) / 60:.0f}",
        f"{max(run.load_max for run in runs):.1f}",
        f"{sum(run.scenes for run in runs):,}",
        *[_count(runs, name) for name in FAULTS],
        f"{sum(run.operations for run in runs):,}",
        f"{sum(run.losses for run in runs):,}",
        f"{sum(len(run.failed) for run in runs):,}",
        _owed(runs[-1]),
    ]


def _count(runs: Sequence[ChaosRun], name: str) -> str:
    """How many of these faults there were; a dash when that was not kept yet."""
    found = [run.faults[name] for run in runs if name in run.faults]
    return f"{sum(found):,}" if found else "–"


def _owed(run: ChaosRun) -> str:
    if run.owed is None:
        return "not asked"
    if not run.owed:
        return "nothing"
    name, (done, wanted) = min(run.owed.items(), key=lambda each: each[1][0] / each[1][1])
    return f"{len(run.owed)} {'quota' if len(run.owed) == 1 else 'quotas'}, most of {name}: {done:,} of {wanted:,}"


def _worlds_cells(runs: Sequence[WorldsRun]) -> list[str]:
    return [
        _day(runs),
        f"{sum(run.worlds for run in runs):,}",
        f"{sum(run.virtual_s for run in runs) / 3600:,.1f}",
        f"{sum(run.operations for run in runs):,}",
        f"{sum(len(run.failed) for run in runs):,}",
    ]


def _day(runs: Sequence[ChaosRun] | Sequence[WorldsRun]) -> str:
    return max(run.ended for run in runs).partition("T")[0]


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def with_tables(readme: str, runs: Sequence[Run]) -> str:
    """The README with the tables of these runs. Raises `NotToKeep` when it has no place for them."""
    before, begin, rest = readme.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise NotToKeep(f"the README has no place for the tables: put {BEGIN.strip()} and {END.strip()} into it")
    return f"{before}{BEGIN}{tables(runs)}{END}{after}"
