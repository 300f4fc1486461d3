"""``daitn sweep``: check the whole grid, run what is not finished yet, make the table from what is."""

from __future__ import annotations

import contextlib
import datetime
import fcntl
import functools
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import msgspec
from rich.console import Console

from experiments.commands.engines import check_engines
from experiments.commands.resolving import Said, found_from_here, resolve, rooted
from experiments.commands.session import RUNS, check_methods, need_root
from experiments.commands.words import shown
from experiments.errors import ExperimentError
from experiments.scenarios.scenario import dump
from experiments.sweeping import cells as cell_files
from experiments.sweeping.cells import Cell, Done, carry_out, cells_of, check_count, write_whole
from experiments.sweeping.grid import MOST_CELLS, parse_axes, parse_seeds
from experiments.sweeping.runner import RUN_TIMEOUT_S, How, Task, log_of, side_by_side
from experiments.sweeping.table import Row, table, write_csv, write_page
from experiments.sweeping.watching import Watching, at_once

MANIFEST = "sweep.json"
LOCK = ".lock"


class Sweep:
    """A grid over a scenario, and the folder that its cells lie in."""

    def __init__(self, scenario: str, said: Said, sets: Sequence[str], seeds: str, out: Path | None) -> None:
        self.axes, self.seeds = parse_axes(sets), parse_seeds(seeds)
        check_count(self.axes, self.seeds, MOST_CELLS)
        base = resolve(found_from_here(scenario), **rooted(said))
        self.name = base.name
        self.cells = cells_of(base, self.axes, self.seeds)
        for cell in self.cells:
            if cell.seed == self.seeds[0]:  # the other seeds differ in nothing that could be wrong
                check_methods(resolve(cell.scenario))
                check_engines(cell.scenario)
        stamp = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
        self.out = (out or RUNS / f"sweep-{stamp}-{base.name}").resolve()
        self.errors: dict[str, str] = {}

    def rows(self) -> list[Row]:
        """Return the finished cells, in the grid's order."""
        found = ((cell, cell_files.read(self.out, cell)) for cell in self.cells)
        return [Row(cell, done) for cell, done in found if done is not None]

    def to_do(self) -> list[Cell]:
        """Return the cells that are not finished."""
        return [cell for cell in self.cells if cell_files.read(self.out, cell) is None]

    def took(self, cell: Cell, came: tuple[Done | None, str]) -> str:
        """Take what became of a cell into the folder; return it in words."""
        done, fault = came
        if done is None:
            self.errors[cell.name] = f"{cell.label}: {fault}"
            return f"FAILED: {shown(fault)}"
        cell_files.write(self.out, done)
        result = done.result
        if result is None:
            return "rejected by T-FAM"
        verdict = "targets met" if result.passed else "missed     "
        expert = f"  expert {result.expert:.3f}" if result.expert else ""
        return f"{verdict}  broad {result.broad:.3f}{expert}  {result.visits:2} visits  {result.bytes / 1e6:7.1f} MB"

    def show(self, console: Console) -> None:
        """Write table and page from the finished cells; print the former."""
        rows = self.rows()
        write_csv(rows, self.axes, self.out / "sweep.csv")
        missing = [self.errors.get(cell.name, f"{cell.label}: not run yet") for cell in self.to_do()]
        page = self.out / "sweep.html"
        write_page(rows, self.axes, page, scenario=self.name, seeds=self.seeds, missing=missing)
        console.print(table(rows, self.axes))
        console.print(f"table      {self.out / 'sweep.csv'}", highlight=False, soft_wrap=True)
        console.print(f"page       {page}", highlight=False, soft_wrap=True)


def sweep_grid(sweep: Sweep, *, jobs: int, cluster: str | None, console: Console) -> bool:
    """Carry a sweep out, here or over the machines of a ``cluster``; True when every cell is finished."""
    if cluster is None:
        need_root()
        return _carry_out(sweep, at_once(jobs), console, lambda: _run_here(sweep, jobs, console))
    from experiments.sweeping.cluster import connect, machines, run_over  # its engine is an extra

    with connect(cluster) as client:
        where = f", over {', '.join(machines(client))}"
        return _carry_out(sweep, where, console, lambda: run_over(client, sweep.to_do(), _say(sweep, console)))


def _carry_out(sweep: Sweep, where: str, console: Console, work: Callable[[], None]) -> bool:
    with _folder(sweep):
        there = len(sweep.cells) - len(sweep.to_do())
        kept = f", {there} finished before" if there else ""
        console.print(f"{len(sweep.cells)} cells{kept}{where}; runs in {sweep.out}", highlight=False, soft_wrap=True)
        try:
            work()
        finally:
            if sweep.rows():
                sweep.show(console)
    return not sweep.to_do()


def _run_here(sweep: Sweep, jobs: int, console: Console) -> None:
    stop, to_do, say = threading.Event(), sweep.to_do(), _say(sweep, console)
    how = How(stop, timeout_s=RUN_TIMEOUT_S * jobs, apart=jobs > 1)
    work = [functools.partial(carry_out, sweep.out, cell.name, dump(cell.scenario), how) for cell in to_do]
    tasks = [Task(c.label, log_of(sweep.out / c.name), w) for c, w in zip(to_do, work, strict=True)]
    with Watching(console) as watching:
        side_by_side(tasks, jobs, stop, finished=lambda place, came: say(to_do[place], came), watch=watching)


def _say(sweep: Sweep, console: Console) -> Callable[[Cell, tuple[Done | None, str]], None]:
    total = len(sweep.to_do())
    width = max((len(cell.label) for cell in sweep.cells), default=0)
    heard = 0

    def say(cell: Cell, came: tuple[Done | None, str]) -> None:
        nonlocal heard
        heard += 1
        at = f"  at {came[0].machine}" if came[0] is not None and came[0].machine != os.uname().nodename else ""
        head = f"\\[{heard:{len(str(total))}}/{total}] {shown(cell.label.ljust(width))}"
        console.print(f"{head}  {sweep.took(cell, came)}{at}", highlight=False, soft_wrap=True)

    return say


@contextlib.contextmanager
def _folder(sweep: Sweep) -> Iterator[None]:
    """Make the folder and hold it: two sweeps at once in one would run the same cells."""
    try:
        sweep.out.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(sweep.out / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise ExperimentError(f"folder {sweep.out} cannot be used: {error.strerror}; name another with --out") from None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        grid = {axis.key: axis.values for axis in sweep.axes}
        manifest = {"scenario": sweep.name, "set": grid, "seeds": sweep.seeds, "cells": [c.name for c in sweep.cells]}
        write_whole(sweep.out / MANIFEST, msgspec.json.format(msgspec.json.encode(manifest)) + b"\n")
        yield
    except BlockingIOError:
        raise ExperimentError(f"another sweep works in {sweep.out}: wait for its end, or name another --out") from None
    finally:
        os.close(descriptor)
