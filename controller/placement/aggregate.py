"""An abstract terminal as tier 1 sees it: one terminal, whose attributes are sums and mixes, and no member's name."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import msgspec

from controller.errors import PlanError
from controller.topology.krrm import MAX_GROUPS
from controller.values.knowledge import Attribute, Node
from topologies.plan import DomainPlan, HostPlan, LinkPlan

NOWHERE = "0.0.0.0"
MEANS = ("quality", "trust", "data_age_s")  # of the data nodes that say so, weighted by samples


def aggregate(members: Collection[Node], movable: Collection[str]) -> dict[str, Attribute]:
    """Return the attributes of members taken as one, each as old as the oldest that it rests on ({}: no data there).

    Samples are summed, mixes and shares weighted by them; the speed is that of the place which is free soonest, where a
    compute facility counts when some data may move to it (``movable``: the data nodes of which it may).
    """
    here = [n for n in members if n.get("reachable", True)]
    data = [n for n in here if n.role == "data" and n.get("samples", 0) > 0]
    if not data:
        return {}
    places = data + [n for n in here if n.role == "compute" and any(d.name in movable for d in data)]
    soonest = max(places, key=_free_speed)
    found = {
        "samples": _made(sum(n.get("samples") for n in data), data, "samples"),
        "group_shares": _made(_mix(data), data, "group_shares"),
        "compute_samples_per_s": _made(soonest.get("compute_samples_per_s", 0.0), [soonest], "compute_samples_per_s"),
        "queue": _made(soonest.get("queue", 0), [soonest], "queue"),
        "reachable": _made(True, data, "samples"),
    }
    for name in MEANS:
        if told := [n for n in data if name in n.attributes]:
            found[name] = _made(_mean(told, name), told, name)
    if told := [n for n in data if "sample_bytes" in n.attributes]:
        found["sample_bytes"] = _made(max(1, round(_mean(told, "sample_bytes"))), told, "sample_bytes")
    if all("available_s" in n.attributes for n in data):
        found["available_s"] = _made(max(n.get("available_s") for n in data), data, "available_s")
    return found


def _made(value: Any, of: Iterable[Node], attribute: str) -> Attribute:
    return Attribute(value, min((n.attributes[attribute].t_s for n in of if attribute in n.attributes), default=0.0))


def _free_speed(node: Node) -> float:
    return float(node.get("compute_samples_per_s", 0.0) / (1 + node.get("queue", 0)))


def _mean(nodes: Sequence[Node], attribute: str) -> float:
    total = sum(n.get("samples") for n in nodes)
    return float(sum(n.get(attribute) * n.get("samples") for n in nodes) / total)


def _mix(data: Sequence[Node]) -> dict[str, float]:
    """Return the mix of all samples together: of more groups than a map holds, the largest."""
    held: dict[str, float] = {}
    for node in data:
        for group, share in node.get("group_shares", {}).items():
            held[group] = held.get(group, 0.0) + share * node.get("samples")
    kept = sorted(held, key=lambda g: (-held[g], g))[:MAX_GROUPS]
    total = sum(held[g] for g in kept)
    return {g: held[g] / total for g in sorted(kept)} if total else {}


# --- the plan


def outside(plan: DomainPlan, groups: Mapping[str, Collection[str]]) -> DomainPlan:
    """Return a domain as tier 1 knows it: each group of terminals is one, at the place of its widest access link."""
    members = _members(plan, groups)
    hidden = {member for names in groups.values() for member in names}
    access = {link.a: link for link in plan.links if link.a in hidden}
    hosts = [h for h in plan.hosts if h.name not in hidden]
    links = [link for link in plan.links if link.a not in hidden]
    for name in groups:
        door = max(members[name], key=lambda h: access[h.name].rate_mbps)
        hosts.append(msgspec.structs.replace(door, name=name, role="data", address=NOWHERE, data_may_move=False))
        links.append(msgspec.structs.replace(access[door.name], a=name))
    return msgspec.structs.replace(plan, hosts=hosts, links=links)


def insides(plan: DomainPlan, groups: Mapping[str, Collection[str]]) -> dict[str, DomainPlan]:
    """Return a domain as the tier-2 control centre of each group knows it: its terminals, and the ways to them."""
    members = _members(plan, groups)
    at = {member: name for name, names in groups.items() for member in names}
    hosts, links = {h.name for h in plan.hosts}, {name: list[LinkPlan]() for name in groups}
    for link in plan.links:
        if link.a in at:
            links[at[link.a]].append(link)
        elif link.a not in hosts:  # between switches: on everybody's way
            for known in links.values():
                known.append(link)
    return {n: msgspec.structs.replace(plan, hosts=members[n], links=links[n]) for n in groups}


def _members(plan: DomainPlan, groups: Mapping[str, Collection[str]]) -> dict[str, list[HostPlan]]:
    """Return the terminals of each group, in the plan's order; ``PlanError`` when the plan lacks one."""
    at = {member: name for name, names in groups.items() for member in names}
    found: dict[str, list[HostPlan]] = {name: [] for name in groups}
    for host in plan.hosts:
        if host.name in at:
            found[at[host.name]].append(host)
    for name, names in groups.items():
        if missing := set(names) - {h.name for h in found[name]}:
            raise PlanError(f"--kind: abstract terminal {name}: the plan has no terminal {', '.join(sorted(missing))}")
    return found
