"""What is known of generated mutants, in a file: a line for each, that a reader can edit."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tests.mutation.mutations import Mutant

VERDICTS = ("killed", "survived", "equivalent")
HEAD = "key\tverdict\tmodule\tfunction\toperator\tchange\twhy"


@dataclass(frozen=True, kw_only=True)
class Row:
    """What became of a mutant; `why` is the argument for an equivalent one, and the test that killed another."""

    key: str
    verdict: str
    path: str
    function: str
    operator: str
    change: str
    why: str

    @classmethod
    def of(cls, mutant: Mutant, verdict: str, why: str) -> Row:
        """Of a mutant, with what is known of it now."""
        change = f"{mutant.old}  →  {mutant.new}".replace("\t", " ")
        return cls(
            key=mutant.key, verdict=verdict, path=mutant.path, function=mutant.function, operator=mutant.operator,
            change=change if len(change) <= 300 else change[:297] + "…", why=why,
        )  # fmt: skip

    def line(self) -> str:
        """As in the file."""
        return "\t".join(
            (self.key, self.verdict, self.path, self.function, self.operator, self.change, self.why)
        ).rstrip()


class Table:
    """The file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.rows: dict[str, Row] = {}
        for number, line in enumerate(path.read_text().splitlines()[1:] if path.exists() else [], 2):
            key, verdict, place, function, operator, change, *why = line.split("\t")
            if verdict not in VERDICTS:
                raise SystemExit(f"{path.name}:{number}: the verdict {verdict!r} is none of {', '.join(VERDICTS)}")
            if verdict == "equivalent" and not any(why):
                raise SystemExit(f"{path.name}:{number}: say why it makes no difference, in the last column")
            self.rows[key] = Row(
                key=key, verdict=verdict, path=place, function=function, operator=operator, change=change,
                why="".join(why),
            )  # fmt: skip

    def verdict(self, mutant: Mutant) -> str:
        """What is known of it, or nothing."""
        row = self.rows.get(mutant.key)
        return row.verdict if row else ""

    def killers(self) -> dict[str, str]:
        """The test that killed each mutant, by its key."""
        return {key: f"tests/{row.why}" for key, row in self.rows.items() if row.verdict == "killed"}

    def note(self, mutant: Mutant, verdict: str, why: str) -> None:
        """Remember it, unless it was argued to be equivalent before."""
        if self.verdict(mutant) != "equivalent":
            self.rows[mutant.key] = Row.of(mutant, verdict, why)

    def keep(self, keys: set[str], paths: set[str]) -> None:
        """Forget those of `paths` whose code is not there any more."""
        self.rows = {key: row for key, row in self.rows.items() if key in keys or row.path not in paths}

    def write(self) -> None:
        """Write the file, in an order that keeps its differences small."""
        rows = sorted(self.rows.values(), key=lambda row: (row.path, row.function, row.operator, row.key))
        self._path.write_text("\n".join([HEAD, *(row.line() for row in rows)]) + "\n")
