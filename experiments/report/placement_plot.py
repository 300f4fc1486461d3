"""The picture of where models served: time across, a row each MDFP, and beneath it where queries came from."""

from __future__ import annotations

from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from experiments.report.plots import svg

KAS_COLOURS = ("#4c78a8", "#e8811a", "#459c43", "#a367a0", "#8a6a57", "#3b9e96", "#cfa51f", "#d9728f")
INK, SOFT, BAD = "#1c2833", "#5d6d7e", "#c0392b"
BAR = 0.62  # of a row's height
DASHES = (0, (2, 1.5))
WENT = {"scaled": "scaled down", "gone": "terminal gone"}
Record = dict[str, Any]
Places = dict[tuple[str, str], float]


def draw(placed: Record) -> str:
    """Draw bars where a model serves, in the colour of its K-AS (a lane each variant), arrows where one was copied or
    moved, what was out hatched; under it queries a second by K-AS of asker, in the same colours.
    """
    rows, end_s = placed["rows"], max(1.0, placed["end_s"])
    lanes = sorted({bar["task"] for bar in placed["bars"]}) or [""]
    high = len(rows) * (0.14 + 0.16 * len(lanes)) + 0.2
    figure = Figure(figsize=(7.6, high + 2.2))
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[high, 1.5])
    figure.subplots_adjust(hspace=0.12)
    colour = {kas: KAS_COLOURS[n % len(KAS_COLOURS)] for n, kas in enumerate(_kas(placed))}
    place = {row["node"]: n for n, row in enumerate(rows)}
    at = {(node, t): n + BAR * ((k + 0.5) / len(lanes) - 0.5) for node, n in place.items() for k, t in enumerate(lanes)}
    bars = [bar for bar in placed["bars"] if bar["node"] in place]
    _bars(upper, bars, at, BAR / len(lanes), {row["node"]: colour[row["kas"]] for row in rows})
    _outs(upper, placed["outs"], place)
    _marks(upper, bars, at)
    upper.set(ylim=(len(rows) - 0.4, -0.6), yticks=range(len(rows)), xlim=(0, end_s))
    upper.set_yticklabels([f"K-AS {row['kas']} · {row['node']}" for row in rows])
    upper.tick_params(axis="both", length=0)
    upper.spines[:].set_visible(False)
    for number, row in enumerate(rows[1:], 1):
        if row["kas"] != rows[number - 1]["kas"]:
            upper.axhline(number - 0.5, color="#dfe4e8", lw=0.8, zorder=0)
    _asked(lower, placed, colour)
    lower.set(xlabel="seconds since the load began", ylabel="queries a second", xlim=(0, end_s), ylim=(0, None))
    _legend(upper, placed)
    return svg(figure)


def _kas(placed: Record) -> list[int]:
    return sorted({row["kas"] for row in placed["rows"]} | {int(kas) for kas in placed["asked_by_kas"]})


def _bars(axes: Axes, bars: list[Record], at: Places, high: float, colour: dict[str, str]) -> None:
    for bar in bars:
        middle, span = at[bar["node"], bar["task"]], (bar["from_s"], bar["to_s"] - bar["from_s"])
        shape = (middle - 0.46 * high, 0.92 * high)
        axes.broken_barh([span], shape, facecolor=colour[bar["node"]], edgecolor="white", lw=0.8)
        if high < BAR:
            ground = {"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 0.6}
            axes.text(span[0], middle, bar["task"], va="center", fontsize=7, color=INK, clip_on=True, bbox=ground)


def _outs(axes: Axes, outs: list[Record], place: dict[str, int]) -> None:
    for out in outs:
        if out["node"] in place:
            span, low = (out["from_s"], out["to_s"] - out["from_s"]), place[out["node"]] - BAR / 2
            axes.broken_barh([span], (low, BAR), facecolor="#ffffff", edgecolor=BAD, hatch="////", lw=0.8, zorder=3)


def _marks(axes: Axes, bars: list[Record], at: Places) -> None:
    for bar in bars:
        here, there = at[bar["node"], bar["task"]], at.get((bar["came_from"], bar["task"]))
        if there is not None:
            dashes = "-" if bar["came"] == "moved" else DASHES
            arrow = {"arrowstyle": "-|>", "color": INK, "lw": 1.1, "ls": dashes, "shrinkA": 0, "shrinkB": 0}
            axes.annotate("", (bar["from_s"], here), (bar["from_s"], there), arrowprops=arrow, zorder=4)
        if bar["went"] in WENT:
            mark, ink = ("v", INK) if bar["went"] == "scaled" else ("X", BAD)
            axes.plot(bar["to_s"], here, mark, color=ink, ms=5.5, mec="white", mew=0.6, zorder=5)


def _asked(axes: Axes, placed: Record, colour: dict[int, str]) -> None:
    below: list[float] | None = None
    for kas, rates in placed["asked_by_kas"].items():
        edges = [n * placed["step_s"] for n in range(len(rates) + 1)]
        floor = below or [0.0] * len(rates)
        below = [b + r for b, r in zip(floor, rates, strict=True)]
        axes.stairs(below, edges, baseline=floor, fill=True, color=colour[int(kas)], lw=0, label=f"K-AS {kas}")
    axes.legend(frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.0), fontsize=8, title="asked from")


def _legend(axes: Axes, placed: Record) -> None:
    """Say what the marks mean, those that are there."""
    bars = placed["bars"]
    known = {
        "moved": Line2D([], [], color=INK, lw=1.1),
        "copied": Line2D([], [], color=INK, lw=1.1, ls=DASHES),
        "scaled down": Line2D([], [], color=INK, marker="v", ls="", ms=5.5),
        "terminal gone": Line2D([], [], color=BAD, marker="X", ls="", ms=5.5),
        "out": Patch(facecolor="#ffffff", edgecolor=BAD, hatch="////"),
    }
    there = {b["came"] for b in bars} | {
        {"scaled": "scaled down", "gone": "terminal gone"}.get(b["went"]) for b in bars
    }
    there |= {"out"} if placed["outs"] else set()
    shown = {name: handle for name, handle in known.items() if name in there}
    if shown:
        axes.legend(
            shown.values(), shown.keys(), frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.0), fontsize=8
        )
