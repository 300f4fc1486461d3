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

from controller.errors import PluginError
from controller.plugins.loading import absolute, check_name
from controller.plugins.setup import Setup
from experiments.errors import ScenarioError
from experiments.scenarios.events import TimedEvent
from experiments.scenarios.events import check as check_events
from hosts.learning.task_spec import TaskSpec
from packets.messages import Fixed, JobSpec
from topologies.build import Rates, Terminal, Wan, build_plan
from topologies.plan import NetworkPlan, Role

SCENARIO_FOLDER = Path(__file__).parent
Positive = Annotated[float, msgspec.Meta(gt=0)]
Count = Annotated[int, msgspec.Meta(ge=0, le=64)]


class KasSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How many terminals of each role one K-AS has."""

    data: Count = 0
    compute: Count = 0
    mpvu: Count = 0
    mdfp: Count = 0
    model_owner: Count = 0
    query_owner: Count = 0


class WanSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One WAN link between the gateways of two K-AS; delay is one way."""

    a: Annotated[int, msgspec.Meta(ge=1, le=255)]
    b: Annotated[int, msgspec.Meta(ge=1, le=255)]
    rate_mbps: Positive = 50.0
    delay_ms: Annotated[float, msgspec.Meta(ge=0)] = 10.0
    loss_percent: Annotated[float, msgspec.Meta(ge=0, lt=100)] = 0.0


class NetworkSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The network: K-AS by number, the WAN between them, rates inside, CPU shares (cores) by role."""

    kas: dict[int, KasSpec]
    wan: list[WanSpec]
    access_mbps: Positive = 100.0
    lan_mbps: Positive = 200.0
    cpu_share: dict[str, Positive] = {}
    data_may_move: bool | list[str] = False


class QuerySpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One query, put to the deployed model once it stands: a sample of this group."""

    group: str


