"""The network of a scenario: how it is said, and the plan that comes of it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import msgspec

from experiments.errors import ScenarioError
from topologies.build import Rates, Terminal, Wan, build_plan, check_reach
from topologies.own.files import absolute
from topologies.own.graphs import LONGEST_NAME, STEMS, TOPOHUB, Rules, graph_plan, terminal_name
from topologies.own.profiles import Profile, profile
from topologies.plan import NetworkPlan

Positive = Annotated[float, msgspec.Meta(gt=0)]
Many = Annotated[int, msgspec.Meta(ge=0, le=2000)]
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
    """One WAN link between the gateways of two K-AS; delay is one way.

    What is not said is that of ``profile`` (``topologies.own.profiles``), else 50 Mbit/s, 10 ms, no loss.
    """

    a: Annotated[int, msgspec.Meta(ge=1, le=255)]
    b: Annotated[int, msgspec.Meta(ge=1, le=255)]
    rate_mbps: Positive | None = None
    delay_ms: Annotated[float, msgspec.Meta(ge=0)] | None = None
    loss_percent: Annotated[float, msgspec.Meta(ge=0, lt=100)] | None = None
    profile: str = ""


class RolesSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How many terminals of each role a whole network from a graph has."""

    data: Many = 12
    compute: Many = 4
    mpvu: Many = 2
    mdfp: Many = 2
    model_owner: Many = 1
    query_owner: Many = 1


class NetworkSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The network, in one of three ways: ``kas`` and ``wan``; ``graph``: a file or ``topohub:NAME``; ``topo``:
    ``file.py:Class``, a subclass of ``topologies.own.topo.Topo``.

    Of a graph: ``kas_by``, ``parts``, ``delay_by``, ``least_delay_ms``, ``rate_by``, ``partition_seed`` and ``roles``
    are read as ``topologies.own.graphs.Rules`` says. ``cpu_share``: cores by role, or by
    a terminal's name, which goes first.
    """

    kas: dict[int, KasSpec] = {}
    wan: list[WanSpec] = []
    graph: str = ""
    topo: str = ""
    roles: RolesSpec = RolesSpec()
    kas_by: str = "fluid"
    parts: Annotated[int, msgspec.Meta(ge=1, le=250)] = 4
    partition_seed: Annotated[int, msgspec.Meta(ge=0)] = 0
    delay_by: str = "distance"
    least_delay_ms: Annotated[float, msgspec.Meta(ge=0)] = 0.0
    rate_by: str = ""
    access_mbps: Positive = 100.0
    lan_mbps: Positive = 200.0
    wan_mbps: Positive = 50.0
    cpu_share: dict[str, Positive] = {}
    data_may_move: bool | list[str] = False


USUAL = Profile(50.0, 10.0)
FEW_DATA = 3
NEEDED = ("data", "mpvu", "model_owner")


def resolved(network: NetworkSpec, folder: Path) -> NetworkSpec:
    """Return the same network with the paths of its files meant from ``folder``."""
    changes = {}
    if network.graph and not network.graph.startswith(TOPOHUB):
        changes["graph"] = str((folder / network.graph).resolve())
    if network.topo:
        changes["topo"] = absolute(network.topo, folder)
    return msgspec.structs.replace(network, **changes)


def check_network(network: NetworkSpec, where: str) -> None:
    """Check what can be checked without making the plan; ``ScenarioError``."""
    said = [key for key in ("kas", "graph", "topo") if getattr(network, key)]
    if len(said) > 1:
        raise ScenarioError(f"scenario {where}: network says {' and '.join(said)}: one of them is the network")
    if not said:
        raise ScenarioError(
            f"scenario {where}: network.kas is empty; declare at least one K-AS, for example `1: {{data: 3}}`"
        )
    for number in network.kas:
        if not 1 <= number <= 250:
            raise ScenarioError(f"scenario {where}: K-AS number {number} in network.kas is not in 1..250")
    for link in network.wan:
        for end in (link.a, link.b):
            if end not in network.kas:
                raise ScenarioError(
                    f"scenario {where}: WAN link {link.a}-{link.b} names K-AS {end}, which network.kas does not declare"
                )


def check_roles(plan: NetworkPlan, network: NetworkSpec, where: str) -> None:
    """Check that every role that a job needs is there; ``ScenarioError``."""
    for role in NEEDED:
        if not any(h.role == role for h in plan.hosts):
            place = "K-AS in network.kas" if network.kas else "terminal of the network"
            cure = f"add `{role}: 1` to one" if network.kas else f"it needs one with role {role}"
            raise ScenarioError(f"scenario {where}: no {place} has a {role}; {cure}")


def lacking(plan: NetworkPlan, *, asks: bool) -> list[str]:
    """Return what a network does without, a line each: none of it keeps a run from starting. ``asks``: a query."""
    roles = [h.role for h in plan.hosts]
    notes = []
    if len(plan.kas_numbers) == 1 and len(plan.switches) > 1:
        notes.append("all switches are in one K-AS: one control centre, nothing between K-AS to be seen")
    if roles.count("data") < FEW_DATA:
        notes.append(
            f"{roles.count('data')} data node(s): a model learns what they hold and no more, and T-FAM rejects a "
            f"request that this cannot meet; the main job takes two to four"
        )
    if roles.count("mpvu") == 1:
        notes.append("one mpvu: nobody confirms what it measured; a second one has samples that no verdict saw")
    if "mdfp" not in roles:
        notes.append("no mdfp: the trained model is not deployed, and no query can be answered")
    elif asks and "query_owner" not in roles:
        notes.append("no query_owner: the scenario's query is left out")
    return notes


def plan_of(name: str, network: NetworkSpec) -> NetworkPlan:
    """Make the plan of a network; ``TopologyError`` names what is wrong with it."""
    if network.topo:
        from topologies.own.topo import load_topo  # brings Mininet along: not for every command

        return _movable(load_topo(network.topo), network)
    rates = Rates(access_mbps=network.access_mbps, lan_mbps=network.lan_mbps, wan_mbps=network.wan_mbps)
    if network.graph:
        rules = Rules(
            roles=msgspec.structs.asdict(network.roles), kas_by=network.kas_by, parts=network.parts,
            delay_by=network.delay_by, least_delay_ms=network.least_delay_ms, rate_by=network.rate_by, rates=rates,
            seed=network.partition_seed, cpu_share=network.cpu_share, data_may_move=network.data_may_move,
        )  # fmt: skip
        return graph_plan(name, network.graph, rules)
    many = max(network.kas) > 9 or any(spec.data > 9 for spec in network.kas.values())
    plan = build_plan(
        name,
        kas={k: _terminals(k, spec, network, many) for k, spec in network.kas.items()},
        wan=[_wan(link) for link in network.wan],
        rates=rates,
    )
    check_reach(plan)
    return plan


def _movable(plan: NetworkPlan, network: NetworkSpec) -> NetworkPlan:
    if network.data_may_move is not True:
        return plan
    hosts = [msgspec.structs.replace(h, data_may_move=h.role == "data") for h in plan.hosts]
    return msgspec.structs.replace(plan, hosts=hosts)


def _wan(link: WanSpec) -> Wan:
    usual = profile(link.profile) if link.profile else USUAL
    said = (link.rate_mbps, link.delay_ms, link.loss_percent)
    return Wan(link.a, link.b, *(u if s is None else s for s, u in zip(said, usual, strict=True)))


def _terminals(kas: int, spec: KasSpec, network: NetworkSpec, many: bool) -> list[Terminal]:
    """Name and place the terminals of a K-AS. ``many``: h111 could be the 11th of K-AS 1 or the 1st of K-AS 11."""
    built = []
    for role, stems in STEMS.items():
        count = getattr(spec, role)
        for number in range(1, count + 1):
            name = _name(stems, kas, number, alone=count == 1, apart=many)
            movable = (
                network.data_may_move if isinstance(network.data_may_move, bool) else name in network.data_may_move
            )
            share = network.cpu_share.get(name, network.cpu_share.get(role, 1.0))
            built.append(Terminal(name, role, cpu_share=share, data_may_move=movable and role == "data"))
    return built


def _name(stems: tuple[str, str], kas: int, number: int, *, alone: bool, apart: bool) -> str:
    if stems[0] == "h":
        return terminal_name(stems, kas, number) if apart else f"h{kas}{number}"
    usual = f"{stems[0]}{kas}" + ("" if alone else f"n{number}")
    return usual if len(usual) <= LONGEST_NAME else terminal_name(stems, kas, number)
