"""What control centres, and the terminals of a distributed K-AS, are told of themselves: files in the run's folder."""

from __future__ import annotations

from pathlib import Path

import msgspec

from controller.placement.kinds import KasKind, housing, salt_of
from experiments.scenarios.scenario import Scenario, engine_setup
from hosts.process.config import HouseSpec, house_file
from packets.security.identity import write_private
from topologies.plan import NetworkPlan


def tell_control(runtime: Path, scenario: Scenario, plan: NetworkPlan, kas: int, seed: int) -> dict[str, object]:
    """Write the part of the network and the kind of one K-AS; return the options by which its control centre reads it.

    What the terminals of a distributed K-AS are born with is written beside it.
    """
    domain, salt = plan.domain(kas), b""
    if scenario.kas.get(kas, KasKind()).kind == "distributed":
        salt = salt_of(seed, [kas])
        write_private(house_file(runtime, kas), msgspec.json.encode(HouseSpec(plan=domain, salt=salt)))
    plan_file, kind_file = runtime / f"dcc{kas}.json", runtime / f"kind{kas}.json"
    plan_file.write_bytes(msgspec.json.encode(domain))
    write_private(kind_file, msgspec.json.encode(housing(scenario.kas, kas, salt)))
    return {"--plan": plan_file, "--kind": kind_file}


def tell_engines(runtime: Path, scenario: Scenario, kas: int) -> dict[str, object]:
    """Write which engines and metrics of one's own there are; return the option that names them (nothing: none)."""
    setup = engine_setup(scenario, kas)
    if not setup.own and not setup.cats:
        return {}
    file = runtime / f"engines{kas}.json"
    file.write_bytes(msgspec.json.encode(setup))
    return {"--engines": file}
