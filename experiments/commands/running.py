"""``daitn run``, ``compare``, ``up``: commands that bring a network up."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Annotated

import typer

from experiments.commands.app import (
    ColumnOption,
    DataOption,
    EngineOption,
    JobsOption,
    LabelOption,
    NoPageOption,
    PageOption,
    RunDirOption,
    ScenarioArgument,
    SeedOption,
    TaskOption,
    TopoOption,
    app,
    err,
    out,
)
from experiments.errors import ExperimentError


@app.command()
def run(
    scenario: ScenarioArgument = "healthcare",
    seed: SeedOption = None,
    seeds: Annotated[int | None, typer.Option(help="Number of seeds, one after the other.", min=1, max=100)] = None,
    data: DataOption = None,
    label: LabelOption = None,
    column: ColumnOption = None,
    method: Annotated[
        str | None,
        typer.Option(
            help="routed, learned, random, cycle, tramfl, federated, secure, gossip, split, central; auto: TAG "
            "chooses; or file.py:Class, a subclass of OwnMethod [default: the scenario's, routed if it names none]."
        ),
    ] = None,
    engine: EngineOption = None,
    topo: TopoOption = None,
    task: TaskOption = None,
    run_dir: RunDirOption = None,
    page_port: PageOption = None,
    no_page: NoPageOption = False,
    no_capture: Annotated[
        bool, typer.Option("--no-capture", help="Record no packets (bytes then come from port counters alone).")
    ] = False,
    sandbox: Annotated[
        bool,
        typer.Option(
            "--sandbox",
            help="On a network of its own with an Open vSwitch of its own, beside others on this machine; its page and "
            "its folder are here as ever, `daitn status` and the like do not see it.",
        ),
    ] = False,
    tls: Annotated[bool, typer.Option("--tls", help="OpenFlow over TLS, with certificates of this run alone.")] = False,
    certs: Annotated[
        Path | None, typer.Option(help="OpenFlow over TLS, with the certificates of this folder (daitn certs).")
    ] = None,
    servers: Annotated[
        str, typer.Option(help="Machines to stand on, names as for ssh, comma between them; each K-AS whole on one.")
    ] = "",
    place: Annotated[str, typer.Option(help="Which K-AS on which server: 1=a,2=b [default: in turn].")] = "",
) -> None:
    """Run a scenario from bring-up to report and teardown (what `make demo` does)."""
    started_s = time.monotonic()
    if sandbox and servers:
        raise ExperimentError(
            f"--sandbox keeps a run apart from this machine's network, --servers {servers} joins several: leave one out"
        )
    if sandbox:
        from experiments.commands.session import choose_page_port, need_root
        from experiments.testbed.apart import go_apart

        need_root()
        go_apart(sys.argv[1:], choose_page_port(page_port, no_page))
    from experiments.cluster.where import Where
    from experiments.commands.resolving import Said
    from experiments.commands.session import choose_page_port, run_scenario

    said: Said = {
        "seed": seed, "seeds": seeds, "data": data, "label": label, "columns": column or [], "engines": engine or [],
        "topo": topo, "task": task,
    }  # fmt: skip
    report = run_scenario(
        scenario, said, method=method, run_dir=run_dir, page_port=choose_page_port(page_port, no_page),
        capture=not no_capture, console=out, started_s=started_s, where=Where(tls, certs, servers, place),
    )  # fmt: skip
    if not report["targets_met"]:
        raise typer.Exit(1)


@app.command()
def compare(
    scenario: ScenarioArgument = "healthcare",
    methods: Annotated[
        str,
        typer.Option(
            help="Methods, comma between them, file.py:Class for your own; `all` for every one "
            "[default: all; routed with --engine]."
        ),
    ] = "",
    engine: Annotated[
        str | None,
        typer.Option(help="Engines side by side instead of methods: mtrce=default,mine.py:plan; see `daitn engines`."),
    ] = None,
    seeds: Annotated[int, typer.Option(help="Number of seeds.", min=1, max=100)] = 5,
    seed: Annotated[int, typer.Option(help="The first seed.", min=0)] = 0,
    data: DataOption = None,
    label: LabelOption = None,
    column: ColumnOption = None,
    topo: TopoOption = None,
    task: TaskOption = None,
    out_dir: Annotated[
        Path | None, typer.Option("--out", help="Folder for all runs [default: runs/compare-<date>-<scenario>].")
    ] = None,
    resume: Annotated[bool, typer.Option(help="Keep what was measured in --out before.")] = False,
    visits: Annotated[
        int, typer.Option(help="Budget of visits of one model [default: the scenario's].", min=0, show_default=False)
    ] = 0,
    rounds: Annotated[
        int, typer.Option(help="Budget of rounds of a group [default: the scenario's].", min=0, show_default=False)
    ] = 0,
    passes: Annotated[int, typer.Option(help="Budget of passes over pooled data.", min=0)] = 0,
    train_on: Annotated[bool, typer.Option("--train-on", help="Go on past the targets, to the budget's end.")] = False,
    merge: Annotated[bool, typer.Option(help="Whether MPVUs may keep part of a visit.")] = True,
    jobs: JobsOption = 1,
) -> None:
    """Run a scenario with several methods and seeds: one table, one page of figures (accuracy against bytes, time)."""
    from experiments.commands.resolving import Said
    from experiments.comparing.command import Budget, compare_methods

    budget = Budget(visits, rounds, passes, train_on, merge)
    said: Said = {"data": data, "label": label, "columns": column or [], "topo": topo, "task": task}
    if not compare_methods(
        scenario, methods, range(seed, seed + seeds), engine=engine, said=said, out=out_dir, resume=resume, console=out,
        budget=None if budget == Budget() else budget, jobs=jobs,
    ):  # fmt: skip
        raise typer.Exit(1)


@app.command()
def sweep(
    scenario: ScenarioArgument = "healthcare",
    sets: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            help="A key of the scenario and its values, key=v1,v2 (jobs.max_visits=4,8); may be given several times.",
        ),
    ] = None,
    seeds: Annotated[str, typer.Option(help="Seeds, as 1-5 or 1,4,7.")] = "0-4",
    jobs: JobsOption = 1,
    cluster: Annotated[
        str | None,
        typer.Option(
            help="Run over several machines instead: where Dask's scheduler listens, as tcp://10.0.0.1:8786; each "
            "machine runs `daitn worker`."
        ),
    ] = None,
    data: DataOption = None,
    label: LabelOption = None,
    column: ColumnOption = None,
    topo: TopoOption = None,
    task: TaskOption = None,
    out_dir: Annotated[
        Path | None,
        typer.Option(
            "--out",
            help="Folder for all runs; what it has finished is not run again [default: runs/sweep-<date>-<scenario>].",
        ),
    ] = None,
) -> None:
    """Run a scenario at every point of a grid of its keys, with several seeds: one table, one page."""
    from experiments.commands.resolving import Said
    from experiments.sweeping.command import Sweep, sweep_grid

    said: Said = {"data": data, "label": label, "columns": column or [], "topo": topo, "task": task}
    grid = Sweep(scenario, said, sets or [], seeds, out_dir)
    if not sweep_grid(grid, jobs=jobs, cluster=cluster, console=out):
        raise typer.Exit(1)


@app.command()
def worker(
    address: Annotated[str, typer.Argument(help="Where Dask's scheduler listens, as tcp://10.0.0.1:8786.")],
    name: Annotated[
        str, typer.Option(help="What the table calls this machine [default: its host name and four hex digits].")
    ] = "",
) -> None:
    """Let this machine work for sweeps over several, one run at a time, until it is stopped."""
    from experiments.sweeping.cluster import work_for

    work_for(address, name)


@app.command()
def up(
    scenario: ScenarioArgument = "healthcare",
    seed: SeedOption = None,
    data: DataOption = None,
    label: LabelOption = None,
    column: ColumnOption = None,
    engine: EngineOption = None,
    topo: TopoOption = None,
    task: TaskOption = None,
    method: Annotated[
        str | None, typer.Option(help="A method of your own, file.py:Class: what jobs here may name as `own`.")
    ] = None,
    run_dir: RunDirOption = None,
    page_port: PageOption = None,
    no_page: NoPageOption = False,
    detach: Annotated[
        bool, typer.Option("--detach", "-d", help="Leave it standing in the background; `daitn down` ends it.")
    ] = False,
) -> None:
    """Bring the network up and leave it standing: Mininet's CLI here, `daitn submit` and `query` elsewhere."""
    from experiments.commands.resolving import Said
    from experiments.commands.session import choose_page_port, stand, stand_detached

    if detach:
        stand_detached(sys.argv[1:], out, err)
        return
    said: Said = {
        "seed": seed, "data": data, "label": label, "columns": column or [], "engines": engine or [], "topo": topo,
        "task": task, "method": method,
    }  # fmt: skip
    stand(scenario, said, run_dir=run_dir, page_port=choose_page_port(page_port, no_page), console=out)
