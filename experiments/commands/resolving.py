"""A scenario with what was said on the command line laid over it, and its data looked at."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, TypedDict

import msgspec
from rich.console import Console

from experiments.commands.engines import with_words
from experiments.errors import ExperimentError
from experiments.scenarios.scenario import Scenario, load, network_plan, with_method, with_task, with_topo
from experiments.scenarios.ways import check_ways
from hosts.learning.data.clinic import DISEASES
from topologies.own.files import absolute


class Said(TypedDict, total=False):
    """What a command line says of a scenario; the keywords of ``resolve``."""

    seed: int | None
    seeds: int | None
    data: Path | None
    label: str | None
    columns: Sequence[str]
    engines: Sequence[str]
    topo: str | None
    task: str | None
    method: str | None


OPTIONS = {"data": "--data", "label": "--label", "columns": "--column", "topo": "--topo", "task": "--task"}


def rooted(said: Said) -> Said:
    """Return what was said with its files found from here, so that it means the same in another process."""
    found: Said = {**said}
    if data := said.get("data"):
        found["data"] = data.resolve()
    if topo := said.get("topo"):
        found["topo"] = absolute(topo, Path.cwd())
    if task := said.get("task"):
        found["task"] = absolute(task, Path.cwd())
    return found


def found_from_here(scenario: str) -> str:
    """Return a scenario's name, or its file's path, so that it means the same in another process."""
    return str(Path(scenario).resolve()) if Path(scenario).suffix or "/" in scenario else scenario


def words_of(said: Said) -> list[str]:
    """Return data, network and task as words for ``daitn run``."""
    values = {option: said.get(key) or [] for key, option in OPTIONS.items()}
    return [
        word
        for option, value in values.items()
        for one in (value if isinstance(value, (list, tuple)) else [value])
        for word in (option, str(one))
    ]


def resolve(
    name: str | Scenario,
    *,
    seed: int | None = None,
    seeds: int | None = None,
    data: Path | None = None,
    label: str | None = None,
    columns: Sequence[str] = (),
    engines: Sequence[str] = (),
    topo: str | None = None,
    task: str | None = None,
    method: str | None = None,
    tell: Callable[[str], None] = lambda note: None,
) -> Scenario:
    """Load a scenario and lay the command line over it; checks that its data can be read.

    ``method``: one's own, ``file.py:Class``, that jobs name as ``own``.
    ``tell``: hears what of the data is left aside, and what is used.
    """
    scenario = _with_own(load(name) if isinstance(name, str) else name, engines, topo)
    scenario = with_task(scenario, task, Path.cwd()) if task else scenario
    scenario = with_method(scenario, method, Path.cwd()) if method else scenario
    changes: dict[str, Any] = {}
    if seed is not None:
        changes["seed"] = seed
    if seeds is not None:
        changes["seeds"] = seeds
    if data is not None:
        changes["data"] = _data_spec(scenario, data, label, columns)
        changes["jobs"] = [msgspec.structs.replace(j, task=changes["data"].name) for j in scenario.jobs]
    elif label is not None or columns:
        raise ExperimentError("--label and --column name columns of --data FILE; give --data as well")
    scenario = msgspec.structs.replace(scenario, **changes)
    check_ways(
        scenario.ways, scenario.queries, scenario.data, network_plan(scenario), scenario.name, scenario.jobs
    )  # fmt: skip
    if scenario.data.name == "vignettes":
        _fit_jobs(scenario, list(DISEASES))
    else:
        if not scenario.data.data and scenario.data.name not in ("digits", "own"):
            raise ExperimentError(f"scenario {scenario.name} needs real data: give it with --data PATH")
        from hosts.learning.task import load_task  # brings PyTorch along: not for every command

        loaded = load_task(scenario.data)
        for note in loaded.notes:
            tell(note)
        _fit_jobs(scenario, loaded.groups)
    if scenario.data.method:
        check_own_method(scenario.data.method)
    return scenario


def check_own_method(spec: str) -> None:
    """Load a method of one's own once; ``LearningError`` says why it cannot be."""
    from hosts.learning.methods.own import load_method  # brings PyTorch along: not for every command

    load_method(spec)


def _with_own(scenario: Scenario, engines: Sequence[str], topo: str | None) -> Scenario:
    scenario = with_words(scenario, engines)
    return with_topo(scenario, topo) if topo else scenario


def told(console: Console) -> Callable[[str], None]:
    """Return what says a note on data on a console."""
    return lambda note: console.print(f"data: {note}", highlight=False, markup=False, style="dim")


def _data_spec(scenario: Scenario, path: Path, label: str | None, columns: Sequence[str]) -> Any:
    if not path.exists():
        raise ExperimentError(f"--data {path} does not exist; give a directory (UCI heart disease) or a CSV/JSONL file")
    spec = scenario.data
    if spec.name == "own":
        return msgspec.structs.replace(spec, data=str(path.resolve()), label_column=label or "", columns=[*columns])
    if path.is_file():
        spec = msgspec.structs.replace(spec, name=_kind_of(path, label or spec.label_column, columns))
    elif spec.name == "vignettes":
        spec = msgspec.structs.replace(spec, name="table")
    partition = "natural" if path.is_dir() else "dirichlet"
    return msgspec.structs.replace(
        spec,
        data=str(path.resolve()),
        partition=partition,
        label_column=label or spec.label_column,
        columns=[*columns],
    )


def _kind_of(file: Path, label: str, columns: Sequence[str]) -> Literal["table", "text"]:
    from hosts.learning.data.encode import is_prose
    from hosts.learning.data.read import read_rows

    return "text" if is_prose(read_rows(str(file), label, columns)) else "table"


def _fit_jobs(scenario: Scenario, groups: list[str]) -> None:
    wanted = {job.expert_group for job in scenario.jobs} | ({scenario.query.group} if scenario.query else set())
    for group in sorted(g for g in wanted if g and g not in groups):
        near = difflib.get_close_matches(group, groups, 1)
        raise ExperimentError(
            f"scenario {scenario.name}: group {group!r} is not in the data; "
            + (f"did you mean {near[0]!r}?" if near else f"its groups are: {', '.join(groups)}")
        )


def resolve_without_data(name: str, *, engines: Sequence[str] = (), topo: str | None = None) -> Scenario:
    """Load a scenario for a check that does not need its data."""
    scenario = _with_own(load(name), engines, topo)
    if scenario.data.name == "vignettes":
        _fit_jobs(scenario, list(DISEASES))
    return scenario
