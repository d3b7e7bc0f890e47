"""What the drills came to, kept in `drills.json`, and the table of it in the README."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec

from tests.drills.drill import Drill

KEPT = Path(__file__).parent / "drills.json"

BEGIN, END = "<!-- begin: written by tools/drills -->\n", "<!-- end: written by tools/drills -->\n"
"""Around the table in the README."""


class Way(msgspec.Struct, frozen=True):
    """How one system came out of the trouble."""

    typed: list[str]
    """The commands, in their order."""
    seconds: float
    """From the trouble to the relief, the commands among them."""


class Played(msgspec.Struct, frozen=True):
    """One drill, done with both systems."""

    name: str
    on: str
    """The day."""
    ours: Way
    etcds: Way | None
    """None where etcd has none."""


class NoPlace(ValueError):
    """The README has no place for the table; the text says what to put there."""


def kept(path: Path = KEPT) -> dict[str, Played]:
    """By the drill's name."""
    if not path.exists():
        return {}
    return {each.name: each for each in msgspec.json.decode(path.read_bytes(), type=list[Played])}


def keep(played: Sequence[Played], order: Sequence[str], path: Path = KEPT) -> None:
    """Keep these in the place of what was kept of the same drills, in this order; what is in no order any more goes."""
    found = kept(path) | {each.name: each for each in played}
    rows = [found[name] for name in order if name in found]
    path.write_bytes(msgspec.json.format(msgspec.json.encode(rows), indent=1) + b"\n")


def table(drills: Sequence[Drill], found: dict[str, Played]) -> str:
    """What stands in the README: a row for each drill, and what must be known of some."""
    lines = ["| what is the matter | raftkv: commands | seconds | etcd: commands | seconds |", "| --- " * 5 + "|"]
    notes: list[str] = []
    for drill in drills:
        played = found.get(drill.name)
        if played is None:
            continue
        title = drill.title
        if drill.note:
            if drill.note not in notes:
                notes.append(drill.note)
            title += f" ({notes.index(drill.note) + 1})"
        lines.append(f"| {title} | {_cells(played.ours)} | {_cells(played.etcds)} |")
    said = "".join(f"{number}. {note}.\n" for number, note in enumerate(notes, 1))
    return "\n" + "".join(f"{line}\n" for line in lines) + "\n" + said + "\n"


def _cells(way: Way | None) -> str:
    return "– | –" if way is None else f"{len(way.typed)} | {way.seconds:.1f}"


def with_table(readme: str, drills: Sequence[Drill], found: dict[str, Played]) -> str:
    """The README with this table. Raises `NoPlace`."""
    before, begin, rest = readme.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise NoPlace(f"the README has no place for the table: put {BEGIN.strip()} and {END.strip()} into it")
    return f"{before}{BEGIN}{table(drills, found)}{END}{after}"
