"""Reports as pictures, with matplotlib (the extra `bench`); without it there are none."""

from __future__ import annotations

import importlib.util
from collections import defaultdict
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.report import Report, Row

if TYPE_CHECKING:
    from matplotlib.axes import Axes

INSTALL = "pip install 'raftkv[bench]'"
PERCENTILES = (50.0, 75.0, 90.0, 95.0, 99.0, 99.5, 99.9, 99.95, 99.99)


def available() -> bool:
    """Whether pictures can be drawn."""
    return importlib.util.find_spec("matplotlib") is not None


def draw(path: Path, title: str, report: Report, fill: Callable[[Axes], None]) -> Path:
    """A picture with one pair of axes, which `fill` fills."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 5.5), layout="constrained")
    axes: Any = figure.subplots()
    fill(axes)
    axes.set_title(title)
    axes.grid(visible=True, alpha=0.3)
    handles, _ = axes.get_legend_handles_labels()
    if handles:
        axes.legend(fontsize="small")
    machine = report.machine
    figure.supxlabel(f"{machine['cpu']}, {machine['cores']} cores, {machine['system']}, {report.began}", fontsize=7)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
    return path


def load(report: Report, directory: Path, *, along_groups: bool = False) -> list[Path]:
    """Throughput against clients (or along what each group of rows is named after), and every case's percentiles."""
    drawn = []
    for group, rows in _by(report.rows, lambda row: row.group).items():
        name = "-".join(filter(None, [report.suite, _file_name(group)]))
        if len({row.x for row in rows if row.x is not None}) > 1:
            drawn.append(
                draw(
                    directory / f"{name}-throughput.svg",
                    f"{report.title} ({group})",
                    report,
                    partial(_against_x, rows, group if along_groups else "operations under way"),
                )
            )
        if any(row.latencies for row in rows):
            drawn.append(
                draw(
                    directory / f"{name}-latency.svg",
                    f"latency by percentile ({group or report.suite})",
                    report,
                    partial(_percentiles, rows),
                )
            )
    return drawn


def series(report: Report, directory: Path, labels: dict[str, tuple[str, str]]) -> list[Path]:
    """The report's own series, one picture for each plot; `labels` are those of its axes."""

    def fill(name: str, axes: Axes) -> None:
        for each in report.series:
            if each.plot == name:
                axes.plot(*zip(*each.points, strict=True), label=each.name, linewidth=1)
        axes.set_xlabel(labels[name][0])
        axes.set_ylabel(labels[name][1])
        axes.set_ylim(bottom=0)

    names = [name for name in labels if any(each.plot == name and each.points for each in report.series)]
    return [
        draw(directory / f"{report.suite}-{_file_name(name)}.svg", name, report, partial(fill, name)) for name in names
    ]


def _against_x(rows: Iterable[Row], label: str, axes: Axes) -> None:
    for who, found in _by(rows, lambda row: row.who).items():
        points = sorted((row.x or 0.0, row.median("throughput") or 0.0) for row in found)
        axes.plot([x for x, _ in points], [y for _, y in points], marker="o", label=who)
    axes.set_xscale("symlog", linthresh=1)
    axes.set_xlabel(label)
    axes.set_ylabel("operations/s")
    axes.set_ylim(bottom=0)


def _percentiles(rows: Iterable[Row], axes: Axes) -> None:
    styles = ["-", "--", ":", "-."]
    whos: list[str] = []
    colours: dict[str, str] = {}
    for row in rows:
        if row.who not in whos:
            whos.append(row.who)
        colour = colours.setdefault(row.case, f"C{len(colours) % 10}")
        latencies = row.histogram()
        places = [1 / (1 - percentile / 100) for percentile in PERCENTILES]
        values = [latencies.percentile_ms(percentile) for percentile in PERCENTILES]
        style = styles[whos.index(row.who) % len(styles)]
        axes.plot(places, values, style, color=colour, label=f"{row.case}: {row.who}")
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xticks([1 / (1 - percentile / 100) for percentile in PERCENTILES], [f"{each:g}" for each in PERCENTILES])
    axes.minorticks_off()
    axes.set_xlabel("percentile")
    axes.set_ylabel("ms")


def _by(rows: Iterable[Row], key: Callable[[Row], str]) -> dict[str, list[Row]]:
    found: defaultdict[str, list[Row]] = defaultdict(list)
    for row in rows:
        found[key(row)].append(row)
    return found


def _file_name(text: str) -> str:
    return "-".join("".join(each if each.isalnum() else " " for each in text).split())
