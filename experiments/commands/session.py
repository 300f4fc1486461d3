"""What the commands do: resolve a scenario with what was said on the command line, run it, or leave it standing."""

from __future__ import annotations

import contextlib
import difflib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, TextIO

import msgspec
from rich.console import Console

from controller.oam.page import DEFAULT_PORT
from experiments.commands.client import standing_socket
from experiments.commands.control import ControlServer
from experiments.commands.engines import check_engines, try_engines, with_words
from experiments.commands.progress import Progress, say_report
from experiments.errors import ExperimentError, RunFailed
from experiments.run import Run, allow, check_method, gather
from experiments.scenarios.scenario import Scenario, load, network_plan, with_topo
from experiments.testbed import disk
from experiments.testbed.folder import RunFolder
from experiments.testbed.testbed import FIRST_OPENFLOW_PORT, Bed
from hosts.learning.data.clinic import DISEASES
from topologies.machine.preflight import check_files, check_machine, port_owner

RUNS = Path("runs")
DETACHED_VARIABLE = "DAITN_DETACHED"
DETACHED_START_S = 120.0


def choose_page_port(wanted: int | None, no_page: bool) -> int | None:
    """Return the page's port: the one asked for, else the default, or 0 (any free one) where that is taken."""
    if no_page or wanted is not None:
        return None if no_page else wanted
    return DEFAULT_PORT if not port_owner(DEFAULT_PORT) else 0


def resolve(
    name: str | Scenario,
    *,
    seed: int | None = None,
    seeds: int | None = None,
    data: Path | None = None,
    label: str | None = None,
    columns: Sequence[str] = (),
    engines: Sequence[str] = (),
    topo: str | None = None,
    tell: Callable[[str], None] = lambda note: None,
) -> Scenario:
    """Load a scenario and lay the command line over it; checks that its data can be read.

    ``tell``: hears what of the data is left aside, and what is used.
    """
    scenario = with_words(load(name) if isinstance(name, str) else name, engines)
    scenario = with_topo(scenario, topo) if topo else scenario
    changes: dict[str, Any] = {}
    if seed is not None:
        changes["seed"] = seed
    if seeds is not None:
        changes["seeds"] = seeds
    if data is not None:
        changes["data"] = _data_spec(scenario, data, label, columns)
        changes["jobs"] = [msgspec.structs.replace(j, task=changes["data"].name) for j in scenario.jobs]
    elif label is not None or columns:
        raise ExperimentError("--label and --columns name columns of --data FILE; give --data as well")
    scenario = msgspec.structs.replace(scenario, **changes)
    if scenario.data.name == "vignettes":
        _fit_jobs(scenario, list(DISEASES))
    else:
        if not scenario.data.data and scenario.data.name != "digits":
            raise ExperimentError(f"scenario {scenario.name} needs real data: give it with --data PATH")
        from hosts.learning.task import load_task  # brings PyTorch along: not for every command

        task = load_task(scenario.data)
        for note in task.notes:
            tell(note)
        _fit_jobs(scenario, task.groups)
    return scenario


def told(console: Console) -> Callable[[str], None]:
    """Return what says a note on data on a console."""
    return lambda note: console.print(f"data: {note}", highlight=False, markup=False, style="dim")


def _data_spec(scenario: Scenario, path: Path, label: str | None, columns: Sequence[str]) -> Any:
    if not path.exists():
        raise ExperimentError(f"--data {path} does not exist; give a directory (UCI heart disease) or a CSV/JSONL file")
    spec = scenario.data
    if path.is_file():
        spec = msgspec.structs.replace(spec, name=_kind_of(path, label or spec.label_column, columns))
    elif spec.name == "vignettes":
        spec = msgspec.structs.replace(spec, name="table")
    partition = "natural" if path.is_dir() else "dirichlet"
    return msgspec.structs.replace(
        spec,
        data=str(path.resolve()),
        partition=partition,
        label_column=label or spec.label_column,
        columns=[*columns],
    )


