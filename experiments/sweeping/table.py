"""The table of a sweep, made from its finished cells alone: ``sweep.csv``, and a page with a picture."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from markupsafe import Markup
from matplotlib.figure import Figure
from rich.table import Table

from experiments.comparing.runs import Result, summarise
from experiments.report.page import template
from experiments.report.plots import svg
from experiments.sweeping.cells import Cell, Done, write_whole
from experiments.sweeping.grid import Axis, in_words, value_in_words

FIGURES = ("passed", "broad", "expert", "visits", "bytes", "seconds", "total_bytes")
PANELS = (("broad", "broad accuracy", 1.0), ("bytes", "MB to the targets", 1e6), ("visits", "visits", 1.0))
HEAD = ("runs", "met", "broad", "expert", "visits", "MB to targets", "s")
MOST_LINES = 12


class Row(NamedTuple):
    """One finished cell."""

    cell: Cell
    done: Done


class Point(NamedTuple):
    """What a sweep found at one point of its grid: means and deviations over seeds."""

    values: Mapping[str, Any]
    found: dict[str, Any]
    rejected: int


def write_csv(rows: Sequence[Row], axes: Sequence[Axis], target: Path) -> None:
    """Write one line a finished cell, in the grid's order."""
    text = io.StringIO()
    lines = csv.writer(text, lineterminator="\n")
    lines.writerow(["seed", *(axis.key for axis in axes), "state", *FIGURES, "route", "machine", "cell"])
    for cell, done in rows:
        result = done.result
        figures = ["" for _ in FIGURES] if result is None else [getattr(result, figure) for figure in FIGURES]
        figures = [int(f) if isinstance(f, bool) else f for f in figures]
        route = " ".join(node if node == at else f"{node}@{at}" for node, at in done.route)
        values = [value_in_words(cell.point[axis.key]) for axis in axes]
        lines.writerow([cell.seed, *values, done.state, *figures, route, done.machine, cell.name])
    write_whole(target, text.getvalue().encode())


def summed_up(rows: Sequence[Row]) -> list[Point]:
    """Return the points of which a cell is finished, in the grid's order."""
    by_point: dict[str, list[Row]] = {}
    for row in rows:
        by_point.setdefault(in_words(row.cell.point), []).append(row)
    found = []
    for there in by_point.values():
        results: list[Result] = [row.done.result for row in there if row.done.result is not None]
        found.append(Point(there[0].cell.point, summarise(results), len(there) - len(results)))
    return found


def cells_in_words(point: Point) -> list[str]:
    """Return a line of the table as text."""
    found, values = point.found, [value_in_words(value) for value in point.values.values()]
    runs = f"{found['runs']}" + (f" (+{point.rejected} rejected)" if point.rejected else "")
    if not found["runs"]:
        return [*values, runs, *[""] * (len(HEAD) - 1)]
    pairs = [_pair(found, *which) for which in (("broad", 1, 3), ("expert", 1, 3), ("visits", 1, 1), ("bytes", 1e6, 2))]
    return [*values, runs, f"{found['pass_share']:.0%}", *pairs, _pair(found, "seconds", 1, 1)]


def _pair(found: Mapping[str, Any], key: str, unit: float, digits: int) -> str:
    return f"{found[key] / unit:.{digits}f} ± {found[f'{key}_sd'] / unit:.{digits}f}"


def table(rows: Sequence[Row], axes: Sequence[Axis]) -> Table:
    """Return the table for a terminal, one line a point."""
    shown = Table(box=None, padding=(0, 2, 0, 0))
    for column in (*(axis.key for axis in axes), *HEAD):
        shown.add_column(column)
    for point in summed_up(rows):
        shown.add_row(*cells_in_words(point))
    return shown


def write_page(
    rows: Sequence[Row], axes: Sequence[Axis], target: Path, *, scenario: str, seeds: Sequence[int],
    missing: Sequence[str],
) -> None:  # fmt: skip
    """Write ``sweep.html``: picture and table of what is finished; ``missing``: what is not, and why."""
    found = summed_up(rows)
    page = template("sweep.html.j2").render(
        scenario=scenario, seeds=seeds, axes=axes, columns=[*(axis.key for axis in axes), *HEAD],
        rows=[cells_in_words(point) for point in found], plot=Markup(figure(found, axes)), missing=missing,
        values=value_in_words,
    )  # fmt: skip
    write_whole(target, page.encode())


def figure(found: Sequence[Point], axes: Sequence[Axis]) -> str:
    """Draw accuracy, bytes and visits over the first key, a line for each combination of the others."""
    drawn = Figure(figsize=(10.5, 3.4))
    first = axes[0] if axes else Axis("", ("all seeds",))
    numbers = all(isinstance(v, int | float) and not isinstance(v, bool) for v in first.values)
    lines: dict[str, list[Point]] = {}
    for point in found:
        if point.found["runs"]:
            others = {key: value for key, value in point.values.items() if key != first.key}
            lines.setdefault(in_words(others), []).append(point)
    for place, (key, label, unit) in enumerate(PANELS, 1):
        shown = drawn.add_subplot(1, len(PANELS), place)
        for name, points in list(lines.items())[:MOST_LINES]:
            values = [point.values.get(first.key, first.values[0]) for point in points]
            x = values if numbers else [value_in_words(v) for v in values]
            y, spread = ([point.found[k] / unit for point in points] for k in (key, f"{key}_sd"))
            shown.errorbar(x, y, yerr=spread, marker="o", ms=4, lw=1.2, capsize=2, label=name or None)
        shown.set(xlabel=first.key, ylabel=label)
        shown.set_ylim(bottom=0)
    if len(lines) > 1:
        drawn.axes[0].legend(frameon=False, fontsize=7)
    drawn.tight_layout()
    return svg(drawn)
