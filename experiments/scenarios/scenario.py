"""The scenario: one YAML file that says what network, which data, which jobs; typed, frozen, unknown keys are errors.

Built-in scenarios lie in ``experiments/scenarios``; a path to a file of one's own works everywhere a name does.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import msgspec
import yaml

from controller.errors import PluginError
from controller.placement.kinds import KINDS, KasKind
from controller.plugins.loading import check_name
from controller.plugins.setup import Setup
from controller.values.metrics import OwnMetric
from experiments.errors import ScenarioError
from experiments.scenarios.background import Pair
from experiments.scenarios.background import check as check_background
from experiments.scenarios.built_in import FOLDER, names
from experiments.scenarios.cats import check as check_cats
from experiments.scenarios.events import TimedEvent
from experiments.scenarios.events import check as check_events
from experiments.scenarios.kinds import check_at_terminals, check_kinds
from experiments.scenarios.network import (
    KasSpec,
    NetworkSpec,
    RolesSpec,
    WanSpec,
    check_network,
    check_roles,
    plan_of,
    resolved,
)
from experiments.scenarios.places import with_keys
from experiments.scenarios.queries import NeedSpec, QueriesSpec
from experiments.scenarios.queries import check as check_queries
from experiments.scenarios.steering import check_said, check_steering, rooted
from experiments.scenarios.ways import WayName, check_ways
from hosts.learning.task_spec import TaskSpec
from packets.messages import Fixed, JobSpec
from packets.terms import MAX_METRICS
from topologies.errors import TopologyError
from topologies.own.files import absolute
from topologies.plan import NetworkPlan

SCENARIO_FOLDER = FOLDER


class QuerySpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One query, put to the deployed model once it stands: a sample of this group."""

    group: str


