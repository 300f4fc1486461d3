"""The cells of a sweep: one run each, and one file each when it is done, put there whole or not at all.

A cell's name has a fingerprint of all that its scenario says: with another scenario it is another cell.
"""

from __future__ import annotations

import hashlib
import json
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from experiments.comparing.runs import Result, read_result
from experiments.errors import ExperimentError
from experiments.run import allow
from experiments.scenarios.scenario import Scenario, dump
from experiments.sweeping.grid import Axis, in_words, laid_over, points
from experiments.sweeping.runner import How, measured

REJECTED = "rejected"


class Cell(NamedTuple):
    """One run of a sweep: a point of the grid and a seed."""

    seed: int
    point: Mapping[str, Any]
    scenario: Scenario

    @property
    def method(self) -> str:
        return self.scenario.jobs[0].method

    @property
    def name(self) -> str:
        """What its files are called."""
        return f"seed-{self.seed:03}-{hashlib.sha256(dump(self.scenario)).hexdigest()[:10]}"

    @property
    def label(self) -> str:
        """What a person reads of it."""
        return f"seed {self.seed:<3} {in_words(self.point)}".rstrip()


class Done(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a cell: the file ``<cell>.json``. ``figures`` is none where T-FAM rejected the job."""

    cell: str
    state: str
    machine: str
    route: list[list[str]] = []
    figures: dict[str, Any] | None = None

    @property
    def result(self) -> Result | None:
        """The figures, as those of a comparison."""
        return None if self.figures is None else Result(**self.figures)


def cells_of(scenario: Scenario, axes: Sequence[Axis], seeds: Sequence[int]) -> list[Cell]:
    """Return all cells, seed by seed at each point; ``ExperimentError`` names the key that does not fit."""
    found = []
    for point in points(axes):
        there = laid_over(scenario, point)
        there = allow(there, there.jobs[0].method)
        found += [Cell(seed, point, msgspec.structs.replace(there, seed=seed, seeds=1)) for seed in seeds]
    return found


def read(folder: Path, cell: Cell) -> Done | None:
    """Read a finished cell; nothing where it is not."""
    try:
        done = msgspec.json.decode((folder / f"{cell.name}.json").read_bytes(), type=Done)
        return done if done.cell == cell.name and (done.result is not None or done.state == REJECTED) else None
    except (OSError, msgspec.DecodeError, TypeError):
        return None


def write(folder: Path, done: Done) -> None:
    """Put a finished cell's file there; who reads sees all of it or none."""
    write_whole(folder / f"{done.cell}.json", msgspec.json.format(msgspec.json.encode(done)) + b"\n")


def write_whole(file: Path, content: bytes) -> None:
    """Write a file so that there is never a half of it."""
    draft = file.with_name(f".{file.name}.draft")
    draft.write_bytes(content)
    draft.replace(file)


def carry_out(folder: Path, name: str, scenario: bytes, how: How) -> tuple[Done | None, str]:
    """Run a cell in a folder; return what it came to (nothing where it measured nothing), and its last words."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{name}.yaml"
    write_whole(file, scenario)
    said = msgspec.yaml.decode(scenario)
    method, seed = said["jobs"][0]["method"], said["seed"]
    return measured(folder / name, [str(file)], lambda: came_to(folder / name, method, seed), how)


def came_to(folder: Path, method: str, seed: int) -> Done | None:
    """Return what a run's report says, where it has one that says something."""
    result = read_result(folder, method, method, seed)
    try:
        one = json.loads((folder / "report.json").read_text())["seeds"][0]
        if result is None and one["state"] != REJECTED:
            return None
        route = [[visit["data_node"], visit["facility"]] for visit in one["route"]]
    except (OSError, ValueError, KeyError, TypeError, IndexError):
        return None
    return Done(
        cell=folder.name, state=one["state"], machine=socket.gethostname(), route=route,
        figures=None if result is None else result._asdict(),
    )  # fmt: skip


def check_count(axes: Sequence[Axis], seeds: Sequence[int], most: int) -> None:
    """Check that a grid is one that somebody can want; ``ExperimentError`` says how large it is."""
    count = len(seeds)
    for axis in axes:
        count *= len(axis.values)
    if count > most:
        raise ExperimentError(f"this grid has {count} cells, {most} are the most: give fewer values or seeds")
