"""``daitn query`` and ``daitn load``: ask the models that a standing network has deployed."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from controller.engines.inference.policies import POLICIES
from experiments.commands.app import app, out
from experiments.commands.words import shown
from experiments.errors import ExperimentError
from packets.queries import MAX_STREAM

AccuracyOption = Annotated[float, typer.Option(help="Least accuracy over everything, measured, 0..1.", min=0, max=1)]
ExpertOption = Annotated[str, typer.Option(help="Least accuracy in a group: GROUP=ACCURACY, cardiology=0.9.")]
DeadlineOption = Annotated[int, typer.Option(help="Milliseconds after which an answer is of no use (0: never).", min=0)]
LocalOption = Annotated[bool, typer.Option("--local", help="Stay in the asker's K-AS.")]

WayOption = Annotated[
    str, typer.Option(help="Way of inference, of the scenario's `ways`: split, cached ... [default: the plain model].")
]


def need_of(accuracy: float, expert: str, deadline_ms: int, local: bool) -> dict[str, Any]:
    """Return what queries need, from the options that say so; ``ExperimentError``."""
    need: dict[str, Any] = {"broad_accuracy": accuracy, "deadline_ms": deadline_ms, "local": local}
    if not expert:
        return need
    group, _, share = expert.rpartition("=")
    try:
        floor = float(share)
    except ValueError:
        floor = -1.0
    if not group or not 0 <= floor <= 1:
        raise ExperimentError(f"--expert {expert!r}: give GROUP=ACCURACY with an accuracy of 0 to 1: cardiology=0.9")
    return need | {"expert_group": group, "expert_accuracy": floor}


@app.command()
def query(
    group: Annotated[
        str, typer.Argument(help="Group from which to draw the question, for example cardiology.")
    ] = "cardiology",
    text: Annotated[str, typer.Option(help="Ask with words of your own instead, where the task is one of texts.")] = "",
    accuracy: AccuracyOption = 0.0,
    expert: ExpertOption = "",
    deadline_ms: DeadlineOption = 0,
    local: LocalOption = False,
    answer_to: Annotated[str, typer.Option(help="Terminal that gets the answer instead of who asks.")] = "",
    way: WayOption = "",
    count: Annotated[
        int,
        typer.Option(help="Samples of the question: answers come in order, as they are there.", min=1, max=MAX_STREAM),
    ] = 1,
    aats: Annotated[bool, typer.Option("--aats", help="The asker finds the model itself, no control centre.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print what came of it as one line of JSON.")] = False,
) -> None:
    """Put one question to whichever deployed model the network steers it to; `daitn explain last` says why there."""
    from experiments.commands.client import request

    if aats and way:
        raise ExperimentError(f"--way {way}: ways go through control centres; leave out --way, or --aats")
    if count > 1:
        if aats:
            raise ExperimentError(f"--aats goes with one sample, not with --count {count}; leave one of them out")
        need = need_of(accuracy, expert, deadline_ms, local)
        _stream(group, text, answer_to, count, need, way=way, as_json=as_json)
        return
    answer = request(
        "query", timeout_s=60, quiet=as_json, group="" if text else group, text=text, answer_to=answer_to,
        need=need_of(accuracy, expert, deadline_ms, local), way=way, aats=aats,
    )  # fmt: skip
    if as_json:
        typer.echo(json.dumps(answer))
        return
    if answer_to:
        words = f"taken in {answer['latency_ms']:.1f} ms; the answer goes to {answer_to}"
    else:
        right = "right" if answer["answer"] == answer["expected"] else f"expected {shown(answer['expected'])}"
        how = f"confidence {answer['confidence']:.2f}" if text else right
        by = f"{answer['answered_by']} {'from memory ' if answer['cached'] else ''}in {answer['latency_ms']:.1f} ms"
        words = f"{shown(answer['answer'])} ({how}), by {by}"
    out.print(f"{words} [dim]({answer['id']})[/]", highlight=False)


def _stream(
    group: str, text: str, answer_to: str, count: int, need: dict[str, Any], *, way: str, as_json: bool
) -> None:
    """Put one question of many samples; Ctrl-C ends it, what came so far is counted."""
    from experiments.commands.asking.driving import stream
    from experiments.commands.asking.told import stream_summary

    for option, given in (("--text", text), ("--answer-to", answer_to)):
        if given:
            raise ExperimentError(f"{option} goes with one sample, not with --count {count}; leave one of them out")
    result = stream(group, count, need, way, quiet=as_json)
    if as_json:
        typer.echo(json.dumps(result))
    else:
        out.print(stream_summary(result), highlight=False, soft_wrap=True)
    if result["stopped"]:
        raise typer.Exit(130)


@app.command()
def load(
    rate: Annotated[float, typer.Option(help="Queries a second, of all askers together.", min=0.001)] = 20.0,
    pattern: Annotated[str, typer.Option(help="poisson, diurnal, bursts or hot_spot.")] = "poisson",
    peak: Annotated[float, typer.Option(help="How many times as much at its height.", min=1, max=1000)] = 4.0,
    period: Annotated[float, typer.Option(help="Seconds from one height to the next.", min=0.001)] = 20.0,
    seconds: Annotated[float, typer.Option(help="How long to ask.", min=0.1, max=86_400)] = 10.0,
    policy: Annotated[
        str,
        typer.Option(
            help=f"Who picks the model of each query: {', '.join(POLICIES)}; group: the switches do; "
            "or file.py:Class of your own."
        ),
    ] = "qirce",
    group: Annotated[str, typer.Option(help="Ask samples of this group alone.")] = "",
    samples: Annotated[
        int, typer.Option(help="How many different samples an asker asks, over and over.", min=1, max=4096)
    ] = 512,
    way: WayOption = "",
    accuracy: AccuracyOption = 0.0,
    expert: ExpertOption = "",
    deadline_ms: DeadlineOption = 0,
    local: LocalOption = False,
    seed: Annotated[int, typer.Option(help="Seed of times and samples.", min=0)] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print what came of it as JSON, and no progress.")] = False,
) -> None:
    """Have all query owners of the standing network ask together; Ctrl-C ends it, what came so far is shown."""
    from experiments.commands.asking.driving import drive
    from experiments.commands.asking.told import say_load

    spec = {
        "rate_per_s": rate, "pattern": pattern, "peak": peak, "period_s": period, "seconds": seconds, "policy": policy,
        "group": group, "need": need_of(accuracy, expert, deadline_ms, local), "way": way, "samples": samples,
    }  # fmt: skip
    result = drive(spec, seed, quiet=as_json)
    if as_json:
        out.print_json(json.dumps(result))
    else:
        say_load(result, out)
    if result["stopped"]:
        raise typer.Exit(130)
