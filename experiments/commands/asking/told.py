"""What a person reads of a load: a line a second, a table at its end."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table

from experiments.commands.words import shown

COLUMNS = ("model", "label", "share", "answered", "p50 ms", "p95 ms", "p99 ms", "in time", "right")
Record = dict[str, Any]


def second_in_words(told: Record) -> str:
    """Return one second of a load as a line."""
    counts = "  ".join(f"{name} {told[name]:>5}" for name in ("asked", "answered", "refused", "lost"))
    latency = "  ".join(f"{name} {_ms(told[f'{name}_ms']):>6}" for name in ("p50", "p95"))
    return f"{told['second']:>5} s  {counts}  {latency} ms"


def load_table(result: Record) -> Table:
    """Return a load as a table: a row a model, and all of them."""
    table = Table(box=None, padding=(0, 2, 0, 0))
    for number, column in enumerate(COLUMNS):
        table.add_column(column, justify="left" if number < 2 else "right")
    for model in result["models"]:
        label = f"{model['label']:#x}" if model["label"] else ""
        table.add_row(shown(model["name"]), label, f"{model['share']:.1%}", *_figures(model))
    if len(result["models"]) != 1 or result["answered"] != result["asked"]:
        table.add_row("[bold]all asked[/]", "", "", *_figures(result))
    return table


def say_load(result: Record, console: Console) -> None:
    """Print what came of a load."""
    console.print(load_table(result))
    console.print(summary(result), highlight=False, soft_wrap=True)
    for reason, count in result["reasons"].items():
        console.print(f"  [yellow]{count} times[/]: {shown(reason)}", highlight=False, soft_wrap=True)
    for name, reason in result["silent"].items():
        console.print(f"  [yellow]{name} is left out[/]: {shown(reason)}", highlight=False, soft_wrap=True)
    console.print(f"every query: {result['file']}", highlight=False, soft_wrap=True)


def summary(result: Record) -> str:
    """Return a load in a sentence."""
    rest = f"{result['refused']} refused, {result['lost']} lost"
    ended = ", ended early" if result["stopped"] else ""
    cached = f" ({result['cached'] / result['answered']:.1%} of them from memory)" if result.get("cached") else ""
    return (
        f"{result['asked']} asked by {len(result['askers'])} ({result['pattern']}, {result['rate_per_s']:g} a second, "
        f"policy {shown(result['policy'])}{ended}): {result['answered']} answered{cached}, {rest}"
    )


def _figures(about: Record) -> list[str]:
    accuracy = "" if about["accuracy"] is None else f"{about['accuracy']:.1%}"
    latency = [_ms(about[f"p{p}_ms"]) if about["answered"] else "" for p in (50, 95, 99)]
    return [str(about["answered"]), *latency, f"{about['deadline_hits']:.1%}", accuracy]


def _ms(value: float | None) -> str:
    return "–" if value is None else f"{value:.1f}"
