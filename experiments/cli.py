"""``daitn``: the testbed's command line. Every command is one line of help, one screen of output, one exit status.

Exit status: 0 done, 1 the work did not reach its goal, 2 bad input or a machine that is not ready, 130 Ctrl-C.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from typer.exceptions import TyperException

from controller.oam.errors import OamError
from experiments.errors import ExperimentError, RunFailed
from experiments.testbed.processes import ENDINGS, end_in_order
from hosts.learning.errors import LearningError
from packets.errors import IdentityError
from topologies.errors import TopologyError

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="DA-ITN testbed: models, data and queries that travel, and a network that decides where they meet.",
)
INTERRUPTED = 130
out = Console()
err = Console(stderr=True)

ScenarioArgument = Annotated[
    str, typer.Argument(help="Built-in scenario (healthcare, heart, table, digits, flipped) or path of a YAML file.")
]
SeedOption = Annotated[int | None, typer.Option(help="Seed of data, models and plans.", min=0)]
DataOption = Annotated[
    Path | None, typer.Option(help="Real data: a directory (UCI heart disease) or a CSV/JSONL file.")
]
LabelOption = Annotated[str | None, typer.Option(help="Label column of --data FILE.")]
PageOption = Annotated[
    int | None,
    typer.Option(help="Port of the status page on 127.0.0.1 [default: 8080, or a free one].", min=0, max=65535),
]
NoPageOption = Annotated[bool, typer.Option("--no-page", help="Serve no status page.")]
FolderOption = Annotated[
    Path | None, typer.Option(help="Folder of a run [default: the standing network's, else runs/latest].")
]
JobOption = Annotated[str | None, typer.Option(help="Job, by the beginning of its number, or `last`.")]
RunDirOption = Annotated[
    Path | None, typer.Option(help="Folder for the results [default: runs/<date>-<scenario>-s<seed>].")
]


def main() -> None:
    """Entry point: errors a person can act on become one line and an exit status."""
    end_in_order()
    status = 0
    try:
        status = app(standalone_mode=False)
    except (ExperimentError, TopologyError, LearningError, OamError, IdentityError) as error:
        _fail(error, 2)
    except RunFailed as error:
        _fail(error, 1)
    except (KeyboardInterrupt, typer.Abort):
        status = INTERRUPTED
    except TyperException as error:  # a wrong flag, a missing argument
        said = getattr(error, "format_message", error.__str__)()
        if not said:  # `daitn` alone: the help has been shown
            sys.exit(2)
        _fail(ExperimentError(f"{said.rstrip('.')}; see `daitn --help` or `daitn COMMAND --help`"), 2)
    if status == INTERRUPTED:  # typer's own word for Ctrl-C, too
        for number in ENDINGS:  # who presses twice gets no other end
            signal.signal(number, signal.SIG_IGN)
        made_something = {"run", "up"} & set(sys.argv[1:2])
        waited = "submit" in sys.argv[1:2]
        goes_on = "no longer waiting; the job goes on: `daitn status` shows it, `daitn stop JOB` ends it"
        err.print("stopped; everything is torn down" if made_something else goes_on if waited else "stopped")
    sys.exit(status if isinstance(status, int) else 0)


def _fail(error: Exception, status: int) -> None:
    err.print(f"[red]error:[/] {' '.join(str(error).split())}", highlight=False, soft_wrap=True)
    sys.exit(status)


@app.command()
def run(
    scenario: ScenarioArgument = "healthcare",
    seed: SeedOption = None,
    seeds: Annotated[int | None, typer.Option(help="Number of seeds, one after the other.", min=1, max=100)] = None,
    data: DataOption = None,
    label: LabelOption = None,
    method: Annotated[
        str | None,
        typer.Option(
            help="routed, learned, random, cycle, tramfl, federated, secure, gossip, split, central, or auto: TAG "
            "chooses [default: the scenario's, routed if it names none]."
        ),
    ] = None,
    run_dir: RunDirOption = None,
    page_port: PageOption = None,
    no_page: NoPageOption = False,
    no_capture: Annotated[
        bool, typer.Option("--no-capture", help="Record no packets (bytes then come from port counters alone).")
    ] = False,
) -> None:
    """Run a scenario from bring-up to report and teardown (what `make demo` does)."""
    started_s = time.monotonic()
    from experiments.commands.session import choose_page_port, run_scenario

    report = run_scenario(
        scenario, seed=seed, seeds=seeds, data=data, label=label, method=method, run_dir=run_dir,
        page_port=choose_page_port(page_port, no_page), capture=not no_capture, console=out, started_s=started_s,
    )  # fmt: skip
    if not report["targets_met"]:
        raise typer.Exit(1)


@app.command()
def compare(
    scenario: ScenarioArgument = "healthcare",
    methods: Annotated[str, typer.Option(help="Methods, comma between them; `all` for every one.")] = "all",
    seeds: Annotated[int, typer.Option(help="Number of seeds.", min=1, max=100)] = 5,
    seed: Annotated[int, typer.Option(help="The first seed.", min=0)] = 0,
    data: DataOption = None,
    label: LabelOption = None,
    out_dir: Annotated[
        Path | None, typer.Option("--out", help="Folder for all runs [default: runs/compare-<date>-<scenario>].")
    ] = None,
    resume: Annotated[bool, typer.Option(help="Keep what was measured in --out before.")] = False,
    visits: Annotated[int, typer.Option(help="Budget of visits of one model [default: the scenario's].", min=0)] = 0,
    rounds: Annotated[int, typer.Option(help="Budget of rounds of a group [default: the scenario's].", min=0)] = 0,
    passes: Annotated[int, typer.Option(help="Budget of passes over pooled data.", min=0)] = 0,
    train_on: Annotated[bool, typer.Option("--train-on", help="Go on past the targets, to the budget's end.")] = False,
    merge: Annotated[bool, typer.Option(help="Whether MPVUs may keep part of a visit.")] = True,
) -> None:
    """Run a scenario with several methods and seeds: one table, one page of figures (accuracy against bytes, time)."""
    from experiments.comparing.command import Budget, compare_methods

    budget = Budget(visits, rounds, passes, train_on, merge)
    if not compare_methods(
        scenario, methods, range(seed, seed + seeds), data=data, label=label, out=out_dir, resume=resume, console=out,
        budget=None if budget == Budget() else budget,
    ):  # fmt: skip
        raise typer.Exit(1)


@app.command()
def up(
    scenario: ScenarioArgument = "healthcare",
    seed: SeedOption = None,
    data: DataOption = None,
    label: LabelOption = None,
    run_dir: RunDirOption = None,
    page_port: PageOption = None,
    no_page: NoPageOption = False,
    detach: Annotated[
        bool, typer.Option("--detach", "-d", help="Leave it standing in the background; `daitn down` ends it.")
    ] = False,
) -> None:
    """Bring the network up and leave it standing: Mininet's CLI here, `daitn submit` and `query` elsewhere."""
    from experiments.commands.session import choose_page_port, stand, stand_detached

    if detach:
        stand_detached(sys.argv[1:], out, err)
        return
    stand(
        scenario,
        seed=seed,
        data=data,
        label=label,
        run_dir=run_dir,
        page_port=choose_page_port(page_port, no_page),
        console=out,
    )


