"""What ``daitn submit``, ``query``, ``status`` and ``down`` do: ask the standing network over its control socket."""

from __future__ import annotations

import json
import socket
import time
from pathlib import Path
from typing import Any

import msgspec
from rich.console import Console
from rich.table import Table

from experiments.commands.progress import Progress, say_rejected
from experiments.commands.words import make_console, shown
from experiments.errors import ExperimentError, NoTestbed, RunFailed
from packets.events import Event
from topologies.machine.ledger import RUN_BASE
from topologies.machine.preflight import locked_run


def standing_socket() -> Path | None:
    """Return the control socket of the standing network, if one answers."""
    for path in sorted(RUN_BASE.glob("*/control.sock")):
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
                probe.connect(str(path))
            return path
        except OSError:
            continue
    return None


def request(op: str, timeout_s: float, *, quiet: bool = False, **arguments: Any) -> dict[str, Any]:
    """Ask the standing network; shows progress while it works (``quiet``: none); raises what it answers with."""
    path = standing_socket()
    if path is None:
        if (run := locked_run()) is not None:
            raise NoTestbed(
                f"run {run} is under way and takes no commands; wait for its end, or use `daitn up` next time"
            )
        raise NoTestbed("no network is standing; start one with `daitn up` (or do everything at once with `daitn run`)")
    progress = Progress(make_console(stderr=quiet))
    if quiet:
        progress.close()
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(timeout_s)
            connection.connect(str(path))
            connection.sendall(json.dumps({"op": op, **arguments}).encode() + b"\n")
            return _answer(connection.makefile("rb"), progress)
    except OSError as error:
        raise RunFailed(f"the standing network did not answer {op!r}: {error}") from None
    finally:
        progress.close()


def _answer(lines: Any, progress: Progress) -> dict[str, Any]:
    for line in lines:
        said = json.loads(line)
        if "event" in said:
            progress(msgspec.convert(said["event"], Event))
        elif said["ok"]:
            result: dict[str, Any] = said["result"]
            return result
        else:
            raise (ExperimentError if said.get("bad_input") else RunFailed)(said["error"])
    raise RunFailed("the standing network ended before it answered")


def bring_down(console: Console) -> None:
    """End the standing network and wait until its runtime folder is gone."""
    pid = request("down", 10)["pid"]
    end = time.monotonic() + 30
    while Path(f"/proc/{pid}").exists():
        if time.monotonic() > end:
            raise RunFailed(
                f"process {pid} still tears down after 30 s; `daitn clean` removes what is left once it has ended"
            )
        time.sleep(0.05)
    console.print("torn down", highlight=False)


def say_job(result: dict[str, Any], console: Console) -> None:
    """Print the end of a submitted job."""
    if result["state"] == "rejected":
        say_rejected(result["assessments"][-1], console)
        return
    expert = f", {shown(result['expert_group'])} {result['accuracy']['expert']:.3f}" if result["expert_group"] else ""
    verdict = "[green]targets met[/]" if result["targets_met"] else "[yellow]targets missed[/]"
    console.print(
        f"{verdict}: broad {result['accuracy']['broad']:.3f}{expert} after {len(result['route'])} training visits",
        highlight=False,
    )
    console.print(f"model and training log: {result['model']}", highlight=False, soft_wrap=True)


def _state(host: dict[str, Any]) -> str:
    """Return what a terminal is doing; one that is withdrawn says so, whatever it still works on."""
    if host.get("revoked"):
        return "revoked"
    withdrawn = host.get("attributes", {}).get("reachable") is False and host.get("ready")
    return f"withdrawn ({host['state']})" if withdrawn else str(host.get("state", ""))


def say_status(answer: dict[str, Any], console: Console) -> None:
    """Print a table of the standing network's terminals, and its jobs."""
    state = answer["state"]
    console.print(
        f"run {answer['run']}, results in {answer['folder']}" + (f", page {answer['page']}" if answer["page"] else ""),
        highlight=False,
    )
    table = Table(box=None, padding=(0, 2, 0, 0))
    for column in ("terminal", "role", "K-AS", "address", "state"):
        table.add_column(column)
    for host in state["terminals"].values():
        known = [str(host.get(k, "")) for k in ("name", "role", "kas", "address")]
        table.add_row(*known, _state(host))
    console.print(table)
    for job in state["jobs"].values():
        figures = " ".join(f"{k} {job[k]:.3f}" for k in ("broad", "expert") if isinstance(job.get(k), float))
        console.print(f"job {int(job['object_id']):#x} of {job['owner']}: {job['state']} {figures}", highlight=False)
