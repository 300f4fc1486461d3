"""``daitn map``, ``explain``, ``check``, ``engines``, ``report``: look, or clean up, without bringing anything up."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from experiments.commands.app import (
    ColumnOption,
    DataOption,
    EngineOption,
    FolderOption,
    JobOption,
    LabelOption,
    PageOption,
    ScenarioArgument,
    TaskOption,
    TopoOption,
    app,
    out,
)
from experiments.errors import ExperimentError


@app.command("map")
def show_map(
    job: JobOption = None,
    folder: FolderOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print it as JSON.")] = False,
    svg: Annotated[Path | None, typer.Option(help="Draw it into this file (.svg, .png or .pdf).")] = None,
) -> None:
    """Show what the control centres know, how old it is and what it costs (G-KRRM); --job: that job's cut (MS-DRRT)."""
    from experiments.commands import netmap
    from experiments.commands.explain import choose_job, read_events

    if svg is not None:
        netmap.check_drawing(svg)
    run_folder = _folder(folder)
    found = netmap.whole_map(run_folder)
    object_id = None if job is None else choose_job(read_events(run_folder), None if job == "last" else job)
    cut = None if object_id is None else netmap.cut_of(run_folder, object_id)
    if as_json:
        out.print_json(json.dumps(found if cut is None else {"job": f"{object_id:#x}", "kas": cut}))
    elif cut is None:
        netmap.say_map(found, out)
    else:
        netmap.say_cut(cut, out)
    if svg is not None:
        graph = netmap.graph_of(netmap.plan_of(run_folder), found["terminals"], cut)
        netmap.draw(graph, svg, f"job {object_id:#x}" if object_id is not None else "network")
        if not as_json:
            out.print(f"drawn in {svg}", highlight=False, soft_wrap=True)


@app.command()
def explain(
    what: Annotated[
        str | None,
        typer.Argument(
            metavar="[JOB|QUERY]",
            help="Job, by the beginning of its number [default: the last]; or a query, as `daitn query` named it "
            "(asker4-1), or `last`.",
        ),
    ] = None,
    folder: FolderOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print it as JSON.")] = False,
) -> None:
    """Say why a job, or a query, went where it went: what was known and how old, who else, what came of it."""
    from experiments.commands.asking.why import is_query

    run_folder = _folder(folder)
    of_query = what is not None and is_query(what)
    told, say = _explained_query(run_folder, str(what)) if of_query else _explained_job(run_folder, what)
    if as_json:
        out.print_json(json.dumps(told))
    else:
        say(told, out)


Explained = tuple[dict[str, Any], Callable[[dict[str, Any], Console], None]]


def _explained_query(folder: Path, query: str) -> Explained:
    from experiments.commands.asking.why import explain, read, say

    return explain(read(folder), query), say


def _explained_job(folder: Path, job: str | None) -> Explained:
    from experiments.commands.explain import choose_job, read_events, say
    from experiments.commands.explain import explain as explain_job
    from experiments.commands.netmap import places_of

    events = read_events(folder)
    object_id = choose_job(events, job)
    return explain_job(events, object_id, places_of(folder, object_id)), say


def _folder(named: Path | None) -> Path:
    """Return the folder that is meant: the one named, else that of the standing network, else the latest run's."""
    from experiments.commands.client import request, standing_socket

    if named is not None:
        return named
    if standing_socket() is not None:
        return Path(request("status", timeout_s=10)["folder"])
    return Path("runs/latest")


@app.command()
def down() -> None:
    """End the standing network; everything it made is removed."""
    from experiments.commands.client import bring_down

    bring_down(out)


@app.command()
def clean() -> None:
    """Remove what crashed runs left behind, and only that; a live run is not touched."""
    from experiments.commands.session import need_root
    from topologies.machine.cleanup import clean as remove

    need_root()
    removed = remove(None)
    out.print(str(removed), highlight=False)


@app.command()
def check(
    scenario: ScenarioArgument = "healthcare",
    data: DataOption = None,
    label: LabelOption = None,
    column: ColumnOption = None,
    engine: EngineOption = None,
    topo: TopoOption = None,
    task: TaskOption = None,
    page_port: PageOption = None,
) -> None:
    """Check machine and scenario without starting anything."""
    from experiments.commands.resolving import Said
    from experiments.commands.session import check_all

    said: Said = {
        "data": data, "label": label, "columns": column or [], "engines": engine or [], "topo": topo, "task": task,
    }  # fmt: skip
    check_all(scenario, said, page_port=page_port, console=out)


@app.command()
def engines() -> None:
    """List the engines: what each decides, its contract, where it is; and how to bring your own."""
    from experiments.commands.engines import say_engines

    say_engines(out)


@app.command()
def report(
    folder: Annotated[Path, typer.Argument(help="Folder of a run.")] = Path("runs/latest"),
    as_json: Annotated[bool, typer.Option("--json", help="Print report.json.")] = False,
) -> None:
    """Show the report of a finished run again."""
    from experiments.commands.progress import say_report

    file = folder / "report.json"
    if not file.is_file():
        raise ExperimentError(f"{file} does not exist; name the folder of a finished run, or run one with `daitn run`")
    try:
        content: dict[str, Any] = json.loads(file.read_text())
        if as_json:
            out.print_json(json.dumps(content))
        else:
            say_report(content, folder, out)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        what = type(error).__name__
        raise ExperimentError(f"{file} is no whole report ({what}: {error}); run it again with `daitn run`") from None


@app.command()
def scenarios() -> None:
    """List the built-in scenarios."""
    from experiments.scenarios.built_in import names
    from experiments.scenarios.scenario import load

    for name in names():
        out.print(f"[bold]{name:<12}[/] {load(name).description}", highlight=False)


@app.command()
def schema() -> None:
    """Print the JSON schema of a scenario file, for editors that check YAML as it is typed."""
    from experiments.scenarios.schema import schema_text

    out.print(schema_text(), end="", markup=False, highlight=False, soft_wrap=True)
