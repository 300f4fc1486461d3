"""The status page of a running network: HTML, JSON, a live event stream and Prometheus metrics, on loopback, read-only.

Nothing here changes the network, and nothing on the page comes from, or goes to, another machine: own files only, held
to that by the Content-Security-Policy.  A name that a stranger's DNS points at 127.0.0.1 is refused by its Host header.
"""

from __future__ import annotations

import errno
import ipaddress
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

import msgspec
from flask import Flask, Response, abort, render_template, request
from werkzeug.serving import BaseWSGIServer, WSGIRequestHandler, make_server

from controller.oam.errors import PageError
from controller.oam.hub import EventHub
from controller.oam.metrics import Metrics
from controller.oam.state.run import NetworkState
from controller.oam.stream import EventStreams

DEFAULT_PORT = 8080
MAX_STREAMS = 16
MAX_EVENTS = 1000
DRAWN = ("switches", "terminals", "links")
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "manifest-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Cache-Control": "no-store",
}


def create_app(
    state: NetworkState,
    hub: EventHub | None = None,
    metrics: Metrics | None = None,
    *,
    max_streams: int = MAX_STREAMS,
    keep_alive_s: float = 5.0,
) -> Flask:
    """Return the page's Flask app over a state (and metrics) that its caller feeds from the hub.

    ``hub`` is only read for its counters; ``None`` when a finished run is replayed.
    """
    app = Flask("controller.oam", static_folder="static", template_folder="templates")
    app.json.sort_keys = False  # type: ignore[attr-defined]
    figures = metrics or Metrics()
    streams = EventStreams(state, limit=max_streams, keep_alive_s=keep_alive_s)
    app.extensions["daitn_streams"] = streams
    app.before_request(_refuse_foreign_hosts)
    app.after_request(_harden)
    _add_page(app, state, streams)
    _add_api(app, state, hub)
    _add_operations(app, state, hub, figures, streams)
    return app


def _add_page(app: Flask, state: NetworkState, streams: EventStreams) -> None:
    @app.get("/")
    def page() -> str:
        return render_template("page.html")

    @app.get("/events")
    def events() -> Response:
        body = streams.open(request.headers.get("Last-Event-ID", ""))
        if body is None:
            return _json({"error": f"{streams.limit} event streams are open already; close a page first"}, 503)
        return Response(body, mimetype="text/event-stream", headers={"X-Accel-Buffering": "no"})


def _add_api(app: Flask, state: NetworkState, hub: EventHub | None) -> None:
    @app.get("/api/state")
    def whole_state() -> Response:
        return _json({**state.snapshot(), "collector": hub.stats() if hub else None})

    @app.get("/api/jobs")
    def jobs() -> Response:
        return _json(list(state.section("jobs").values()))

    @app.get("/api/jobs/<job_id>")
    def job(job_id: str) -> Response:
        found = state.section("jobs").get(job_id)
        return _json(found) if found else _json({"error": f"no job {job_id[:40]}; see /api/jobs"}, 404)

    @app.get("/api/hosts")
    def hosts() -> Response:
        return _json(list(state.section("terminals").values()))

    @app.get("/api/network")
    def network() -> Response:
        return _json({name: list(state.section(name).values()) for name in ("kas", "switches", "links", "objects")})

    @app.get("/api/map")
    def network_map() -> Response:
        return _json({"terminals": state.section("terminals"), "kas": state.section("kas")})

    @app.get("/map.svg")
    def drawing() -> Response:
        from controller.oam.drawing import svg

        return Response(svg({name: state.section(name) for name in DRAWN}), mimetype="image/svg+xml")

    @app.get("/api/events")
    def recent() -> Response:
        after, limit = request.args.get("after", 0, int), request.args.get("limit", 200, int)
        return _json(state.events_after(after, min(limit, MAX_EVENTS)))


