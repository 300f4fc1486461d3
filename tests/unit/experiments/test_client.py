"""What a person reads of a standing network."""

from __future__ import annotations

import io
from typing import Any

from rich.console import Console

from experiments.commands.client import say_status


def told(**about: Any) -> str:
    host = {"name": "c1", "role": "compute", "kas": 1, "address": "10.1.0.7", "state": "idle", "ready": True, **about}
    out = io.StringIO()
    answer = {"run": "1-a", "folder": "f", "page": None, "state": {"terminals": {"c1": host}, "jobs": {}}}
    say_status(answer, Console(file=out, width=120))
    return out.getvalue().splitlines()[-1]


def test_a_withdrawn_terminal_is_told_apart() -> None:
    assert told().split() == ["c1", "compute", "1", "10.1.0.7", "idle"]
    assert told(attributes={"reachable": True}).split()[-1] == "idle"
    assert "withdrawn (idle)" in told(attributes={"reachable": False})
    assert "gone" in told(attributes={"reachable": False}, ready=False, state="gone")
