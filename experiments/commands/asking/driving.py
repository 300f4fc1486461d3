"""Drive a load on the standing network from here: begin it, show it, end it early when the person says so."""

from __future__ import annotations

import difflib
import json
import secrets
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from experiments.commands.client import request
from experiments.errors import ExperimentError
from experiments.scenarios.queries import QueriesSpec, check_policy
from topologies.own.files import absolute

PATTERNS = ("poisson", "diurnal", "bursts", "hot_spot")
ANSWERS_S = 60.0  # from one answer of a stream to the next
SPARE_S = 90.0  # beyond its seconds: begin, last answers, rows


def checked(spec: dict[str, Any]) -> QueriesSpec:
    """Return a load as it was asked for; ``ExperimentError`` names the nearest where a name is none."""
    if spec["pattern"] not in PATTERNS:
        near = difflib.get_close_matches(spec["pattern"], PATTERNS, 1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise ExperimentError(f"no pattern is called {spec['pattern']!r}; {hint}there are: {', '.join(PATTERNS)}")
    spec = spec | {"policy": absolute(spec["policy"], Path.cwd())}
    check_policy(spec["policy"])
    try:
        return msgspec.convert(spec, QueriesSpec)
    except msgspec.ValidationError as error:
        raise ExperimentError(f"load: {' '.join(str(error).split())}") from None


def stream(group: str, count: int, need: dict[str, Any], way: str = "", *, quiet: bool = False) -> dict[str, Any]:
    """Put a query of many samples on the standing network; return what came of it, of one that Ctrl-C ended, too."""
    token = secrets.token_hex(8)
    with _ends_on_interrupt("stream_stop", token=token):
        return request(
            "stream", timeout_s=ANSWERS_S, quiet=quiet, token=token, group=group, count=count, need=need, way=way
        )  # fmt: skip


def drive(spec: dict[str, Any], seed: int, *, quiet: bool = False) -> dict[str, Any]:
    """Carry a load out on the standing network; return what came of it, of a load that Ctrl-C ended, too."""
    wanted = checked(spec)
    with _ends_on_interrupt("load_stop"):
        return request(
            "load", timeout_s=wanted.seconds + SPARE_S, quiet=quiet, spec=json.loads(msgspec.json.encode(wanted)),
            seed=seed,
        )  # fmt: skip


@contextmanager
def _ends_on_interrupt(op: str, **arguments: Any) -> Iterator[None]:
    """The first Ctrl-C ends what is under way and lets its answer come; the second is as everywhere."""
    before = signal.getsignal(signal.SIGINT)

    def interrupted(*_: object) -> None:
        signal.signal(signal.SIGINT, before)
        threading.Thread(target=request, args=(op, 30), kwargs=arguments, daemon=True).start()

    signal.signal(signal.SIGINT, interrupted)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