class Scenario(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One experiment. ``jobs`` are submitted in order; one that T-FAM rejects is recorded and the next is tried.

    ``engines``: {engine: source} instead of the defaults, as of ``daitn engines``; a file's path is meant from where
    the scenario lies; ``cats``: metrics of one's own that MDFPs report, by name (``controller.values.metrics``).
    ``events``: what happens to terminals meanwhile (``experiments.scenarios.events``).
    ``background``: ordinary traffic beside it (``experiments.scenarios.background``). ``replicas``: the model is
    deployed so many times; ``place_every_s``: MDO looks so often where it belongs (0: it stays); ``ways``: how it
    answers besides (``experiments.scenarios.ways``); ``queries``: what is asked then
    (``experiments.scenarios.queries``).
    ``kas``: {K-AS: of which kind it is} where one is not centralised (``controller.placement.kinds``).
    ``without_control``: control centres are ended for good before jobs are submitted, which then find their own way
    (``experiments.scenarios.steering``).
    ``security: off`` leaves signatures, MACs and encryption out (packets/README.md, "Security").
    """

    name: str
    network: NetworkSpec
    data: TaskSpec
    jobs: Annotated[list[JobSpec], msgspec.Meta(min_length=1, max_length=64)]
    description: str = ""
    seed: Annotated[int, msgspec.Meta(ge=0, lt=1 << 31)] = 0
    seeds: Annotated[int, msgspec.Meta(ge=1, le=100)] = 1
    compare_pooled: bool = False
    query: QuerySpec | None = None
    replicas: Annotated[int, msgspec.Meta(ge=1, le=64)] = 1
    place_every_s: Annotated[float, msgspec.Meta(ge=0.0, le=3600.0)] = 0.0
    ways: Annotated[list[WayName], msgspec.Meta(max_length=8)] = []
    queries: QueriesSpec | None = None
    security: bool = True
    kas: Annotated[dict[int, KasKind], msgspec.Meta(max_length=250)] = {}
    without_control: bool = False
    engines: dict[str, str] = {}
    cats: Annotated[dict[str, OwnMetric], msgspec.Meta(max_length=MAX_METRICS)] = {}
    events: Annotated[list[TimedEvent], msgspec.Meta(max_length=256)] = []
    background: Annotated[list[Pair], msgspec.Meta(max_length=64)] = []


class _Once(yaml.SafeLoader):
    """Reads YAML whose mappings say each key once: of two, the first would be lost in silence."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: dict[Any, int] = {}
        for key_node, _ in node.value:
            key, line = self.construct_object(key_node, deep=True), key_node.start_mark.line + 1
            if key in seen:
                raise yaml.YAMLError(f"key {key!r} in line {line} is there already, in line {seen[key]}; keep one")
            seen[key] = line
        return super().construct_mapping(node, deep)


def load(name_or_path: str) -> Scenario:
    """Read a scenario by built-in name or path; ``ScenarioError`` names key, place and the nearest right key."""
    path = _find(name_or_path)
    try:
        raw = yaml.load(path.read_bytes(), _Once)
    except (OSError, yaml.YAMLError, ValueError) as error:
        raise ScenarioError(f"scenario {path}: cannot be read as YAML: {_one_line(error)}") from None
    return from_raw(raw, str(path))


def from_raw(raw: Any, where: str) -> Scenario:
    """Check a decoded scenario; ``where`` names it in errors."""
    if raw is None:
        raise ScenarioError(
            f"scenario {where}: the file is empty, a mapping of keys is expected; "
            f"begin with a copy of {FOLDER / 'healthcare.yaml'}"
        )
    if not isinstance(raw, dict):
        raise ScenarioError(f"scenario {where}: a mapping of keys is expected, this is a {type(raw).__name__}")
    try:
        scenario = msgspec.convert(raw, Scenario)
    except msgspec.ValidationError as error:
        raise ScenarioError(f"scenario {where}: {_explain(error, raw)}") from None
    check_said(raw.get("jobs"), where)
    scenario = with_engines(scenario, {}, where, Path(where).parent)
    if scenario.data.own:
        scenario = with_task(scenario, scenario.data.own, Path(where).parent)
    if scenario.data.method:
        scenario = with_method(scenario, scenario.data.method, Path(where).parent)
    scenario = msgspec.structs.replace(scenario, jobs=rooted(scenario.jobs, Path(where).parent))
    if scenario.queries:
        scenario = with_policy(scenario, scenario.queries, Path(where).parent)
    if scenario.cats:
        scenario = with_cats(scenario, Path(where).parent)
    check_network(scenario.network, where)
    return _checked(msgspec.structs.replace(scenario, network=resolved(scenario.network, Path(where).parent)), where)


def with_task(scenario: Scenario, own: str, folder: Path) -> Scenario:
    """Return a scenario of a learning task of one's own, a ``file.py:Class`` found from ``folder``."""
    data = msgspec.structs.replace(scenario.data, name="own", own=absolute(own, folder))
    jobs = [msgspec.structs.replace(job, task="own") for job in scenario.jobs]
    return msgspec.structs.replace(scenario, data=data, jobs=jobs)


def with_method(scenario: Scenario, own: str, folder: Path) -> Scenario:
    """Return a scenario whose jobs may name ``own``, a ``file.py:Class`` found from ``folder``, as their method."""
    return msgspec.structs.replace(scenario, data=msgspec.structs.replace(scenario.data, method=absolute(own, folder)))


def with_policy(scenario: Scenario, queries: QueriesSpec, folder: Path) -> Scenario:
    """Return a scenario whose load picks by a policy of one's own, a ``file.py:Class``, found from ``folder``."""
    queries = msgspec.structs.replace(queries, policy=absolute(queries.policy, folder))
    return msgspec.structs.replace(scenario, queries=queries)


def with_cats(scenario: Scenario, folder: Path) -> Scenario:
    """Return a scenario whose MDFPs report metrics of one's own, the functions' files found from ``folder``."""
    cats = {n: msgspec.structs.replace(m, source=absolute(m.source, folder)) for n, m in scenario.cats.items()}
    return msgspec.structs.replace(scenario, cats=cats)


def with_topo(scenario: Scenario, spec: str) -> Scenario:
    """Return a scenario on another network, a ``file.py:Class`` found from here; ``ScenarioError``."""
    may_move = scenario.network.data_may_move is True
    network = resolved(NetworkSpec(topo=spec, data_may_move=may_move), Path.cwd())
    return _checked(msgspec.structs.replace(scenario, network=network), scenario.name)


def _checked(scenario: Scenario, where: str) -> Scenario:
    try:
        plan = network_plan(scenario)
    except TopologyError as error:
        raise ScenarioError(f"scenario {where}: network: {error}") from None
    check_roles(plan, scenario.network, where)
    _check_flip(scenario, plan, where)
    drifts, loads = scenario.data.name == "vignettes", scenario.queries is not None
    check_events(scenario.events, plan, where, drifts=drifts, loads=loads)
    check_background(scenario.background, plan, where)
    check_queries(scenario.queries, scenario.replicas, plan, where)
    check_cats(scenario.cats, plan, where)
    check_ways(scenario.ways, scenario.queries, scenario.data, plan, where, scenario.jobs)
    check_kinds(scenario.kas, plan, where)
    check_autonomy(scenario, where)
    return scenario


def check_autonomy(scenario: Scenario, where: str, method: str | None = None) -> None:
    """Check jobs that find their own way, of a ``method`` if one is given, and what there is without control centres;
    ``ScenarioError``.
    """
    after = {"queries": scenario.queries, "ways": scenario.ways, "seeds": scenario.seeds > 1}
    left_out = [key for key, said in after.items() if said]
    check_steering(scenario.jobs, where, left_out, method, without_control=scenario.without_control)


def network_plan(scenario: Scenario) -> NetworkPlan:
    """Return the plan of the scenario's network; ``TopologyError`` names what is wrong with it."""
    return plan_of(scenario.name, scenario.network)


def with_engines(scenario: Scenario, more: Mapping[str, str], where: str, folder: Path) -> Scenario:
    """Return a scenario with ``more`` engines, the files of its own found from ``folder``; ``ScenarioError`` for a name
    that is no engine's.
    """

    def found(engines: Mapping[str, str], key: str) -> dict[str, str]:
        try:
            for name in engines:
                check_name(name)
            return {name: absolute(source, folder) for name, source in engines.items()}
        except PluginError as error:
            raise ScenarioError(f"scenario {where}: {key}: {error}") from None

    replace = msgspec.structs.replace
    jobs = [replace(job, engines=found(job.engines, "engines")) for job in scenario.jobs]
    kas = {k: replace(kind, engines=found(kind.engines, f"kas.{k}.engines")) for k, kind in scenario.kas.items()}
    made = replace(scenario, engines=found(scenario.engines | dict(more), "engines"), jobs=jobs, kas=kas)
    for k, kind in kas.items():
        check_at_terminals(k, kind, {name for name, _ in engine_setup(made, k).own}, where)
    return made


def engine_setup(scenario: Scenario, kas: int | None = None) -> Setup:
    """Return what the control centre of a K-AS is told of engines and metrics (none: all that the scenario names)."""
    chosen = [job.engines for job in scenario.jobs]
    if kas is None:
        return Setup.of(scenario.engines, [*chosen, *(kind.engines for kind in scenario.kas.values())], scenario.cats)
    here = scenario.kas[kas].engines if kas in scenario.kas else {}
    return Setup.of(scenario.engines | here, chosen, scenario.cats)


def dump(scenario: Scenario) -> bytes:
    """Return the resolved scenario as YAML, every default written out."""
    return msgspec.yaml.encode(scenario)


def _find(name_or_path: str) -> Path:
    path = Path(name_or_path)
    if path.suffix in {".yaml", ".yml"} or "/" in name_or_path:
        if path.is_dir():
            raise ScenarioError(f"scenario file {name_or_path} is a folder; give the path of a YAML file")
        if not path.is_file():
            raise ScenarioError(
                f"scenario file {name_or_path} does not exist; give a YAML file's path or one of: {', '.join(names())}"
            )
        return path
    built_in = FOLDER / f"{name_or_path}.yaml"
    if not built_in.is_file():
        near = difflib.get_close_matches(name_or_path, names(), 1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise ScenarioError(
            f"no scenario is called {name_or_path!r}; {hint}there are: {', '.join(names())}, or give a .yaml file"
        )
    return built_in


def _check_flip(scenario: Scenario, plan: NetworkPlan, where: str) -> None:
    nodes = [h.name for h in plan.hosts if h.role == "data"]
    for name in scenario.data.flip:
        if name not in nodes:
            raise ScenarioError(
                f"scenario {where}: data.flip names {name!r}, which is no data node; there are: {', '.join(nodes)}"
            )


def _says(raw: Any) -> str:
    try:
        msgspec.convert(raw, Scenario)
    except msgspec.ValidationError as error:
        return _one_line(error)
    return ""


def _explain(error: msgspec.ValidationError, raw: dict[str, Any]) -> str:
    """Turn msgspec's message into one that names the nearest right key."""
    text = _one_line(error)
    unknown = re.match(r"Object contains unknown field `([^`]*)`(?: - at `([^`]*)`)?", text)
    if kind := re.match(r"Invalid enum value '(.*)' - at `\$\.kas\[.*\]\.kind`", text):
        near = difflib.get_close_matches(kind.group(1), KINDS, 1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        return f"no kind of K-AS is called {kind.group(1)!r} (key kas); {hint}there are: {', '.join(KINDS)}"
    if unknown is None:
        text = with_keys(text, raw, _says)
        got = re.search(r"Expected `str.*got `(bool|int|float)`", text)
        text += "; YAML takes it for no text: put quotes around it" if got else ""
        return text.replace(" `$", " `scenario")
    key, path = unknown.group(1), unknown.group(2) or "$"
    place = re.sub(r"\[[^]]*\]", "[]", path)
    known = sorted(_STRUCT_AT.get(place, Scenario).__struct_fields__)
    near = difflib.get_close_matches(key, known, 1)
    path = path if unknown.group(2) is None else with_keys(text, raw, _says).rpartition(" - at `")[2].rstrip("`")
    hint = f"did you mean {near[0]!r}?" if near else f"known keys are: {', '.join(known)}"
    return f"unknown key {key!r} at {path.removeprefix('$').removeprefix('.') or 'the top level'}; {hint}"


_STRUCT_AT: dict[str, type[msgspec.Struct]] = {
    "$": Scenario,
    "$.network": NetworkSpec,
    "$.network.kas[]": KasSpec,
    "$.network.roles": RolesSpec,
    "$.network.wan[]": WanSpec,
    "$.kas[]": KasKind,
    "$.data": TaskSpec,
    "$.jobs[]": JobSpec,
    "$.jobs[].hyper": Fixed,
    "$.query": QuerySpec,
    "$.queries": QueriesSpec,
    "$.queries.need": NeedSpec,
    "$.events[]": TimedEvent,
    "$.cats[]": OwnMetric,
}


def known_keys() -> list[str]:
    """Return every key of a scenario with its place: ``seed``, ``jobs.max_visits`` ..."""
    places = {
        place.replace("[]", "").removeprefix("$").removeprefix("."): struct for place, struct in _STRUCT_AT.items()
    }
    return sorted(f"{place}.{key}".removeprefix(".") for place, s in places.items() for key in s.__struct_fields__)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
