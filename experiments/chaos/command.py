"""``daitn chaos``: a campaign of faults, and an oracle of what must hold."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from experiments.chaos.plan import KINDS, Fault, check_kinds, schedule
from experiments.commands.app import RunDirOption, SeedOption, app, out
from experiments.errors import RunFailed


@app.command()
def chaos(
    scenario: Annotated[
        str, typer.Argument(help="Built-in scenario (chaos is made for it) or path of a YAML file.")
    ] = "chaos",
    seed: SeedOption = None,
    faults: Annotated[int, typer.Option(help="How many.", min=1, max=100_000)] = 50,
    seconds: Annotated[
        float, typer.Option(help="How long they take together [default: 9 a fault].", min=0, show_default=False)
    ] = 0.0,
    kinds: Annotated[str, typer.Option(help=f"Of these only, comma between them: {', '.join(KINDS)}.")] = "",
    plan: Annotated[bool, typer.Option("--plan", help="Print the schedule, and do nothing.")] = False,
    run_dir: RunDirOption = None,
) -> None:
    """Let hosts, switches, control centres, gateways and links fail by a seeded schedule: does all hold that must?"""
    from experiments.commands.resolving import resolve, told
    from experiments.scenarios.scenario import network_plan

    resolved = resolve(scenario, tell=told(out), seed=seed)
    chosen = check_kinds([word.strip() for word in kinds.split(",")] if kinds else [])
    made = schedule(network_plan(resolved), resolved.seed, faults=faults, seconds=seconds, kinds=chosen)
    if plan:
        for fault in made:
            out.print(f"{fault.number:>5} {fault.at_s:9.2f} s  {fault} for {fault.seconds:.2f} s", highlight=False)
        return
    if not carry_out(resolved, made, run_dir, out):
        raise typer.Exit(1)


def carry_out(scenario: object, made: Sequence[Fault], run_dir: Path | None, console: Console) -> bool:
    """Bring the scenario's network up, let the campaign happen, write its report; tell whether all held."""
    from experiments.chaos.campaign import Campaign
    from experiments.commands.progress import Progress
    from experiments.commands.session import RUNS, need_root
    from experiments.run import Run, gather
    from experiments.scenarios.scenario import Scenario, dump, network_plan
    from experiments.testbed.folder import RunFolder
    from experiments.testbed.testbed import Bed
    from topologies.machine.preflight import check_files

    assert isinstance(scenario, Scenario)
    need_root()
    check_files(network_plan(scenario))
    folder = RunFolder.create(RUNS, scenario.name, scenario.seed, run_dir)
    folder.scenario.write_bytes(dump(scenario))
    with Bed(scenario, folder, page_port=None, capture=False) as bed:
        folder.publish()
        folder.write_manifest(seed=scenario.seed, run_id=bed.run_id)
        progress = Progress(console)
        listening = bed.hub.add_listener(progress)
        run = Run(bed)
        run.bring_up(scenario.seed)
        with run.phase("gather"):
            gather(bed)
        progress.close()
        bed.hub.unsubscribe(listening)
        campaign = Campaign(bed, made, lambda text: console.print(text, highlight=False, markup=False, soft_wrap=True))
        failure = ""
        try:
            campaign.run()
        except RunFailed as error:
            failure = str(error)
        finally:
            with contextlib.suppress(OSError):
                told = write(campaign, folder.path, scenario.seed, failure)
    if failure:
        raise RunFailed(f"{failure}; what was recorded until then: {folder.path}")
    console.print(summary(told, folder.path), highlight=False, markup=False, soft_wrap=True)
    return not told["violations"]


def write(campaign: object, folder: Path, seed: int, failure: str) -> dict[str, object]:
    """Write ``chaos.json``, ``chaos.csv`` and the page; return what the first holds."""
    from experiments.chaos import campaign as campaigns
    from experiments.chaos.page import render, timeline, write_csv

    assert isinstance(campaign, campaigns.Campaign)
    told = campaigns.result(campaign, seed) | {"failure": failure}
    (folder / "chaos.json").write_text(json.dumps(told, indent=2) + "\n")
    write_csv(folder / "chaos.csv", campaign.done)
    happened = campaign.happened()
    samples = campaigns.read_samples(campaign.samples) if campaign.samples.exists() else []
    picture = timeline(
        campaign.done, happened, samples, told["violations"], campaign.jobs_at_s, campaign.seconds
    )  # fmt: skip
    (folder / "chaos.html").write_text(render(told, campaign.done, picture))
    return told


def summary(told: dict[str, object], folder: Path) -> str:
    """Return what a person is told at the end."""
    work = told["work"]
    assert isinstance(work, dict)
    violations = told["violations"]
    assert isinstance(violations, list)
    verdict = f"{len(violations)} violation(s)" if violations else "all that must hold held"
    counted = ", ".join(f"{count} {name}" for name, count in work.items())
    return (
        f"{told['faults']} faults in {told['seconds']} s ({told['not_done']} could not be done): {verdict}\n"
        f"work: {counted}\n"
        f"all pairs again after {told['recovered_p50_s']} s (median), {told['recovered_max_s']} s at most\n"
        f"report: {folder / 'chaos.html'}"
    )