class Scenario(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One experiment. ``jobs`` are submitted in order; one that T-FAM rejects is recorded and the next is tried.

    ``engines``: {engine: source} instead of the defaults, as of ``daitn engines``; a file's path is meant from where
    the scenario lies. ``events``: what happens to terminals meanwhile (``experiments.scenarios.events``). ``security:
    off`` leaves signatures, MACs and encryption out (packets/README.md, "Security").
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
    security: bool = True
    engines: dict[str, str] = {}
    events: Annotated[list[TimedEvent], msgspec.Meta(max_length=256)] = []


def names() -> list[str]:
    """Return the names of the built-in scenarios."""
    return sorted(p.stem for p in SCENARIO_FOLDER.glob("*.yaml"))


def load(name_or_path: str) -> Scenario:
    """Read a scenario by built-in name or path; ``ScenarioError`` names key, place and the nearest right key."""
    path = _find(name_or_path)
    try:
        raw = msgspec.yaml.decode(path.read_bytes())
    except (OSError, msgspec.DecodeError) as error:
        raise ScenarioError(f"scenario {path}: cannot be read as YAML: {_one_line(error)}") from None
    return from_raw(raw, str(path))


def from_raw(raw: Any, where: str) -> Scenario:
    """Check a decoded scenario; ``where`` names it in errors."""
    if not isinstance(raw, dict):
        raise ScenarioError(f"scenario {where}: a mapping of keys is expected, this is a {type(raw).__name__}")
    try:
        scenario = msgspec.convert(raw, Scenario)
    except msgspec.ValidationError as error:
        raise ScenarioError(f"scenario {where}: {_explain(error)}") from None
    scenario = with_engines(scenario, {}, where, Path(where).parent)
    _check_network(scenario.network, where)
    _check_flip(scenario, where)
    if scenario.events:
        check_events(scenario.events, {h.name: h.role for h in network_plan(scenario).hosts}, where)
    return scenario


def with_engines(scenario: Scenario, more: Mapping[str, str], where: str, folder: Path) -> Scenario:
    """Return a scenario with ``more`` engines, the files of its own found from ``folder``; ``ScenarioError`` for a name
    that is no engine's.
    """
    try:
        use = _resolved(scenario.engines | dict(more), folder)
        jobs = [msgspec.structs.replace(j, engines=_resolved(j.engines, folder)) for j in scenario.jobs]
    except PluginError as error:
        raise ScenarioError(f"scenario {where}: engines: {error}") from None
    return msgspec.structs.replace(scenario, engines=use, jobs=jobs)


def _resolved(engines: Mapping[str, str], folder: Path) -> dict[str, str]:
    for name in engines:
        check_name(name)
    return {name: absolute(source, folder) for name, source in engines.items()}


def engine_setup(scenario: Scenario) -> Setup:
    """Return what the control centres of a scenario are told of engines."""
    return Setup.of(scenario.engines, [job.engines for job in scenario.jobs])


def dump(scenario: Scenario) -> bytes:
    """Return the resolved scenario as YAML, every default written out."""
    return msgspec.yaml.encode(scenario)


def network_plan(scenario: Scenario) -> NetworkPlan:
    """Declare the scenario's network: ``h<k><n>`` data nodes, and a name from its role for every other terminal."""
    network = scenario.network
    rates = Rates(access_mbps=network.access_mbps, lan_mbps=network.lan_mbps)
    wan = [Wan(w.a, w.b, w.rate_mbps, w.delay_ms, w.loss_percent) for w in network.wan]
    return build_plan(
        scenario.name, kas={k: _terminals(k, spec, network) for k, spec in network.kas.items()}, wan=wan, rates=rates
    )


def _terminals(kas: int, spec: KasSpec, network: NetworkSpec) -> list[Terminal]:
    built = []
    for role, stem in _STEMS.items():
        count = getattr(spec, role)
        for number in range(1, count + 1):
            name = f"{stem}{kas}{number}" if role == "data" else f"{stem}{kas}" + (f"n{number}" if count > 1 else "")
            movable = (
                network.data_may_move if isinstance(network.data_may_move, bool) else name in network.data_may_move
            )
            share = network.cpu_share.get(role, 1.0)
            built.append(Terminal(name, role, cpu_share=share, data_may_move=movable and role == "data"))
    return built


_STEMS: dict[Role, str] = {
    "data": "h", "compute": "c", "mpvu": "mpvu", "mdfp": "mdfp", "model_owner": "owner", "query_owner": "asker"
}  # fmt: skip


def _find(name_or_path: str) -> Path:
    path = Path(name_or_path)
    if path.suffix in {".yaml", ".yml"} or "/" in name_or_path:
        if not path.is_file():
            raise ScenarioError(
                f"scenario file {name_or_path} does not exist; give a YAML file's path or one of: {', '.join(names())}"
            )
        return path
    built_in = SCENARIO_FOLDER / f"{name_or_path}.yaml"
    if not built_in.is_file():
        near = difflib.get_close_matches(name_or_path, names(), 1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise ScenarioError(
            f"no scenario is called {name_or_path!r}; {hint}there are: {', '.join(names())}, or give a .yaml file"
        )
    return built_in


def _check_network(network: NetworkSpec, where: str) -> None:
    if not network.kas:
        raise ScenarioError(
            f"scenario {where}: network.kas is empty; declare at least one K-AS, for example `1: {{data: 3}}`"
        )
    for number in network.kas:
        if not 1 <= number <= 250:
            raise ScenarioError(f"scenario {where}: K-AS number {number} in network.kas is not in 1..250")
    for role in ("data", "mpvu", "model_owner"):
        if not any(getattr(kas, role) for kas in network.kas.values()):
            raise ScenarioError(f"scenario {where}: no K-AS in network.kas has a {role}; add `{role}: 1` to one")
    for link in network.wan:
        for end in (link.a, link.b):
            if end not in network.kas:
                raise ScenarioError(
                    f"scenario {where}: WAN link {link.a}-{link.b} names K-AS {end}, which network.kas does not declare"
                )


def _check_flip(scenario: Scenario, where: str) -> None:
    nodes = [h.name for h in network_plan(scenario).hosts if h.role == "data"] if scenario.data.flip else []
    for name in scenario.data.flip:
        if name not in nodes:
            raise ScenarioError(
                f"scenario {where}: data.flip names {name!r}, which is no data node; there are: {', '.join(nodes)}"
            )


def _explain(error: msgspec.ValidationError) -> str:
    """Turn msgspec's message into one that names the nearest right key."""
    text = _one_line(error)
    unknown = re.match(r"Object contains unknown field `([^`]*)`(?: - at `([^`]*)`)?", text)
    if unknown is None:
        return text.replace(" - at `$", " - at `scenario")
    key, path = unknown.group(1), unknown.group(2) or "$"
    place = re.sub(r"\[[^]]*\]", "[]", path)
    known = sorted(_STRUCT_AT.get(place, Scenario).__struct_fields__)
    near = difflib.get_close_matches(key, known, 1)
    hint = f"did you mean {near[0]!r}?" if near else f"known keys are: {', '.join(known)}"
    return f"unknown key {key!r} at {path.removeprefix('$').removeprefix('.') or 'the top level'}; {hint}"


_STRUCT_AT: dict[str, type[msgspec.Struct]] = {
    "$": Scenario,
    "$.network": NetworkSpec,
    "$.network.kas[]": KasSpec,
    "$.network.wan[]": WanSpec,
    "$.data": TaskSpec,
    "$.jobs[]": JobSpec,
    "$.jobs[].hyper": Fixed,
    "$.query": QuerySpec,
    "$.events[]": TimedEvent,
}


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
