"""A standing network's control socket: what ``daitn submit``, ``query``, ``load`` ... elsewhere talk to.

One JSON line asks; the answer is any number of ``{"event": ...}`` lines (progress) and one last ``{"ok": ...}`` line.
"""

from __future__ import annotations

import json
import os
import signal
import socketserver
import threading
from typing import Any

import msgspec

from experiments.commands.explain import choose_job
from experiments.errors import ExperimentError, RunFailed
from experiments.job import run_job
from experiments.load import RunningLoad
from experiments.run import check_method
from experiments.run import query as ask
from experiments.scenarios.queries import NeedSpec, QueriesSpec
from experiments.scenarios.steering import check_job, own_policies
from experiments.scenarios.ways import check_model
from experiments.streams import RunningStream
from experiments.testbed.identities import Identities
from experiments.testbed.testbed import Bed
from packets.events import Event, encode_event
from packets.messages import JobSpec
from packets.queries import Variant
from packets.security.clock import unix_s

REVOKE_TIMEOUT_S = 20.0


class ControlServer:
    """Serve commands on ``<runtime>/control.sock`` until closed; one thread a command."""

    def __init__(self, bed: Bed) -> None:
        self.bed = bed
        self._loading, self._loads = threading.Lock(), 0
        self._load: RunningLoad | None = None
        self._load_ends = threading.Event()
        self._streams: dict[str, RunningStream] = {}
        self._stream_ends: dict[str, threading.Event] = {}
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

    def _op_query(
        self, _: object, group: str, text: str = "", need: dict[str, Any] | None = None, answer_to: str = "",
        way: str = "", aats: bool = False,
    ) -> dict[str, Any]:  # fmt: skip
        checked = msgspec.to_builtins(msgspec.convert(need or {}, NeedSpec))
        msgspec.convert(way, Variant)
        task = self.bed.scenario.data.name
        return ask(self.bed, task, group, text, need=checked, answer_to=answer_to, way=way, aats=aats)

    def _op_stream(
        self,
        connection: socketserver.StreamRequestHandler,
        token: str,
        group: str,
        count: int,
        need: dict[str, Any] | None = None,
        way: str = "",
    ) -> dict[str, Any]:
        """Put one query of many samples; its answers go out as they come. ``token``: what it is stopped by."""
        checked = msgspec.to_builtins(msgspec.convert(need or {}, NeedSpec))
        ends = self._stream_ends.setdefault(token, threading.Event())
        try:
            stream = self._streams[token] = RunningStream(
                self.bed, group, count, need=checked, way=msgspec.convert(way, Variant)
            )
            if ends.is_set():
                stream.stop()
            answers = []
            for answer in stream:
                answers.append(answer)
                if not _say(connection, "query.part", answer) and not stream.stopped:
                    stream.stop()
            return {**stream.figures, "stopped": stream.stopped, "answers": answers}
        finally:
            self._streams.pop(token, None)
            self._stream_ends.pop(token, None)

    def _op_stream_stop(self, _: object, token: str) -> dict[str, Any]:
        """End a stream; one that is still beginning ends when it has."""
        self._stream_ends.setdefault(token, threading.Event()).set()
        stream = self._streams.get(token)
        if stream is not None:
            stream.stop()
        return {"stopped": stream is not None}

    def _op_load(
        self, connection: socketserver.StreamRequestHandler, spec: dict[str, Any], seed: int = 0
    ) -> dict[str, Any]:
        """Have all query owners ask, until it is over, stopped, or nobody waits for it any more."""
        wanted = msgspec.convert(spec, QueriesSpec)
        if not self._loading.acquire(blocking=False):
            raise RunFailed("a load is under way already; wait for its end, or end it with Ctrl-C where it was begun")
        self._load_ends.clear()
        try:
            load = self._load = RunningLoad(self.bed, wanted, seed)
            if self._load_ends.is_set():
                load.stop()
            load.follow(_Seconds(connection, load))
            self._loads += 1
            return load.result(self.bed.folder.path / f"load-{self._loads}.csv")
        finally:
            self._load = None
            self._loading.release()

    def _op_load_stop(self, _: object) -> dict[str, Any]:
        """End the load that is under way, if any."""
        self._load_ends.set()  # one that is still beginning ends when it has
        load = self._load
        if load is not None:
            load.stop()
        return {"stopped": load is not None}

    def _op_keys(self, _: object, name: str) -> dict[str, Any]:
        """The keys of one terminal, for whoever holds this socket (root): the person at that terminal."""
        identities = self._identities(name)
        return {"keys": identities.keys(name), "directory": str(identities.directory)}

    def _identities(self, name: str) -> Identities:
        """Return the keys of all, among them those of a terminal of this name; ``ExperimentError``: there are none."""
        identities = self.bed.identities
        if identities is None:
            raise ExperimentError("this network stands with `security: off`: nobody has keys, nothing is checked")
        if name not in {h.name for h in self.bed.plan.hosts}:
            raise ExperimentError(f"no terminal is called {name!r}; `daitn status` lists them")
        return identities

    def _op_withdraw(self, _: object, name: str, offer: bool = False) -> dict[str, Any]:
        """Take a terminal out of what objects may be steered to (or offer it again), in mid-transfer too."""
        if name not in {h.name for h in self.bed.plan.hosts}:
            raise ExperimentError(f"no terminal is called {name!r}; `daitn status` lists them")
        return self.bed.tell(name, "offer" if offer else "withdraw")

    def _op_revoke(self, _: object, name: str, reason: str = "", restore: bool = False) -> dict[str, Any]:
        """Have a terminal refused everywhere (or let in again); returns once its control centre has acted on it."""
        identities = self._identities(name)
        if name in identities.revoked_names() and not restore:
            raise ExperimentError(f"{name} is revoked already; `daitn revoke {name} --restore` lets it in again")
        if name not in identities.revoked_names() and restore:
            raise ExperimentError(f"{name} is not revoked")
        mark = len(self.bed.events)
        identities.revoke(name, reason, restore=restore)
        kind = "terminal.restored" if restore else "terminal.revoked"
        told = self.bed.wait_event(kind, REVOKE_TIMEOUT_S, mark, name=name)
        return {**told.data, "revoked": sorted(identities.revoked_names())}

    def _op_down(self, _: object) -> dict[str, Any]:
        os.kill(os.getpid(), signal.SIGTERM)
        return {"pid": os.getpid()}

    def _op_change(self, _: object, job: str, **changes: Any) -> dict[str, Any]:
        """Change a running job, or stop it, as its owner."""
        events = list(self.bed.events)
        object_id = choose_job(events, job)
        owner = next(e.data["owner"] for e in events if e.kind == "job.submitted" and e.data["object_id"] == object_id)
        status = self.bed.tell(owner, "change", object_id=object_id, **changes)["status"]
        return {"job": f"{object_id:#x}", "owner": owner, **status}

    def _op_submit(
        self, connection: socketserver.StreamRequestHandler, spec: dict[str, Any], owner: str = ""
    ) -> dict[str, Any]:
        job = msgspec.convert({"task": self.bed.scenario.data.name, **spec}, JobSpec)
        check_method(job.method, self.bed.scenario.data.method)
        check_model(job.model, self.bed.scenario.ways, self.bed.scenario.data, "submit")
        check_job(job, own_policies(self.bed.scenario.jobs), job.method)
        teller = _Teller(connection)
        listening = self.bed.hub.add_listener(teller, "submit")
        try:
            return run_job(self.bed, job, owner, teller.only)
        finally:
            self.bed.hub.unsubscribe(listening)


