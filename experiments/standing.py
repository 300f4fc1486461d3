"""A standing network's control socket: what ``daitn submit``, ``query``, ``status``, ``down`` elsewhere talk to.

One JSON line asks; the answer is any number of ``{"event": ...}`` lines (progress) and one last ``{"ok": ...}`` line.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import socketserver
import threading
import time
from pathlib import Path
from typing import Any

import msgspec
from rich.console import Console
from rich.table import Table

from experiments.errors import ExperimentError, NoTestbed, RunFailed
from experiments.progress import Progress
from experiments.report import Outcome, summarise
from experiments.run import deploy, submit
from experiments.run import query as ask
from experiments.testbed import RUNTIME_ROOT, Testbed
from packets.events import Event, encode_event
from packets.messages import JobSpec


class ControlServer:
    """Serve commands on ``<runtime>/control.sock`` until closed; one thread a command."""

    def __init__(self, bed: Testbed) -> None:
        self.bed = bed
        path = bed.runtime / "control.sock"
        path.unlink(missing_ok=True)
        self._server = socketserver.ThreadingUnixStreamServer(str(path), self._handler())
        self._server.daemon_threads = True
        path.chmod(0o600)

    def start(self) -> None:
        threading.Thread(target=self._server.serve_forever, name="control", daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _handler(self) -> type[socketserver.StreamRequestHandler]:
        serve = self._serve

        class Handler(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                serve(self)

        return Handler

    def _serve(self, connection: socketserver.StreamRequestHandler) -> None:
        try:
            request = json.loads(connection.rfile.readline(65536))
            operation = getattr(self, f"_op_{request['op']}")
            answer = {"ok": True, "result": operation(connection, **{k: v for k, v in request.items() if k != "op"})}
        except (ExperimentError, RunFailed) as error:
            answer = {"ok": False, "error": str(error), "bad_input": isinstance(error, ExperimentError)}
        except (ValueError, KeyError, TypeError, AttributeError, msgspec.ValidationError) as error:
            answer = {"ok": False, "error": f"the command was not understood: {error}", "bad_input": True}
        try:
            connection.wfile.write(json.dumps(answer).encode() + b"\n")
        except OSError:
            return  # who asked is gone

    def _op_status(self, _: object) -> dict[str, Any]:
        snapshot: dict[str, Any] = self.bed.state.snapshot()
        page = self.bed.page.url if self.bed.page else None
        return {"run": self.bed.run_id, "folder": str(self.bed.folder.path), "page": page, "state": snapshot}

    def _op_query(self, _: object, group: str) -> dict[str, Any]:
        return ask(self.bed, self.bed.scenario.data.name, group)

    def _op_down(self, _: object) -> dict[str, Any]:
        os.kill(os.getpid(), signal.SIGTERM)
        return {"pid": os.getpid()}

    def _op_submit(self, connection: socketserver.StreamRequestHandler, spec: dict[str, Any]) -> dict[str, Any]:
        job = msgspec.convert({"task": self.bed.scenario.data.name, **spec}, JobSpec)
        listening = self.bed.hub.add_listener(_Teller(connection), "submit")
        try:
            return self._run_job(job)
        finally:
            self.bed.hub.unsubscribe(listening)

    def _run_job(self, job: JobSpec) -> dict[str, Any]:
        bed = self.bed
        outcome = Outcome(seed=job.seed, first_event=len(bed.events), spec=job)
        reply = submit(bed, job)
        outcome.assessments.append(msgspec.to_builtins(job) | reply)
        outcome.object_id = reply["object_id"]
        if reply["admitted"]:
            bed.wait_event("object.returned", job.deadline_s + 30, outcome.first_event, object_id=outcome.object_id)
            bed.wait_event("job.finished", 30, outcome.first_event, object_id=outcome.object_id)
            if bed.terminals("mdfp"):
                deploy(bed, outcome.object_id)
        return summarise(outcome, bed.events, {h.name: h.kas for h in bed.plan.hosts})


class _Teller:
    """Forward events to a waiting client; goes quiet when the client is gone."""

    def __init__(self, connection: socketserver.StreamRequestHandler) -> None:
        self._out = connection.wfile
        self._gone = False

    def __call__(self, event: Event) -> None:
        if self._gone or event.kind == "link.load":
            return
        try:
            self._out.write(b'{"event":' + encode_event(event) + b"}\n")
        except OSError:
            self._gone = True


def standing_socket() -> Path | None:
    """Return the control socket of the standing network, if one answers."""
    for path in sorted(RUNTIME_ROOT.glob("*/control.sock")):
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
                probe.connect(str(path))
            return path
        except OSError:
            continue
    return None


def request(op: str, timeout_s: float, **arguments: Any) -> dict[str, Any]:
    """Ask the standing network; shows progress while it works; raises what it answers with."""
    path = standing_socket()
    if path is None:
        raise NoTestbed("no network is standing; start one with `daitn up` (or do everything at once with `daitn run`)")
    progress = Progress(Console())
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
        return
    expert = f", {result['expert_group']} {result['accuracy']['expert']:.3f}" if result["expert_group"] else ""
    verdict = "[green]targets met[/]" if result["targets_met"] else "[yellow]targets missed[/]"
    console.print(
        f"{verdict}: broad {result['accuracy']['broad']:.3f}{expert} after {len(result['route'])} training visits",
        highlight=False,
    )


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
    for host in _values(state.get("hosts", {})):
        table.add_row(*(str(host.get(k, "")) for k in ("name", "role", "kas", "address", "state")))
    console.print(table)
    for job in _values(state.get("jobs", {})):
        figures = " ".join(f"{k} {job[k]}" for k in ("state", "broad", "expert") if job.get(k) is not None)
        console.print(f"job {job.get('object_id')}: {figures}", highlight=False)


def _values(mapping_or_list: Any) -> list[dict[str, Any]]:
    return list(mapping_or_list.values()) if isinstance(mapping_or_list, dict) else list(mapping_or_list)