def _add_operations(
    app: Flask, state: NetworkState, hub: EventHub | None, metrics: Metrics, streams: EventStreams
) -> None:
    @app.get("/metrics")
    def exposition() -> Response:
        counters: dict[str, Any] = hub.stats() if hub else {}
        for listener, its in counters.pop("listeners", {}).items():
            metrics.set("daitn_listener_dropped", its["dropped"], listener=listener)
        for name, value in counters.items():
            metrics.set("daitn_collector", value, counter=name)
        metrics.set("daitn_page_streams", streams.count)
        return Response(metrics.render(), mimetype="text/plain; version=0.0.4")

    @app.get("/healthz")
    def healthz() -> Response:
        return _json({"status": "ok", "last_event_id": state.last_id, "streams": streams.count})

    @app.errorhandler(404)
    def missing(_: Exception) -> Response:
        pages = "/ /api/state /api/jobs /api/hosts /api/network /api/map /map.svg /metrics"
        return _json({"error": f"no such page; there are {pages}"}, 404)


def _json(value: object, status: int = 200) -> Response:
    return Response(msgspec.json.encode(value), status, mimetype="application/json")


def _refuse_foreign_hosts() -> None:
    """DNS rebinding: only loopback by name or number may be asked for, whatever the name resolved to."""
    name = _host_name(request.headers.get("Host", ""))
    if name == "localhost" or name.endswith(".localhost"):
        return
    try:
        if ipaddress.ip_address(name).is_loopback:
            return
    except ValueError:
        pass
    served: str = request.environ.get("SERVER_NAME", "")
    if name != served or name in ("", "0.0.0.0", "::"):
        abort(_json({"error": "this page answers to localhost and 127.0.0.1 only (Host header)"}, 403))


def _host_name(host: str) -> str:
    """Return the name part of a Host header: ``[::1]:8080`` -> ``::1``, ``localhost:80`` -> ``localhost``."""
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0].lower()


def _harden(response: Response) -> Response:
    for name, value in HEADERS.items():
        response.headers.setdefault(name, value)
    return response


class _QuietHandler(WSGIRequestHandler):
    """Core never prints: requests are not logged."""

    timeout = 30  # of one read; a connection that says nothing does not hold a thread for ever

    def log(self, type: str, message: str, *args: object) -> None:
        pass

    def version_string(self) -> str:
        return "daitn"


class PageServer:
    """Serve an app on threads; ``port`` 0 takes a free one.  ``PageError`` when the port is taken.

    ``host`` is loopback unless said otherwise; the page has no password, so keep it there. ``listener``: a socket that
    listens there already, for example on the loopback of another network namespace; it becomes the server's.
    """

    def __init__(
        self, app: Flask, host: str = "127.0.0.1", port: int = DEFAULT_PORT, listener: socket.socket | None = None
    ) -> None:
        self._streams: EventStreams = app.extensions["daitn_streams"]
        listener = listener or listen(host, port)
        try:
            self._server: BaseWSGIServer = make_server(
                host, port, app, threaded=True, request_handler=_QuietHandler, fd=listener.fileno()
            )
        finally:
            listener.close()  # the server has its own copy
        self.host, self.port = host, self._server.port
        self._thread: threading.Thread | None = None

    @property
    def url(self) -> str:
        """Where to look."""
        name = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{name}:{self.port}/"

    def start(self) -> PageServer:
        """Serve from a thread; returns itself."""
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.1,), name="page", daemon=True)
        self._thread.start()
        return self

    def close(self, timeout_s: float = 3.0) -> None:
        """End the open streams, then the server; safe to call twice."""
        self._streams.close()
        if self._thread is not None:
            self._server.shutdown()
            self._thread.join(timeout_s)
            self._thread = None
        _wait(lambda: self._streams.count == 0, timeout_s)
        self._server.server_close()

    def __enter__(self) -> PageServer:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.close()


def listen(host: str, port: int) -> socket.socket:
    """Bind first and by ourselves: werkzeug would print and exit when the port is taken."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(64)
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE:
            hint = f"see who has it (ss -ltnp 'sport = :{port}') or choose another with --page-port"
            raise PageError(f"page port {port} on {host} is taken; {hint}") from error
        raise PageError(f"page at {host}:{port}: {error.strerror}; choose another address or port") from error
    return listener


def _wait(done: Callable[[], bool], timeout_s: float) -> None:
    deadline = time.monotonic() + timeout_s
    gate = threading.Event()
    while not done() and time.monotonic() < deadline:
        gate.wait(0.01)
