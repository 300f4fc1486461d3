"""What the network tests of topologies share."""

from __future__ import annotations

import os
import subprocess
from typing import Any

from tests.network.daitn import settings
from topologies.machine.ledger import RUN_BASE
from topologies.network import Network
from topologies.plan import NetworkPlan


def new_network(plan: NetworkPlan, run: str = "test") -> Network:
    """Return a network, not started, whose controllers (nobody) are on port 6699."""
    run_id = f"{run}-{os.getpid()}"
    return Network(plan, run_id, dict.fromkeys(plan.kas_numbers, 6699), RUN_BASE / run_id)


def output(*command: str) -> str:
    """Return what a command that has to succeed says."""
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=20).stdout


def traces() -> dict[str, Any]:
    """Everything that a network could leave behind."""
    return {
        "interfaces": set(os.listdir("/sys/class/net")),
        "bridges": set(output("ovs-vsctl", "list-br").split()),
        "ports": output("ovs-vsctl", "--no-headings", "--columns=name", "list", "Port").split(),
        "controllers": output("ovs-vsctl", "--no-headings", "--columns=target", "list", "Controller").split(),
        "qdiscs": output("tc", "qdisc", "show"),
        "settings": settings(),
        "runs": {path.name for path in RUN_BASE.glob("*") if path.is_dir()},
        "shells": subprocess.run(["pgrep", "-f", "mininet:"], capture_output=True, text=True).stdout,
        "wires": subprocess.run(["pgrep", "-x", "vde_plug|wirefilter"], capture_output=True, text=True).stdout,
    }