def _kind_of(file: Path, label: str, columns: Sequence[str]) -> Literal["table", "text"]:
    from hosts.learning.data.encode import is_prose
    from hosts.learning.data.read import read_rows

    return "text" if is_prose(read_rows(str(file), label, columns)) else "table"


def _fit_jobs(scenario: Scenario, groups: list[str]) -> None:
    wanted = {job.expert_group for job in scenario.jobs} | ({scenario.query.group} if scenario.query else set())
    for group in sorted(g for g in wanted if g and g not in groups):
        near = difflib.get_close_matches(group, groups, 1)
        raise ExperimentError(
            f"scenario {scenario.name}: group {group!r} is not in the data; "
            + (f"did you mean {near[0]!r}?" if near else f"its groups are: {', '.join(groups)}")
        )


def need_root() -> None:
    """Check that this process may make networks; ``ExperimentError`` otherwise."""
    if os.geteuid() != 0:
        raise ExperimentError("this needs root, for network namespaces and Open vSwitch; run it again with sudo")


@contextlib.contextmanager
def _standing(
    scenario: Scenario, run_dir: Path | None, page_port: int | None, capture: bool, console: Console
) -> Iterator[tuple[Bed, Progress]]:
    need_root()
    check_files(network_plan(scenario))
    folder = RunFolder.create(RUNS, scenario.name, scenario.seed, run_dir)
    progress = Progress(console)
    try:
        disk.check_before(folder.path)
        with Bed(scenario, folder, page_port=page_port, capture=capture) as bed:
            folder.publish()
            bed.hub.add_listener(progress)
            if bed.page:
                console.print(f"page       {bed.page.url}", highlight=False)
            try:
                yield bed, progress
            finally:
                progress.close()
    except BaseException as error:
        if not isinstance(error, SystemExit):  # `daitn down` is no failure
            folder.withdraw()
        folder.remove_if_empty()
        raise
    finally:
        progress.close()


def run_scenario(
    name: str,
    *,
    seed: int | None,
    seeds: int | None,
    data: Path | None,
    label: str | None,
    columns: Sequence[str],
    method: str | None,
    engines: Sequence[str],
    topo: str | None,
    run_dir: Path | None,
    page_port: int | None,
    capture: bool,
    console: Console,
    started_s: float,
) -> dict[str, Any]:
    """Carry a scenario out from bring-up to teardown; return the report. ``method``: None for the scenario's own."""
    scenario = resolve(
        name,
        seed=seed,
        seeds=seeds,
        data=data,
        label=label,
        columns=columns,
        engines=engines,
        topo=topo,
        tell=told(console),
    )
    check_methods(scenario, method)
    check_engines(scenario)
    method = method or scenario.jobs[0].method
    scenario = allow(scenario, method)
    with _standing(scenario, run_dir, page_port, capture, console) as (bed, progress):
        report = Run(bed, method=method).carry_out(started_s)
        progress.close()
    say_report(report, bed.folder.path, console)
    console.print(f"torn down; {time.monotonic() - started_s:.1f} s in all", highlight=False)
    return report


def stand(
    name: str,
    *,
    seed: int | None,
    data: Path | None,
    label: str | None,
    columns: Sequence[str],
    engines: Sequence[str],
    topo: str | None,
    run_dir: Path | None,
    page_port: int | None,
    console: Console,
) -> None:
    """Bring the testbed up and keep it until the CLI is left, `daitn down`, or a signal."""
    scenario = resolve(
        name, seed=seed, data=data, label=label, columns=columns, engines=engines, topo=topo, tell=told(console)
    )
    check_engines(scenario)
    with _standing(scenario, run_dir, page_port, True, console) as (bed, progress):
        run = Run(bed)
        bed.folder.write_manifest(seed=scenario.seed, run_id=bed.run_id)
        run.bring_up(scenario.seed)
        if bed.terminals("mpvu"):
            with run.phase("gather"):
                gather(bed)
        signal.signal(signal.SIGTERM, _leave)  # until here it means Ctrl-C; from here on it is `daitn down`
        server = ControlServer(bed)
        server.start()
        progress.close()
        try:
            _keep(bed, console)
        finally:
            server.close()


