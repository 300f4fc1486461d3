"""What the process that forks the agents is told: task, data and policies, and every terminal of the whole network."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec

from experiments.scenarios.scenario import Scenario
from experiments.scenarios.steering import own_policies
from experiments.testbed.processes import python
from hosts.learning.task_spec import TaskSpec
from topologies.plan import NetworkPlan


def zygote_command(
    scenario: Scenario, whole: NetworkPlan, runtime: Path, seed: int, data: TaskSpec | None = None
) -> list[str]:
    """Write what the zygote reads; return the command that starts it. ``data``: other than the scenario's."""
    file = runtime / "agents.json"
    task, metrics = msgspec.to_builtins(data or scenario.data), msgspec.to_builtins(scenario.cats)
    own = {"metrics": metrics, "policies": own_policies(scenario.jobs)}
    file.write_text(json.dumps({"task": task, "nodes": _nodes(whole), **own}))
    (runtime / "zygote.sock").unlink(missing_ok=True)
    return python(
        "hosts.process.zygote", "--runtime-dir", str(runtime), "--events", str(runtime / "events.sock"),
        "--scenario", str(file), "--seed", str(seed),
    )  # fmt: skip


def _nodes(whole: NetworkPlan) -> list[dict[str, Any]]:
    """Return every terminal as the zygote wants it; ``index`` counts the nodes of a role."""
    nodes: list[dict[str, Any]] = []
    for host in whole.hosts:
        if host.role != "host":
            index = sum(n["role"] == host.role for n in nodes)
            nodes.append({k: getattr(host, k) for k in ("name", "role", "kas", "address")} | {"index": index})
    return nodes
