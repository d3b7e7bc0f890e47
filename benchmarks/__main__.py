"""`python -m benchmarks`: list the suites, or run some."""

from __future__ import annotations

import sys
from pathlib import Path

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from benchmarks import machine, plots
from benchmarks.load.generator import LoadFailed
from benchmarks.report import Report, compare
from benchmarks.suite import Run, Suite
from benchmarks.suites import SUITES

GUARD_TIMES = 3
"""How often what is guarded is measured before it counts as worse."""

CONTEXT = {"help_option_names": ["-h", "--help"]}


def list_suites(console: Console) -> None:
    """Print the names of the suites, and what each measures."""
    table = Table("suite", "what it measures", title="python -m benchmarks SUITE…", title_justify="left")
    for suite in SUITES.values():
        table.add_row(suite.name, suite.title)
    console.print(table)


def run_suite(suite: Suite, run: Run, console: Console) -> Report:
    """Run one suite, with its progress shown."""
    columns = (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("{task.description}"))
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task(suite.name, total=suite.steps(run))
        begun = False

        def step(text: str) -> None:
            nonlocal begun
            progress.update(task, advance=int(begun), description=f"{suite.name}: {text}")
            begun = True
            if not console.is_terminal:
                console.print(f"  {text}", highlight=False)

        run.step = step
        return suite.run(run)


def show(report: Report, suite: Suite, out: Path, before: Path | None, console: Console) -> None:
    """Table, notes, files, comparison."""
    console.print(report.table())
    for note in [*report.notes, *(f"{row.case}, {row.who}: {row.note}" for row in report.rows if row.note)]:
        console.print(f"· {note}", highlight=False)
    files = [report.save(out)]
    if plots.available():
        files += suite.plots(report, out)
    else:
        console.print(f"· no pictures: {plots.INSTALL}", highlight=False, markup=False)
    console.print("written: " + ", ".join(str(path) for path in files), highlight=False)
    if before is not None:
        console.print(compare(Report.load(before / f"{suite.name}.json" if before.is_dir() else before), report))


def still_worse(suite: Suite, run: Run, out: Path, console: Console) -> list[str]:
    """What is worse than in the report that is kept, each time: other work on the machine ends, a step back does not.

    Raises `ValueError` for a suite without such a report.
    """
    if suite.guard is None:
        raise ValueError("no report of this suite is kept")
    for _ in range(GUARD_TIMES - 1):
        problems = suite.guard(Report.load(out / f"{suite.name}.json"))
        if not problems:
            return []
        console.print("again, as this may be the machine: " + "; ".join(problems), highlight=False)
        run_suite(suite, run, console).save(out)
    return suite.guard(Report.load(out / f"{suite.name}.json"))


@click.command(context_settings=CONTEXT)
@click.argument("suites", nargs=-1, type=click.Choice(list(SUITES)), metavar="SUITE…")
@click.option("--quick", is_flag=True, help="Fewer cases, shorter, once: a look, not a result.")
@click.option("--repeats", type=click.IntRange(1), help="Repeats of each case; medians are shown. [3; quick: 1]")
@click.option("--seconds", type=click.FloatRange(0.1), help="Measured time of each repeat. [4; quick: 2]")
@click.option("--only", default="", metavar="TEXT", help="Only cases with this text in their names.")
@click.option("--peers", default="etcd,pysyncobj", show_default=True, help="Whom to measure besides; empty: nobody.")
@click.option("--generators", type=click.IntRange(1), default=1, show_default=True, help="Load generator processes.")
@click.option("--seed", type=int, default=1, show_default=True, help="Of keys and values.")
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), default=Path("build/benchmarks"))
@click.option("--guard", is_flag=True, help="Fail if it is worse by now than the report that is kept, even thrice.")
@click.option(
    "--compare", "before", type=click.Path(path_type=Path, exists=True), help="An earlier JSON file, or its directory."
)
def main(
    suites: tuple[str, ...],
    quick: bool,
    repeats: int | None,
    seconds: float | None,
    only: str,
    peers: str,
    generators: int,
    seed: int,
    out: Path,
    guard: bool,
    before: Path | None,
) -> None:
    """Run benchmark suites; without any, list them.

    Each prints a table of medians and writes JSON and pictures into --out.
    """
    console = Console(width=None if sys.stdout.isatty() else 160)
    if not suites:
        list_suites(console)
        return
    console.print(machine.sentence(), highlight=False)
    for name in suites:
        run = Run(
            quick=quick,
            repeats=repeats,
            seconds=seconds,
            only=only,
            peers=[each for each in peers.split(",") if each],
            generators=generators,
            seed=seed,
        )
        try:
            show(run_suite(SUITES[name], run, console), SUITES[name], out, before, console)
            if guard and (problems := still_worse(SUITES[name], run, out, console)):
                raise click.ClickException("; ".join([f"{name} is worse than what is kept of it", *problems]))
        except (LoadFailed, TimeoutError, ValueError) as exc:
            raise click.ClickException(f"{name}: {exc}") from exc


if __name__ == "__main__":
    main()
