"""``report.html``: one file, no script, nothing loaded from anywhere."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from experiments.report import load_plots, placement_plot, plots
from topologies.plan import NetworkPlan

_environment = jinja2.Environment(
    loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
    autoescape=True,
    trim_blocks=True,
    lstrip_blocks=True,
)


def _figure(value: float | None, digits: int = 3) -> str:
    return "–" if value is None else f"{value:.{digits}f}"


def _megabytes(value: float) -> str:
    return f"{value / 1e6:.1f}"


_environment.filters |= {"figure": _figure, "megabytes": _megabytes}


def template(name: str) -> jinja2.Template:
    """Return a page's template, with the filters of all."""
    return _environment.get_template(name)


def render(report: dict[str, Any], plan: NetworkPlan) -> str:
    """Return the report as HTML with its plots inside."""
    drawn = {
        "topology": plots.topology(plan, report["journey"]),
        "accuracy": plots.accuracy(report["route"], report["targets"], report["expert_group"]),
        "links": plots.link_bytes(report["links"]),
    }
    if report["queries"]:
        load = report["queries"]
        drawn |= {
            "rates": load_plots.rates(load), "right": load_plots.right(load), "spread": load_plots.spread(load)
        }  # fmt: skip
    if report["placement"]:
        drawn["placement"] = placement_plot.draw(report["placement"])
    return _environment.get_template("report.html.j2").render(r=report, plots={k: Markup(v) for k, v in drawn.items()})
