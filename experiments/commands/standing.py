"""``daitn submit``, ``change``, ``stop`` and what else is asked of a network that stands."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from experiments.commands.app import EngineOption, app, out
from experiments.errors import ExperimentError
from topologies.own.files import absolute


@app.command()
def submit(
    broad: Annotated[float, typer.Option(help="Wanted accuracy over everything, 0..1.", min=0, max=1)] = 0.80,
    expert_group: Annotated[str | None, typer.Option(help="Group in which the model must be an expert.")] = None,
    expert: Annotated[float, typer.Option(help="Wanted accuracy in that group, 0..1.", min=0, max=1)] = 0.0,
    max_visits: Annotated[int, typer.Option(help="Budget of training visits.", min=1, max=1000)] = 10,
    deadline_s: Annotated[float, typer.Option(help="Seconds until the model must be home.", min=1)] = 170.0,
    method: Annotated[str, typer.Option(help="As in `daitn run`.")] = "routed",
    seed: Annotated[int, typer.Option(help="Seed of the fresh model and the plan.", min=0)] = 0,
    engine: EngineOption = None,
    owner: Annotated[str, typer.Option(help="Which model owner submits [default: the first].")] = "",
    aats: Annotated[
        str, typer.Option(help="The model finds its own way by this policy: greedy, planned, random-walk, end-to-end.")
    ] = "",
    parameter: Annotated[list[str] | None, typer.Option(help="Of the policy, for example jump=0.3.")] = None,
) -> None:
    """Submit a training job to the standing network and wait for the model to come home."""
    from experiments.commands.client import request, say_job
    from experiments.commands.engines import here

    if expert and not expert_group:
        raise ExperimentError("--expert needs --expert-group: say in which group the model must be an expert")
    if parameter and not aats:
        raise ExperimentError(f"--parameter {parameter[0]}: it is a policy's; add --aats POLICY, or leave it out")
    spec: dict[str, Any] = {
        "broad_accuracy": broad, "expert_group": expert_group, "expert_accuracy": expert, "max_visits": max_visits,
        "deadline_s": deadline_s, "method": method, "seed": seed, "engines": here(engine or []),
    }  # fmt: skip
    if aats:
        spec |= {"steering": "aats", "policy": absolute(aats, Path.cwd()), "parameters": _figures(parameter or [])}
    result = request("submit", timeout_s=deadline_s + 120, spec=spec, owner=owner)
    say_job(result, out)
    if not result.get("targets_met"):
        raise typer.Exit(1)


def _figures(words: list[str]) -> dict[str, float]:
    try:
        return {name: float(value) for name, _, value in (word.partition("=") for word in words)}
    except ValueError:
        raise ExperimentError(f"--parameter {' '.join(words)}: give name=number, for example jump=0.3") from None


@app.command()
def change(
    job: Annotated[str, typer.Argument(help="Job, by the beginning of its number.")],
    broad: Annotated[float | None, typer.Option(help="New accuracy over everything, 0..1.", min=0, max=1)] = None,
    expert: Annotated[float | None, typer.Option(help="New accuracy in the expert group, 0..1.", min=0, max=1)] = None,
    trust_floor: Annotated[float | None, typer.Option(help="Least trust of a data node, 0..1.", min=0, max=1)] = None,
    max_visits: Annotated[int | None, typer.Option(help="New budget of visits.", min=1, max=1000)] = None,
    deadline_s: Annotated[float | None, typer.Option(help="New deadline, seconds after its start.", min=1)] = None,
) -> None:
    """Change what a running job must reach, or may use; its next decision heeds it."""
    from experiments.commands.client import request

    wanted = {
        "broad_accuracy": broad, "expert_accuracy": expert, "trust_floor": trust_floor, "max_visits": max_visits,
        "deadline_s": deadline_s,
    }  # fmt: skip
    changes: dict[str, Any] = {key: value for key, value in wanted.items() if value is not None}
    if not changes:
        raise ExperimentError("nothing to change was named; see `daitn change --help`")
    said = request("change", timeout_s=30, job=job, **changes)
    out.print(f"job {said['job']} of {said['owner']}: {said['state']}, {said['visits']} visits so far", highlight=False)


@app.command()
def stop(job: Annotated[str, typer.Argument(help="Job, by the beginning of its number.")]) -> None:
    """Stop a running job: it trains no more, its model is measured and comes home as it was last accepted."""
    from experiments.commands.client import request

    said = request("change", timeout_s=30, job=job, stop=True)
    out.print(f"job {said['job']} of {said['owner']} is told to stop, {said['visits']} visits made", highlight=False)


@app.command()
def status(as_json: Annotated[bool, typer.Option("--json", help="Print the whole state as JSON.")] = False) -> None:
    """Show what stands: network, terminals, jobs."""
    from experiments.commands.client import request, say_status

    state = request("status", timeout_s=10)
    if as_json:
        out.print_json(json.dumps(state))
    else:
        say_status(state, out)


@app.command()
def withdraw(
    name: Annotated[str, typer.Argument(help="Terminal of the standing network, for example c1.")],
    offer: Annotated[bool, typer.Option("--offer", help="Offer it again instead.")] = False,
) -> None:
    """Steer nothing to a terminal any more; what is on its way there goes elsewhere, what came of it is handed over."""
    from experiments.commands.client import request

    request("withdraw", timeout_s=30, name=name, offer=offer)
    out.print(f"{name} is {'offered again' if offer else 'withdrawn; `--offer` takes it back'}", highlight=False)


@app.command()
def revoke(
    name: Annotated[str, typer.Argument(help="Terminal of the standing network, for example c1.")],
    reason: Annotated[str, typer.Option(help="Why, for the record.")] = "",
    restore: Annotated[bool, typer.Option("--restore", help="Let it in again instead.")] = False,
) -> None:
    """Have a terminal refused everywhere from now on: its keys, its AI traffic; what was with it goes elsewhere."""
    from experiments.commands.client import request

    said = request("revoke", timeout_s=30, name=name, reason=reason, restore=restore)
    what = "is let in again" if restore else "is revoked; `--restore` lets it in again"
    out.print(f"{name} of K-AS {said['kas']} {what}", highlight=False)


@app.command()
def keys(
    name: Annotated[str, typer.Argument(help="Terminal of the standing network, for example asker4.")],
    file: Annotated[Path, typer.Option("--out", help="Where to write its private keys (readable by you alone).")],
) -> None:
    """Give a script the keys of one terminal, to sign queries with (`packets.security.seal.sign_query`)."""
    from experiments.commands.client import request
    from packets.security.identity import Identity

    answer = request("keys", timeout_s=10, name=name)
    Identity.from_json(answer["keys"]).save(file)
    out.print(f"keys of {name}: {file}; directory: {answer['directory']}", highlight=False, soft_wrap=True)
