"""Look at a run's events on the page: ``python -m controller.oam --events runs/latest/events.jsonl [--speed 4]``.

Without ``--speed`` the whole run is there at once; with it, the run is played again at that multiple of its own pace.
``--script`` plays a made-up run, for working on the page (no network, no root).
"""

from __future__ import annotations

import argparse
import queue
import signal
import sys
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec

from controller.oam.errors import OamError
from controller.oam.metrics import Metrics, metrics_table
from controller.oam.page import DEFAULT_PORT, PageServer, create_app
from controller.oam.scripted import Script
from controller.oam.state.run import NetworkState
from packets.events import Event, decode_event

MAX_PAUSE_S = 5.0


def read_events(path: Path) -> Iterator[Event]:
    """Yield a log's events; a line that is none (the last one of a killed run) is passed over."""
    try:
        lines = path.open("rb")
    except OSError as error:
        raise OamError(f"event log {path}: {error.strerror}; name a run's events.jsonl") from error
    with lines:
        for line in lines:
            try:
                yield decode_event(line)
            except msgspec.DecodeError:
                continue


def play(events: Iterable[Event], state: NetworkState, metrics: Metrics, speed: float, end: threading.Event) -> None:
    """Feed events at ``speed`` times their own pace (0: at once); a gap in the run is cut to ``MAX_PAUSE_S``."""
    before = None
    for event in events:
        if speed > 0 and before is not None and event.t_unix_s > before:
            end.wait(min((event.t_unix_s - before) / speed, MAX_PAUSE_S))
        if end.is_set():
            return
        before = event.t_unix_s
        state.apply(event)
        metrics.apply(event)


def main(arguments: list[str] | None = None) -> int:
    """Serve the page over a log until interrupted; exit status 2 on bad input."""
    options = _parser().parse_args(arguments)
    if options.metrics_table:
        sys.stdout.write(metrics_table())
        return 0
    state, metrics = NetworkState(), Metrics()
    try:
        events = list(read_events(options.events)) if options.events else Script().run()
        server = PageServer(create_app(state, None, metrics), port=options.port)
    except OamError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    end = _asked_to_end()
    with server:
        sys.stdout.write(f"{server.url}\n")
        sys.stdout.flush()
        play(events, state, metrics, options.speed, end)
        while not end.wait(3600):
            pass
    return 0


def _asked_to_end() -> threading.Event:
    """Return what is set once SIGINT or SIGTERM came."""
    asked, end = queue.SimpleQueue[int](), threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, _: asked.put(number))  # the one lock that a handler may take

    def wait() -> None:
        asked.get()
        end.set()

    threading.Thread(target=wait, name="end", daemon=True).start()
    return end


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m controller.oam", description=__doc__.split("\n")[0])
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--events", type=Path, help="a run's events.jsonl")
    what.add_argument("--script", action="store_true", help="a made-up run, for working on the page")
    what.add_argument("--metrics-table", action="store_true", help="print the table of all metrics as Markdown")
    parser.add_argument("--speed", type=float, default=0.0, help="multiple of the run's own pace (0: at once)")
    parser.add_argument("--port", type=int, default=DEFAULT_PORT, help="port on 127.0.0.1 (0: a free one)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
