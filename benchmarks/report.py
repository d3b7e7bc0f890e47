"""What a suite found: rows of figures, one value a repeat; as a table, as a file, and against an earlier file."""

from __future__ import annotations

import statistics
from pathlib import Path

import msgspec
from rich.table import Table

from benchmarks.latency import Latencies

OURS = "raftkv"


class Column(msgspec.Struct, frozen=True):
    """One kind of figure. `better` is "higher", "lower", or empty where neither is."""

    name: str
    title: str
    better: str = ""
    digits: int = 0
    words: tuple[str, str] | None = None
    """What 0 and 1 mean, where that says more."""

    def show(self, value: float | None) -> str:
        if value is not None and self.words is not None:
            return self.words[bool(value)]
        return "" if value is None else f"{value:,.{self.digits}f}"


class Series(msgspec.Struct):
    """Points for a plot: which plot, whose, and the points."""

    plot: str
    name: str
    points: list[tuple[float, float]]


class Row(msgspec.Struct):
    """One case, measured for one system."""

    case: str
    who: str
    figures: dict[str, list[float]] = {}
    """By column; a value for each repeat, in order."""
    latencies: str = ""
    """Of all repeats together, as `Latencies.to_text`."""
    note: str = ""
    """What must be known to compare it."""
    x: float | None = None
    """Where it stands on a plot's axis: how many clients, nodes, bytes."""
    group: str = ""
    """Rows of one group are one line of a plot."""

    def median(self, column: str) -> float | None:
        values = self.figures.get(column)
        return statistics.median(values) if values else None

    def histogram(self) -> Latencies:
        return Latencies.from_text(self.latencies)


class Report(msgspec.Struct):
    """What one run of one suite found."""

    suite: str
    title: str
    machine: dict[str, str]
    began: str
    quick: bool
    repeats: int
    seed: int
    columns: list[Column]
    rows: list[Row] = []
    notes: list[str] = []
    series: list[Series] = []

    def row(self, case: str, who: str = OURS) -> Row:
        """The row of this case and system; made when it is not there yet."""
        found = self.find(case, who)
        if found is None:
            found = Row(case, who)
            self.rows.append(found)
        return found

    def find(self, case: str, who: str) -> Row | None:
        return next((row for row in self.rows if (row.case, row.who) == (case, who)), None)

    def add(self, case: str, who: str, figures: dict[str, float], latencies: Latencies | None = None) -> Row:
        """Another repeat of a case."""
        row = self.row(case, who)
        for name, value in figures.items():
            row.figures.setdefault(name, []).append(value)
        if latencies is not None:
            total = row.histogram()
            total.merge(latencies)
            row.latencies = total.to_text()
        return row

    def save(self, directory: Path) -> Path:
        """Write `SUITE.json` there; returns its path."""
        directory.mkdir(parents=True, exist_ok=True)
        path = directory / f"{self.suite}.json"
        path.write_bytes(msgspec.json.format(msgspec.json.encode(self), indent=1) + b"\n")
        return path

    @classmethod
    def load(cls, path: Path) -> Report:
        """Raises `ValueError` for a file that is none."""
        try:
            return msgspec.json.decode(path.read_bytes(), type=cls)
        except msgspec.MsgspecError as exc:
            raise ValueError(f"{path} holds no report: {exc}") from exc

    def table(self) -> Table:
        """Medians; beside another's figure, ours as a multiple of it."""
        table = Table(title=self.title, title_justify="left")
        table.add_column("case")
        table.add_column("who")
        for column in self.columns:
            table.add_column(column.title, justify="right")
        whos = {row.who for row in self.rows}
        peers = OURS in whos and len(whos) > 1
        if peers:
            table.add_column(f"{OURS} has", justify="right")
        case = ""
        for row in self.rows:
            cells = [column.show(row.median(column.name)) for column in self.columns]
            if row.case != case and case:
                table.add_section()
            table.add_row(row.case if row.case != case else "", row.who, *cells, *([self._ratio(row)] if peers else []))
            case = row.case
        return table

    def _ratio(self, row: Row) -> str:
        ours, column = self.find(row.case, OURS), self.columns[0]
        if row.who == OURS or ours is None:
            return ""
        mine, theirs = ours.median(column.name), row.median(column.name)
        return f"{mine / theirs:.2f}×" if mine is not None and theirs else ""


def compare(before: Report, after: Report) -> Table:
    """Every figure that both have, its change, and whether that is for the better."""
    table = Table(title=f"{after.suite}: now against {before.began}", title_justify="left")
    for title in ("case", "who", "figure"):
        table.add_column(title)
    for title in ("before", "now", "change"):
        table.add_column(title, justify="right")
    for row in after.rows:
        old = before.find(row.case, row.who)
        for column in after.columns if old is not None else []:
            assert old is not None
            was, now = old.median(column.name), row.median(column.name)
            if was is not None and now is not None:
                table.add_row(
                    row.case, row.who, column.title, column.show(was), column.show(now), change(column, was, now)
                )
    if before.machine.get("cpu") != after.machine.get("cpu") or before.machine.get("cores") != after.machine["cores"]:
        table.caption = "measured on another machine: the figures can't be compared"
    return table


def change(column: Column, was: float, now: float) -> str:
    """ "+12 %" with the verdict, as the column understands it."""
    if not was:
        return ""
    percent = (now / was - 1) * 100
    verdict = ""
    if column.better and abs(percent) >= 1:
        verdict = " better" if (percent > 0) == (column.better == "higher") else " worse"
    return f"{percent:+.0f} %{verdict}"
