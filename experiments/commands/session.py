"""What the commands do: resolve a scenario with what was said on the command line, run it, or leave it standing."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

from rich.console import Console

from controller.oam.page import DEFAULT_PORT
from experiments.cluster.where import Where
from experiments.commands.client import standing_socket
from experiments.commands.control import ControlServer
from experiments.commands.engines import check_engines, try_engines, try_metrics
from experiments.commands.progress import Progress, say_report
from experiments.commands.resolving import Said, resolve, resolve_without_data, told
from experiments.errors import ExperimentError, RunFailed
from experiments.run import Run, allow, check_method, gather
from experiments.scenarios.kinds import all_kinds, summary
from experiments.scenarios.network import lacking
from experiments.scenarios.scenario import Scenario, check_autonomy, network_plan
from experiments.testbed import disk
from experiments.testbed.apart import inherited_page
from experiments.testbed.folder import RunFolder
from experiments.testbed.testbed import FIRST_OPENFLOW_PORT, Bed
from topologies.machine.preflight import check_alone, check_files, check_machine, check_names, check_root, port_owner

RUNS = Path("runs")
ON_ONE = Where()
DETACHED_VARIABLE = "DAITN_DETACHED"
DETACHED_START_S = 120.0


def choose_page_port(wanted: int | None, no_page: bool) -> int | None:
    """Return the page's port: the one asked for, else the default, or 0 (any free one) where that is taken."""
    if no_page or wanted is not None:
        return None if no_page else wanted
    return DEFAULT_PORT if not port_owner(DEFAULT_PORT) else 0


def need_root() -> None:
    """Check that this process may make networks; ``ExperimentError`` otherwise."""
    if os.geteuid() != 0:
        raise ExperimentError("this needs root, for network namespaces and Open vSwitch; run it again with sudo")


@contextlib.contextmanager
def _standing(
    scenario: Scenario, run_dir: Path | None, page_port: int | None, capture: bool, console: Console,
    where: Where = ON_ONE,
) -> Iterator[tuple[Bed, Progress]]:  # fmt: skip
    need_root()
    where.check(scenario)
    check_files(network_plan(scenario))
    folder = RunFolder.create(RUNS, scenario.name, scenario.seed, run_dir)
    progress = Progress(console)
    try:
        disk.check_before(folder.path)
        page_port, listener = inherited_page(page_port)
        with where.bed(scenario, folder, page_port=page_port, capture=capture, listener=listener) as bed:
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
        if isinstance(error, KeyboardInterrupt) and folder.path.exists():
            console.print(f"recorded until then: {folder.path}", highlight=False, soft_wrap=True)
        raise
    finally:
        progress.close()


def run_scenario(
    name: str,
    said: Said,
    *,
    method: str | None,
    run_dir: Path | None,
    page_port: int | None,
    capture: bool,
    console: Console,
    started_s: float,
    where: Where = ON_ONE,
) -> dict[str, Any]:
    """Carry a scenario out from bring-up to teardown; return the report. ``method``: None for the scenario's own."""
    if method and ":" in method:
        method, said = "own", said | {"method": method}
    scenario = resolve(name, tell=told(console), **said)
    check_methods(scenario, method)
    check_engines(scenario)
    method = method or scenario.jobs[0].method
    scenario = allow(scenario, method)
    with _standing(scenario, run_dir, page_port, capture, console, where) as (bed, progress):
        report = Run(bed, method=method).carry_out(started_s)
        progress.close()
    say_report(report, bed.folder.path, console)
    console.print(f"torn down; {time.monotonic() - started_s:.1f} s in all", highlight=False)
    return report


def stand(name: str, said: Said, *, run_dir: Path | None, page_port: int | None, console: Console) -> None:
    """Bring the testbed up and keep it until the CLI is left, `daitn down`, or a signal."""
    scenario = resolve(name, tell=told(console), **said)
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
            check_method(name, scenario.data.method)
    check_autonomy(scenario, scenario.name, method)


def check_all(name: str, said: Said, *, page_port: int | None, console: Console) -> None:
    """Check scenario, then machine; every problem is an error that says what to do."""
    if said["data"] is not None or said["task"] is not None:
        scenario = resolve(name, tell=told(console), **said)
    else:
        scenario = resolve_without_data(name, engines=said["engines"], topo=said["topo"])
    check_methods(scenario)
    plan = network_plan(scenario)
    check_files(plan)
    terminals = sum(h.role != "host" for h in plan.hosts)
    console.print(
        f"[green]✓[/] scenario {scenario.name}: {len(plan.kas_numbers)} K-AS, {len(plan.switches)} switches, "
        f"{terminals} terminals, {len(plan.links)} links, {len(scenario.jobs)} job(s)", highlight=False
    )  # fmt: skip
    console.print(f"[green]✓[/] {summary(all_kinds(scenario.kas, plan))}", highlight=False, soft_wrap=True)
    for note in lacking(plan, asks=scenario.query is not None):
        console.print(f"[yellow]![/] {note}", highlight=False, soft_wrap=True)
    try_engines(scenario, console)
    try_metrics(scenario, console)
    check_root()
    check_alone()
    for line in check_machine(ports=[FIRST_OPENFLOW_PORT + k - 1 for k in plan.kas_numbers], page_port=page_port):
        console.print(f"[green]✓[/] {line}", highlight=False)
    check_names(plan)
