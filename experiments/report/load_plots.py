"""Plots of a load of queries, as SVG text: queries a second by model, and how latencies are spread."""

from __future__ import annotations

from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator

from experiments.report.load import SPREAD
from experiments.report.plots import svg

MODEL_COLOURS = ("#4c78a8", "#f58518", "#54a24b", "#b279a2", "#9d755d", "#72b7b2", "#eeca3b", "#ff9da6")
OTHERS = "#bab0ac"
FAILED = "#c0392b"
MARKS = {"event": "#7d3c98", "fallen": FAILED, "trained on": "#b9770e", "deployed anew": "#1e8449"}
Record = dict[str, Any]


def _named(load: Record) -> list[tuple[str, str, str]]:
    """Return (label, name, colour) of each model, the one that answered most first."""
    colours = [*MODEL_COLOURS, *[OTHERS] * len(load["models"])]
    return [(str(m["label"]), str(m["name"]), c) for m, c in zip(load["models"], colours, strict=False)]


def rates(load: Record) -> str:
    """Draw queries a second over time: answered, in layers by model; asked as a line; what failed below it."""
    figure = Figure(figsize=(7, 2.9))
    axes = figure.subplots()
    steps, step_s = load["per_step"], load["step_s"]
    count = len(steps["asked"])
    edges = [n * step_s for n in range(count + 1)]
    below = [0.0] * count
    for label, name, colour in _named(load):
        above = [b + n for b, n in zip(below, steps["answered_by"].get(label, [0.0] * count), strict=True)]
        axes.stairs(above, edges, baseline=below, fill=True, color=colour, lw=0, alpha=0.85, label=name)
        below = above
    axes.stairs(steps["asked"], edges, baseline=None, color="#1c2833", lw=1.1, label="asked")
    failed = [r + n for r, n in zip(steps["refused"], steps["lost"], strict=True)]
    if any(failed):
        axes.stairs(failed, edges, baseline=None, color=FAILED, lw=1.3, label="refused or lost")
    axes.set(
        xlabel="seconds since the load began", ylabel="queries a second", xlim=(0, max(edges) or 1), ylim=(0, None)
    )
    axes.legend(frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.0), fontsize=8)
    return svg(figure)


def right(load: Record) -> str:
    """Draw the share of right answers over time, and when something happened to the world or to the models ('': nothing
    can be judged).
    """
    share, step_s = load["right"]["share"], load["right"]["step_s"]
    if not any(s is not None for s in share):
        return ""
    figure = Figure(figsize=(7, 2.6))
    axes = figure.subplots()
    points = [((n + 0.5) * step_s, s) for n, s in enumerate(share) if s is not None]
    axes.plot([t for t, _ in points], [s for _, s in points], color="#1c2833", lw=1.4, marker="o", ms=3)
    for number, mark in enumerate(load["happened"]):
        colour = MARKS.get(mark["what"], OTHERS)
        axes.axvline(mark["at_s"], color=colour, lw=1.1, ls="--")
        axes.annotate(
            mark["what"], (mark["at_s"], 0.02 + 0.09 * (number % 4)), xycoords=("data", "axes fraction"),
            xytext=(3, 0), textcoords="offset points", fontsize=7.5, color=colour,
        )  # fmt: skip
    low = min(s for _, s in points)
    axes.set(
        xlabel="seconds since the load began", ylabel="right answers", xlim=(0, max(len(share) * step_s, 1)),
        ylim=(max(0.0, low - 0.15), 1.0),
    )  # fmt: skip
    axes.grid(visible=True, axis="y", color="#dfe4e8", lw=0.6)
    return svg(figure)


def spread(load: Record) -> str:
    """Draw which share of queries was answered within how many milliseconds, of all and by model; dashed: deadline."""
    figure = Figure(figsize=(7, 2.9))
    axes = figure.subplots()
    shares = [p / 100 for p in SPREAD]
    models = _named(load) if len(load["models"]) > 1 else []
    for (_, name, colour), model in zip(models, load["models"], strict=False):
        axes.plot(model["spread_ms"], shares, color=colour, lw=1.2, label=name)
    if load["spread_ms"]:
        axes.plot(load["spread_ms"], shares, color="#1c2833", lw=1.8, label="all")
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter("{x:g}")
        axes.xaxis.set_minor_locator(LogLocator(subs=(2, 5)))
        axes.xaxis.set_minor_formatter("{x:g}")
        axes.legend(frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.0), fontsize=8)
    if deadline_ms := load["need"]["deadline_ms"]:
        axes.axvline(deadline_ms, color=FAILED, lw=0.9, ls="--")
    axes.set(xlabel="latency, ms", ylabel="share of the answered", ylim=(0, 1.02))
    axes.grid(visible=True, axis="x", which="major", color="#dfe4e8", lw=0.6)
    return svg(figure)
