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


def answer_in_words(answer: Record) -> str:
    """Return the answer to one sample of a stream as a line."""
    if answer["refused"]:
        words = f"[yellow]refused[/]: {shown(answer['refused'])}"
    elif answer["answer"] == answer["expected"]:
        words = f"{shown(answer['answer'])} (right)"
    else:
        expected = f"expected {shown(answer['expected'])}" if answer["expected"] else f"{answer['confidence']:.2f}"
        words = f"{shown(answer['answer'])} ({expected})"
    return (
        f"{answer['number']:>5}  {words} [dim]part {answer['part']}, {answer['answered_by']}, "
        f"{answer['after_ms']:.0f} ms[/]"
    )


def stream_summary(result: Record) -> str:
    """Return a stream in a sentence."""
    if not result.get("models"):
        return f"no answer [dim]({result['id']})[/]"
    right = f", {result['right']} of {result['judged']} right" if result["judged"] else ""
    rest = "".join(
        f", {result[n]} {word}" for n, word in (("refused", "refused"), ("asked_again", "asked again")) if result[n]
    )
    by = " and ".join(f"{shown(name)} ({count})" for name, count in result["models"].items())
    ended = ", ended early" if result["stopped"] else ""
    took = f"first part after {result['first_ms']:.1f} ms, all after {result['latency_ms']:.1f} ms"
    return (
        f"{result['answered']} of {result['samples']} answered by {by}, {result['parts']} parts: {took}"
        f"{right}{rest}{ended} [dim]({result['id']})[/]"
    )


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
