"""A sweep over several machines: Dask's scheduler hands cells out, one at a time to a worker, one worker a machine.

The engine is an optional extra (docs/sweeps.md says why this one). It places cells, and places those of a machine that
dies anew; what it brings home is written here, so that a cell is in the table once, wherever and how often it began.
"""

from __future__ import annotations

import importlib.util
import logging
import os
import re
import secrets
import socket
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from experiments.errors import ExperimentError, RunFailed
from experiments.scenarios.scenario import dump
from experiments.sweeping.cells import Cell, Done, carry_out
from experiments.sweeping.runner import How
from topologies.machine.preflight import check_root
from topologies.sandbox.sandbox import environment

if TYPE_CHECKING:
    from distributed import Client

PACKAGE = "distributed==2026.8.0"
RESOURCE = "testbed"  # a worker has one: so many runs at a time
ADDRESS = re.compile(r"(tcp|tls|ws|wss)://[^\s/]+:\d{1,5}")
WORKERS_TIMEOUT_S = 30.0
SCHEDULER_TIMEOUT_S = 10.0


def need_engine() -> None:
    """Check that the engine is installed; ``ExperimentError`` says how."""
    if importlib.util.find_spec("distributed") is None:
        raise ExperimentError(
            f"a sweep over machines needs an extra: {sys.executable} -m pip install {PACKAGE} (on each machine)"
        )


def check_address(address: str) -> None:
    """Check the form of a scheduler's address; ``ExperimentError`` names the one that is meant."""
    if not ADDRESS.fullmatch(address):
        raise ExperimentError(f"{address!r} is no address of a scheduler: give it as that says it, tcp://HOST:PORT")


def unique_name() -> str:
    """Return this machine's name with a word of its own: a scheduler takes no second worker of a name, and copies of
    a machine all have one.
    """
    return f"{socket.gethostname()}-{secrets.token_hex(2)}"


def work_for(address: str, name: str) -> None:
    """Become the worker of this machine; does not return."""
    need_engine()
    check_address(address)
    check_root()
    words = [sys.executable, "-m", "distributed.cli.dask_worker", address, "--name", name or unique_name()]
    words += ["--nthreads", "1", "--no-nanny", "--no-dashboard", "--memory-limit", "0", "--resources", f"{RESOURCE}=1"]
    sys.stderr.write(f"works for {address}, and waits for it while nobody answers there; Ctrl-C ends it\n")
    sys.stderr.flush()
    os.execve(sys.executable, words, environment())


def connect(address: str) -> Client:
    """Return a connection to a scheduler that has workers of ours; ``ExperimentError`` says what is missing."""
    need_engine()
    check_address(address)
    from distributed import Client

    logging.getLogger("distributed").setLevel(logging.CRITICAL)  # what matters is said here, in one line
    try:
        client = Client(address, timeout=SCHEDULER_TIMEOUT_S, name="daitn-sweep", set_as_default=False)
    except (OSError, ValueError) as error:
        raise ExperimentError(
            f"no scheduler answers at {address} ({str(error).splitlines()[0]}): start one with `dask scheduler`"
        ) from None
    try:
        machines(client)
    except BaseException:
        client.close()
        raise
    return client


def run_over(client: Client, cells: Sequence[Cell], say: Callable[[Cell, tuple[Done | None, str]], None]) -> None:
    """Have all cells run by the workers of a scheduler; ``say`` hears of each once, as it comes home."""
    from distributed import CancelledError, KilledWorker, as_completed

    futures = {
        client.submit(run_cell, cell.name, dump(cell.scenario), pure=False, resources={RESOURCE: 1}): cell
        for cell in cells
    }
    try:
        for future in as_completed(list(futures), loop=client.loop):
            try:
                came = future.result()
            except KilledWorker:
                came = None, "too many machines died over it"
            except (CancelledError, OSError):
                raise RunFailed(
                    f"the scheduler at {client.scheduler.address} is gone; what is finished is kept: start it and its "
                    "workers again, then say the same with --out and this folder"
                ) from None
            say(futures[future], came)
            future.release()
    finally:
        client.cancel(list(futures), force=True)


def machines(client: Client) -> list[str]:
    """Return the names of the machines that have a worker of ours; ``ExperimentError`` when none has."""
    address = client.scheduler.address
    try:
        client.wait_for_workers(1, timeout=WORKERS_TIMEOUT_S)
    except TimeoutError:
        raise ExperimentError(f"no machine works for {address}: say `daitn worker {address}` on each") from None
    workers = client.scheduler_info(n_workers=-1)["workers"].values()
    names = sorted(str(worker["name"]) for worker in workers if worker.get("resources", {}).get(RESOURCE))
    if not names:
        raise ExperimentError(f"no worker of {address} is a testbed's: start them with `daitn worker {address}`")
    return names


def run_cell(name: str, scenario: bytes) -> tuple[Done | None, str]:
    """Run a cell on this machine, for a sweep elsewhere; what it wrote here goes when it has been read."""
    from distributed import get_worker

    with tempfile.TemporaryDirectory(prefix="daitn-cell-") as folder:
        done, fault = carry_out(Path(folder), name, scenario, How(_Unwanted(), apart=True))
    machine = str(get_worker().name)
    return (None, f"{machine}: {fault}") if done is None else (msgspec.structs.replace(done, machine=machine), fault)


class _Unwanted:
    """Set when nobody waits for the running task any more: its sweep was stopped, or its process is gone."""

    def __init__(self) -> None:
        from distributed import get_worker

        worker = get_worker()
        self._task = worker.state.tasks[worker.get_current_task()]

    def is_set(self) -> bool:
        return bool(self._task.state == "cancelled")
