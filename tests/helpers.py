"""Waits and assertions in the words of the testbed, for every tier (``from tests.helpers import wait_until``)."""

from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Callable
from typing import TypeVar

from topologies.plan import ROUTER_MAC, HostPlan, NetworkPlan

T = TypeVar("T")


def wait_until(predicate: Callable[[], T], timeout_s: float, what: str = "", interval_s: float = 0.05) -> T:
    """Ask until the answer is true and return it; ``AssertionError`` names what did not come, and the last answer."""
    end = time.monotonic() + timeout_s
    while not (answer := predicate()):
        if time.monotonic() >= end:
            raise AssertionError(f"not within {timeout_s:g} s: {what or predicate.__name__} (last answer: {answer!r})")
        time.sleep(interval_s)
    return answer


def assert_path(
    plan: NetworkPlan,
    source: str,
    target: str,
    via: list[str],
    *,
    destination: str | None = None,
    udp_port: int = 9,
    bridge: Callable[[str], str] = str,
) -> None:
    """Assert that a packet from one host to another crosses exactly these switches, in this order.

    Asks Open vSwitch itself (``ofproto/trace``): nothing is sent and no counter is touched.  ``destination`` is the
    IPv4 destination when it is not the target's own address (a label); ``bridge`` maps a switch to its bridge's name.
    """
    wanted = destination or host_of(plan, target).address
    path, end = trace_path(plan, source, wanted, udp_port=udp_port, bridge=bridge)
    assert (path, end) == (via, target), f"{source} -> {target}: by {path} to {end}, expected by {via}"


def host_of(plan: NetworkPlan, name: str) -> HostPlan:
    """Return a host of a plan by its name."""
    return next(host for host in plan.hosts if host.name == name)


def trace_path(
    plan: NetworkPlan,
    source: str,
    destination: str,
    *,
    udp_port: int = 9,
    bridge: Callable[[str], str] = str,
) -> tuple[list[str], str]:
    """Return the switches that a UDP packet crosses, and its end: a host, ``dropped``, ``loop`` or ``CONTROLLER``."""
    host = host_of(plan, source)
    far_end = _far_ends(plan)
    switch, port = host.switch, host.port
    fields = {"dl_src": host.mac, "dl_dst": ROUTER_MAC, "nw_src": host.address, "nw_dst": destination, "nw_ttl": "64"}
    path: list[str] = []
    while switch not in path:
        path.append(switch)
        text = _trace(bridge(switch), port, fields, udp_port)
        outputs = _outputs(text)
        if len(outputs) != 1:
            return path, "dropped" if not outputs else f"copied to {outputs}"
        if outputs[0] == "CONTROLLER":
            return path, "CONTROLLER"
        fields |= _rewritten(text)
        switch, port = far_end[switch, int(outputs[0])]
        if port == HOST_PORT:
            return path, switch
    return path, "loop"


HOST_PORT = 0
FIELD_NAMES = {"eth_src": "dl_src", "eth_dst": "dl_dst", "ip_src": "nw_src", "ip_dst": "nw_dst"}


def _far_ends(plan: NetworkPlan) -> dict[tuple[str, int], tuple[str, int]]:
    hosts = {host.name for host in plan.hosts}
    ends: dict[tuple[str, int], tuple[str, int]] = {}
    for link in plan.links:
        a = (link.a, HOST_PORT if link.a in hosts else link.a_port)
        ends[a] = (link.b, link.b_port)
        ends[link.b, link.b_port] = a
    return ends


def _trace(bridge: str, port: int, fields: dict[str, str], udp_port: int) -> str:
    flow = f"in_port={port},udp,udp_dst={udp_port}," + ",".join(f"{k}={v}" for k, v in fields.items())
    command = ["ovs-appctl", "--timeout=5", "ofproto/trace", bridge, flow]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout


def _outputs(text: str) -> list[str]:
    found = re.findall(r"^\s*(?:output:|-> output port is )(\w+)|^\s*(CONTROLLER):", text, re.MULTILINE)
    return list(dict.fromkeys(number or controller for number, controller in found))


def _rewritten(text: str) -> dict[str, str]:
    """Header fields as the packet leaves the switch: the last value that an action of the trace gave each."""
    changed = {FIELD_NAMES[f]: v for v, f in re.findall(r"set_field:([\w.:]+)->(\w+)", text) if f in FIELD_NAMES}
    return changed | dict(re.findall(r"\bmod_((?:dl|nw)_(?:src|dst)):([\w.:]+)", text))