@app.command()
def submit(
    broad: Annotated[float, typer.Option(help="Wanted accuracy over everything, 0..1.", min=0, max=1)] = 0.80,
    expert_group: Annotated[str | None, typer.Option(help="Group in which the model must be an expert.")] = None,
    expert: Annotated[float, typer.Option(help="Wanted accuracy in that group, 0..1.", min=0, max=1)] = 0.0,
    max_visits: Annotated[int, typer.Option(help="Budget of training visits.", min=1, max=1000)] = 10,
    deadline_s: Annotated[float, typer.Option(help="Seconds until the model must be home.", min=1)] = 170.0,
    method: Annotated[str, typer.Option(help="As in `daitn run`.")] = "routed",
    seed: Annotated[int, typer.Option(help="Seed of the fresh model and the plan.", min=0)] = 0,
    owner: Annotated[str, typer.Option(help="Which model owner submits [default: the first].")] = "",
) -> None:
    """Submit a training job to the standing network and wait for the model to come home."""
    from experiments.commands.client import request, say_job

    if expert and not expert_group:
        raise ExperimentError("--expert needs --expert-group: say in which group the model must be an expert")
    spec = {
        "broad_accuracy": broad, "expert_group": expert_group, "expert_accuracy": expert, "max_visits": max_visits,
        "deadline_s": deadline_s, "method": method, "seed": seed,
    }  # fmt: skip
    result = request("submit", timeout_s=deadline_s + 120, spec=spec, owner=owner)
    say_job(result, out)
    if not result.get("targets_met"):
        raise typer.Exit(1)


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
    changes = {key: value for key, value in wanted.items() if value is not None}
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
def query(
    group: Annotated[
        str, typer.Argument(help="Group from which to draw the question, for example cardiology.")
    ] = "cardiology",
) -> None:
    """Put one question to whichever deployed model the network steers it to."""
    from experiments.commands.client import request

    answer = request("query", timeout_s=60, group=group)
    right = "right" if answer["answer"] == answer["expected"] else f"expected {answer['expected']}"
    out.print(
        f"{answer['answer']} ({right}), by {answer['answered_by']} in {answer['latency_ms']:.1f} ms", highlight=False
    )


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
    job: Annotated[str | None, typer.Argument(help="Job, by the beginning of its number [default: the last].")] = None,
    folder: FolderOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print it as JSON.")] = False,
) -> None:
    """Say why a job went where it went: attributes and ages, alternatives and their predicted cost, what came of it."""
    from experiments.commands.explain import choose_job, read_events, say
    from experiments.commands.explain import explain as explain_job
    from experiments.commands.netmap import places_of

    run_folder = _folder(folder)
    events = read_events(run_folder)
    object_id = choose_job(events, job)
    told = explain_job(events, object_id, places_of(run_folder, object_id))
    if as_json:
        out.print_json(json.dumps(told))
    else:
        say(told, out)


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
    from topologies.machine.cleanup import clean as remove

    _need_root()
    removed = remove(None)
    out.print(str(removed), highlight=False)


@app.command()
def check(
    scenario: ScenarioArgument = "healthcare",
    data: DataOption = None,
    label: LabelOption = None,
    page_port: PageOption = None,
) -> None:
    """Check machine and scenario without starting anything."""
    from experiments.commands.session import check_all

    check_all(scenario, data=data, label=label, page_port=page_port, console=out)


@app.command()
def report(
    folder: Annotated[Path, typer.Argument(help="Folder of a run.")] = Path("runs/latest"),
    as_json: Annotated[bool, typer.Option("--json", help="Print report.json.")] = False,
) -> None:
    """Show the report of a finished run again."""
    from experiments.commands.session import say_report

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
    from experiments.scenarios.scenario import load, names

    for name in names():
        out.print(f"[bold]{name:<12}[/] {load(name).description}", highlight=False)


def _need_root() -> None:
    if os.geteuid() != 0:
        raise ExperimentError("this needs root, for network namespaces and Open vSwitch; run it again with sudo")


if __name__ == "__main__":
    main()
