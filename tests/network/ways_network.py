"""A network whose job is deployed in one way of inference, for tests that ask it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks import move
from benchmarks.queries_net import terminals
from benchmarks.standing import StandingNetwork, standing
from experiments.commands.client import request

DATA = {"name": "vignettes", "alpha": 1.0, "noise": 0.4, "findings_per_vignette": 8, "train_per_node": 500,
        "test_per_node": 600}  # fmt: skip


@contextlib.contextmanager
def deployed_as(way: str, job: dict[str, Any], folder: Path) -> Iterator[StandingNetwork]:
    """Have the network up, test samples at the MPVUs, and a job trained and deployed in a way; its end is ``job``."""
    scenario = move.SCENARIO | {"name": way, "ways": [way], "data": DATA}
    with standing(scenario, folder) as network:
        for name in terminals(network, "data"):
            network.at(name, "send_test_samples", timeout_s=60.0)
        network.job = request("submit", 120.0, quiet=True, spec=job)  # type: ignore[attr-defined]
        yield network