class _Teller:
    """Forward events to a waiting client, of jobs only its own; goes quiet when the client is gone."""

    def __init__(self, connection: socketserver.StreamRequestHandler) -> None:
        self._out = connection.wfile
        self._gone = False
        self._mine: int | None = None
        self._held: list[Event] = []

    def only(self, object_id: int) -> None:
        """Say which job it is: what was held back of it goes out, that of others never does."""
        self._mine, held = object_id, self._held
        self._held = []
        for event in held:
            self(event)

    def __call__(self, event: Event) -> None:
        if self._gone or event.kind == "link.load" or (event.kind == "job.assessed" and not event.data.get("admitted")):
            return
        if "object_id" in event.data and event.data["object_id"] != self._mine:
            if self._mine is None:
                self._held.append(event)
            return
        try:
            self._out.write(b'{"event":' + encode_event(event) + b"}\n")
        except OSError:
            self._gone = True


def _say(connection: socketserver.StreamRequestHandler, kind: str, data: dict[str, Any]) -> bool:
    """Tell a waiting client something; False when it is gone."""
    event = Event(kind=kind, source="main", t_unix_s=unix_s(), data=data)
    try:
        connection.wfile.write(b'{"event":' + encode_event(event) + b"}\n")
    except OSError:
        return False
    return True


class _Seconds:
    """Tell a waiting client of a load second by second; stops the load when the client is gone."""

    def __init__(self, connection: socketserver.StreamRequestHandler, load: RunningLoad) -> None:
        self._connection, self._load = connection, load

    def __call__(self, second: dict[str, Any]) -> None:
        if not _say(self._connection, "load.progress", second) and not self._load.stopped:
            self._load.stop()
