"""Agents of ``bench-scale``: the zygote's own, each of which also trains one epoch on its own data when it is born.

    python -m benchmarks.scale_agents --runtime-dir DIR ...      # the zygote's command line

``grow`` has one forked into every terminal of a standing network.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from pathlib import Path
from typing import Any

import msgspec

from benchmarks.common import NotSeen, python
from controller.oam.hub import EventHub
from experiments.testbed import terminal
from experiments.testbed.counters import memory_mib, run_processes
from experiments.testbed.processes import Child
from topologies.network import Network
from topologies.plan import HostPlan

PATIENCE_S = 200.0
SAMPLES = 64  # of a node: a step is one batch of them
LATE_S = 0.5


def grow(network: Network, folder: Path, hub: EventHub, own: list[int]) -> dict[str, Any]:
    """Fork an agent into every terminal; return when all have registered and trained, and the run's memory then."""
    runtime, run_id, hosts = folder / "run", network.run_id, network.plan.hosts
    file = folder / "agents.json"
    nodes = [{"name": h.name, "role": h.role, "kas": h.kas, "index": n} for n, h in enumerate(hosts)]
    file.write_text(
        json.dumps({"task": {"name": "vignettes", "train_per_node": SAMPLES, "test_per_node": 16}, "nodes": nodes})
    )
    registered, trained = set[str](), set[str]()

    def heard(event: Any) -> None:
        if event.kind in ("agent.ready", "bench.trained"):
            (registered if event.kind == "agent.ready" else trained).add(str(event.data.get("name")))

    hub.add_listener(heard)
    words = ("--runtime-dir", str(runtime), "--events", str(runtime / "events.sock"), "--scenario", str(file))
    begin = time.monotonic()
    zygote = Child("zygote", python("benchmarks.scale_agents", *words), folder / "zygote.log", run_id)
    try:
        _wait(zygote, "the zygote", (runtime / "zygote.sock").exists)
        loaded_s = time.monotonic() - begin
        for host in hosts:
            order = {"host": msgspec.to_builtins(host), "netns_pid": network[host.name].pid}
            terminal.call(runtime / "zygote.sock", "fork", **order, cgroup=None, keys=None)
        _wait(zygote, "the agents, registered and trained", lambda: len(registered & trained) == len(hosts))
        up_s = time.monotonic() - begin
        memory = memory_mib([*own, *run_processes(run_id)])
    finally:
        zygote.stop()
    return {
        "agents": len(hosts),
        "agents_loaded_s": round(loaded_s, 2),
        "agents_up_s": round(up_s, 2),
        "agents_rss_mib": round(memory, 1),
    }


def _wait(zygote: Child, what: str, true: Any) -> None:
    end = time.monotonic() + PATIENCE_S
    while not true():
        zygote.check()
        if time.monotonic() > end:
            raise NotSeen(f"{what}: not within {PATIENCE_S:g} s")
        time.sleep(0.05)


def main(arguments: list[str] | None = None) -> int:
    """Be the zygote, whose children train once."""
    from hosts.agent import Agent
    from hosts.learning.spec import TrainSettings
    from hosts.process import birth, zygote
    from hosts.process.memory import give_back

    class Schooling(birth.Birth):
        """A birth after which the newborn trains."""

        def settle(self, order: birth.Order, namespace: int, parent: int) -> Agent:
            agent = super().settle(order, namespace, parent)
            threading.Timer(LATE_S, self._train, (agent, order.host)).start()
            return agent

        @staticmethod
        def _train(agent: Agent, host: HostPlan) -> None:
            task, data = agent.terminal.task, agent.terminal.data
            assert data is not None, "every terminal of this benchmark is a data node"
            result = task.train(task.new_model(0), data.train, TrainSettings(epochs=1.0))
            give_back()  # as after every visit
            agent.emit("bench.trained", name=host.name, samples=len(data.train), loss=result.loss)

    birth.Birth = Schooling  # type: ignore[misc]  # what the zygote's main takes
    return zygote.main(arguments)


if __name__ == "__main__":
    sys.exit(main())
