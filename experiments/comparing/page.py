"""The comparison's table on a terminal, and its page: one file, no script, nothing loaded from anywhere."""

from __future__ import annotations

import itertools
import statistics
from pathlib import Path
from typing import Any

from markupsafe import Markup
from matplotlib.figure import Figure
from matplotlib.ticker import LogFormatter
from rich.table import Table

from experiments.report.page import template
from experiments.report.plots import svg

COLOURS = {
    "routed": "#c0392b", "learned": "#e67e22", "random": "#7f8c8d", "cycle": "#b9770e", "tramfl": "#8e44ad",
    "federated": "#2471a3", "secure": "#1abc9c", "gossip": "#229954", "split": "#d4ac0d", "central": "#17202a",
}  # fmt: skip
OTHERS = (
    "#c0392b",
    "#2471a3",
    "#229954",
    "#8e44ad",
    "#e67e22",
    "#17202a",
    "#1abc9c",
    "#7f8c8d",
)  # of one's own, in turn
AXES = {"bytes": ("MB on the wire, all links (port counters)", 1e6), "seconds": ("seconds since submission", 1.0)}


def table(summary: dict[str, Any], expert_group: str | None) -> Table:
    """Return the comparison as one table: mean ± deviation over seeds."""
    shown = Table(box=None, padding=(0, 2, 0, 0))
    for column in columns(summary, expert_group):
        shown.add_column(column, justify="left" if column == "method" else "right")
    for row in rows(summary, expert_group):
        shown.add_row(*row)
    return shown


def columns(summary: dict[str, Any], expert_group: str | None) -> list[str]:
    """Return the table's head; without an expert group there is no column of it."""
    expert = [expert_group] if expert_group else []
    ratio = f"MB / {_reference(summary)}"
    return ["method", "met", "broad", *expert, "visits", "MB to targets", "s", ratio, "broad at equal MB"]


def _reference(summary: dict[str, Any]) -> str:
    """Return whose bytes are the others' measure: the network's own route, or what was named first."""
    methods = summary["methods"]
    return "routed" if "routed" in methods else next(iter(methods))


def rows(summary: dict[str, Any], expert_group: str | None) -> list[list[str]]:
    """Return the table's cells as text."""
    reference = summary["methods"][_reference(summary)].get("bytes")
    return [_row(name, found, reference, bool(expert_group)) for name, found in summary["methods"].items()]


def _row(name: str, found: dict[str, Any], reference_bytes: float | None, expert: bool) -> list[str]:
    if not found["runs"]:
        return [name, "no run", *[""] * (6 + expert)]
    ratio = f"{found['bytes'] / reference_bytes:.2f}" if reference_bytes else ""
    return [
        name,
        f"{found['pass_share']:.0%} of {found['runs']}",
        _pair(found, "broad", 1, 3),
        *([_pair(found, "expert", 1, 3)] if expert else []),
        _pair(found, "visits", 1, 1),
        _pair(found, "bytes", 1e6, 1),
        _pair(found, "seconds", 1, 1),
        ratio,
        f"{found['broad_at_equal_bytes']:.3f}",
    ]


def _pair(found: dict[str, Any], key: str, unit: float, digits: int) -> str:
    return f"{found[key] / unit:.{digits}f} ± {found[f'{key}_sd'] / unit:.{digits}f}"


def write_page(summary: dict[str, Any], target: Path, *, targets: dict[str, float], expert_group: str | None) -> None:
    """Write ``compare.html``: the table, and accuracy against bytes and against time."""
    plots = {axis: Markup(figure(summary, axis, targets, expert_group)) for axis in AXES}
    page = template("compare.html.j2").render(
        s=summary, columns=columns(summary, expert_group), rows=rows(summary, expert_group), plots=plots,
        expert_group=expert_group, targets=targets,
    )  # fmt: skip
    target.write_text(page)


def figure(summary: dict[str, Any], axis: str, targets: dict[str, float], expert_group: str | None) -> str:
    """Draw accuracy of the kept model against what had been spent: one thin line a run, means with deviations."""
    keys = ("broad", "expert") if expert_group else ("broad",)
    taken = {COLOURS[m] for m in summary["methods"] if m in COLOURS}
    free = itertools.cycle([c for c in OTHERS if c not in taken] or OTHERS)
    colours = {m: COLOURS.get(m) or next(free) for m in summary["methods"]}
    drawn = Figure(figsize=(9.5, 3.6))
    label, unit = AXES[axis]
    for place, key in enumerate(keys, 1):
        axes = drawn.add_subplot(1, len(keys), place)
        for method in summary["methods"]:
            runs = [r for r in summary["runs"] if r["method"] == method]
            _draw(axes, runs, method, colours[method], axis, key, unit)
        if targets.get(key):
            axes.axhline(targets[key], color="#5d6d7e", lw=0.8, ls="--")
        axes.set(xlabel=label, ylabel=f"{expert_group if key == 'expert' else 'broad'} accuracy", ylim=(0, 1.02))
        axes.set_xscale("log")
        for ticks in (axes.xaxis.set_major_formatter, axes.xaxis.set_minor_formatter):
            ticks(LogFormatter(minor_thresholds=(1.5, 0.6)))
    axes.legend(frameon=False, fontsize=7, loc="lower right")
    drawn.tight_layout()
    return svg(drawn)


def _draw(axes: Any, runs: list[dict[str, Any]], method: str, colour: str, axis: str, key: str, unit: float) -> None:
    for run in runs:
        points = [p for p in run["curve"] if p.get(key) is not None and p[axis] > 0]
        axes.plot([p[axis] / unit for p in points], [p[key] for p in points], color=colour, lw=0.7, alpha=0.5)
    if runs:
        ends = [r["curve"][-1] for r in runs if r["curve"]] or [{axis: r[axis], key: r[key]} for r in runs]
        x, y = ([float(end[k] or 0.0) for end in ends] for k in (axis, key))
        spread = [statistics.stdev(v) if len(v) > 1 else 0.0 for v in (x, y)]
        centre = statistics.fmean(x) / unit
        axes.errorbar(
            [centre], [statistics.fmean(y)], xerr=[min(spread[0] / unit, 0.9 * centre)], yerr=[spread[1]], fmt="o",
            ms=5, color=colour, capsize=2, label=method,
        )  # fmt: skip
