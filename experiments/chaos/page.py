"""A campaign on one page: what befell whom and when, how work went meanwhile, who grew; ``chaos.csv``: the faults."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from markupsafe import Markup
from matplotlib.figure import Figure

from experiments.chaos.campaign import Done
from experiments.chaos.growth import Sample
from experiments.chaos.plan import KINDS, SORTS
from experiments.report.page import template
from experiments.report.plots import svg

COLOURS: Final = {
    "crash": "#c0392b", "pause": "#8e44ad", "slow": "#b9770e", "partition": "#17202a", "loss": "#2471a3",
    "corruption": "#d4ac0d", "flapping": "#1abc9c", "reboot": "#7f8c8d",
}  # fmt: skip
WORK: Final = (
    ("jobs home", "#229954"), ("jobs failed", "#c0392b"), ("queries answered", "#2471a3"),
    ("queries unanswered", "#e67e22"), ("parcels sent", "#8e44ad"),
)  # fmt: skip
STEPS: Final = 120
LEAST_STEP_S: Final = 5.0
BESIDE: Final = {"frameon": False, "fontsize": 7, "loc": "upper left", "bbox_to_anchor": (1.0, 1.0)}
STEEPEST: Final = 8


def write_csv(path: Path, done: Sequence[Done]) -> None:
    """Write the faults and what followed each, a row each."""
    with path.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(
            ["number", "planned_s", "began_s", "ended_s", "kind", "sort", "target", "share", "recovered_s", "trouble"]
        )
        for d in done:
            f = d.fault
            recovered = "" if d.recovered_s is None else d.recovered_s
            rows.writerow(
                [f.number, f.at_s, d.began_s, d.ended_s, f.kind, f.sort, f.target, f.share, recovered, d.trouble]
            )  # fmt: skip


def timeline(
    done: Sequence[Done], happened: Sequence[tuple[float, str]], samples: Sequence[Sample], violations: Sequence[Any],
    jobs_at_s: Sequence[tuple[int, float]], seconds: float,
) -> str:  # fmt: skip
    """Draw faults, work a minute, and memory, under one another on one axis of time. ``happened``: seconds, what."""
    figure = Figure(figsize=(10, 7.2))
    faults, work, memory = figure.subplots(3, 1, sharex=True, height_ratios=(1.1, 1.3, 1.1))
    for place, sort in enumerate(reversed(SORTS)):
        for kind in KINDS:
            bars = [
                (d.began_s, max(d.ended_s - d.began_s, seconds / 400)) for d in done
                if d.fault.sort == sort and d.fault.kind == kind and not d.trouble
            ]  # fmt: skip
            height = 0.7 / len(KINDS)
            faults.broken_barh(
                bars, (place - 0.35 + KINDS.index(kind) * height, height), color=COLOURS[kind], label=kind
            )
    for violation in violations:
        faults.axvline(violation["t_s"], color="#c0392b", lw=0.8, ls=":")
    faults.set_yticks(range(len(SORTS)), [*reversed(SORTS)])
    handles, labels = faults.get_legend_handles_labels()
    first = dict(zip(labels, handles, strict=True))
    faults.legend(
        first.values(),
        first.keys(),
        frameon=False,
        ncols=len(KINDS),
        fontsize=7,
        loc="lower center",
        bbox_to_anchor=(0.5, 1.0),
    )
    step_s = max(seconds / STEPS, LEAST_STEP_S)
    edges = [n * step_s for n in range(int(seconds / step_s) + 2)]
    for name, colour in WORK:
        counts = Counter(int(t_s / step_s) for t_s, what in happened if what == name and t_s >= 0)
        if counts:
            work.stairs(
                [60 / step_s * counts[n] for n in range(len(edges) - 1)],
                edges,
                baseline=None,
                color=colour,
                lw=1.1,
                label=name,
            )
    work.set(ylabel="a minute", ylim=(0, None))
    work.legend(**BESIDE)
    _memory(memory, samples, dict(jobs_at_s))
    memory.set(xlabel="seconds of the campaign", xlim=(0, max(seconds, 1.0)))
    return svg(figure)


def _memory(axes: Any, samples: Sequence[Sample], at_s: dict[int, float]) -> None:
    """Draw the memory of control centres, and of the agents that have most."""
    names = sorted({s.name for s in samples})
    most = {n: max(s.anon_mb for s in samples if s.name == n) for n in names}
    agents = sorted((n for n in names if not n.startswith(("dcc", "main", "zygote", "kbg"))), key=lambda n: -most[n])
    shown = [n for n in names if n.startswith(("dcc", "main"))] + agents[:3]
    for name in shown:
        points = [(at_s[s.jobs], s.anon_mb) for s in samples if s.name == name and s.jobs in at_s]
        axes.plot([t for t, _ in points], [mb for _, mb in points], lw=1.0, label=name)
    axes.set(ylabel="memory, MB", ylim=(0, None))
    if shown:
        axes.legend(**BESIDE)


def render(told: dict[str, Any], done: Sequence[Done], picture: str) -> str:
    """Return the page."""
    count = Counter((d.fault.kind, d.fault.sort) for d in done if not d.trouble)
    table = [[kind, *(count[kind, sort] or "" for sort in SORTS)] for kind in KINDS]
    return template("chaos.html.j2").render(
        r=told, sorts=SORTS, table=table, picture=Markup(picture), growth=told["growth"][:STEEPEST],
        trouble=[(d.fault.number, str(d.fault), d.trouble) for d in done if d.trouble],
    )  # fmt: skip