def _keep(bed: Bed, console: Console) -> None:
    while os.environ.get(DETACHED_VARIABLE):
        time.sleep(1.0)  # signals end it; pause() would miss one that comes just before
    from mininet.cli import CLI

    console.print(
        "the network stands; `daitn submit`, `daitn query`, `daitn status` in another terminal; `exit` here ends it",
        highlight=False,
    )
    CLI(bed.network)


def _leave(*_: object) -> None:
    raise SystemExit(0)


def stand_detached(arguments: list[str], console: Console, errors: Console) -> None:
    """Start ``daitn up`` in the background and return when its network stands; what stops it goes to ``errors``."""
    need_root()
    arguments = [a for a in arguments if a not in ("--detach", "-d")]
    if (there := standing_socket()) is not None:
        raise ExperimentError(
            f"a network is standing already (run {there.parent.name}); use it, or end it with `daitn down`"
        )
    RUNS.mkdir(exist_ok=True)
    log = RUNS / "up.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "experiments.cli", *arguments],
            stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True,
            env=os.environ | {DETACHED_VARIABLE: "1"},
        )  # fmt: skip
    try:
        _follow(process, log, console, errors)
    except BaseException:  # Ctrl-C above all: what is not up yet comes down again
        process.terminate()
        process.wait()
        raise
    console.print("the network stands; `daitn submit`, `daitn query`, `daitn status`, `daitn down`", highlight=False)


def _follow(process: subprocess.Popen[bytes], log: Path, console: Console, errors: Console) -> None:
    """Show what the process in the background says until its network stands; end with it when it ends."""
    end = time.monotonic() + DETACHED_START_S
    with log.open() as said:
        while standing_socket() is None:
            ended = process.poll() is not None
            _echo(said, console, errors)
            if ended:
                sys.exit(process.returncode or 1)
            if time.monotonic() > end:
                raise RunFailed(f"the network did not come up within {DETACHED_START_S:.0f} s; see {log}")
            time.sleep(0.05)
        _echo(said, console, errors)


def _echo(said: TextIO, console: Console, errors: Console) -> None:
    for line in said.read().splitlines():
        where = errors if line.startswith("error:") else console
        where.print(line, highlight=False, markup=False, soft_wrap=True)


def check_methods(scenario: Scenario, method: str | None = None) -> None:
    """Check the methods of a scenario's jobs and the one asked for; ``ExperimentError`` names the one that is none."""
    for name in [method, *(job.method for job in scenario.jobs)]:
        if name is not None:
            check_method(name)


def check_all(
    name: str,
    *,
    data: Path | None,
    label: str | None,
    columns: Sequence[str],
    engines: Sequence[str],
    topo: str | None,
    page_port: int | None,
    console: Console,
) -> None:
    """Check scenario, then machine; every problem is an error that says what to do."""
    scenario = (
        resolve_without_data(name)
        if data is None
        else resolve(name, data=data, label=label, columns=columns, tell=told(console))
    )
    scenario = with_words(scenario, engines)
    scenario = with_topo(scenario, topo) if topo else scenario
    check_methods(scenario)
    plan = network_plan(scenario)
    check_files(plan)
    terminals = sum(h.role != "host" for h in plan.hosts)
    console.print(
        f"[green]✓[/] scenario {scenario.name}: {len(plan.kas_numbers)} K-AS, {len(plan.switches)} switches, "
        f"{terminals} terminals, {len(plan.links)} links, {len(scenario.jobs)} job(s)", highlight=False
    )  # fmt: skip
    try_engines(scenario, console)
    for line in check_machine(ports=[FIRST_OPENFLOW_PORT + k - 1 for k in plan.kas_numbers], page_port=page_port):
        console.print(f"[green]✓[/] {line}", highlight=False)


def resolve_without_data(name: str) -> Scenario:
    """Load a scenario for a check that does not need its data."""
    scenario = load(name)
    if scenario.data.name == "vignettes":
        _fit_jobs(scenario, list(DISEASES))
    return scenario
