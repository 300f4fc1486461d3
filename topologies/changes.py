"""What happens to a standing network: a link goes down and comes back, changes its rate or delay; a switch dies."""

from __future__ import annotations

from typing import Any

import msgspec

from topologies import wiring
from topologies.build import validate
from topologies.custom import PlanLink
from topologies.errors import PlanError, UnsupportedLinkError
from topologies.machine import netns, shell
from topologies.network import Network


def link_named(network: Network, name: str) -> PlanLink:
    """Return the link of this name (``LinkPlan.name``); ``PlanError`` when there is none."""
    found: PlanLink | None = next((link for link in network.links if link.plan.name == name), None)
    if found is None:
        raise PlanError(f"there is no link {name} in this network")
    return found


def set_link(network: Network, name: str, *, up: bool) -> None:
    """Take a link down, or bring it up again, at both of its ends; a terminal's route comes back with its link."""
    link = link_named(network, name)
    for intf in (link.intf1, link.intf2):
        if intf is not None:
            intf.ifconfig("up" if up else "down")


def change_link(network: Network, name: str, **changes: float) -> None:
    """Give a link another ``rate_mbps``, ``delay_ms``, ``loss_percent``; ``UnsupportedLinkError`` where this kernel,
    without netem, cannot change a delay line that runs.
    """
    link = link_named(network, name)
    before = link.plan
    plan = msgspec.structs.replace(before, **changes)
    validate(msgspec.structs.replace(network.plan, links=[plan if x is before else x for x in network.plan.links]))
    slow = (plan.delay_ms, plan.loss_percent) != (before.delay_ms, before.loss_percent)
    if slow and not link.session.netem:
        raise UnsupportedLinkError(
            f"link {name}: without netem in the kernel its delay and loss cannot be changed while it stands; "
            "its rate can"
        )
    link.plan = plan
    for intf in (link.intf1, link.intf2):
        if intf is not None:
            _, *changed = wiring.shape_lines(plan, intf.name, link.session.netem)  # HTB's root takes no change
            _shape(network, intf, changed)


def _shape(network: Network, intf: Any, lines: list[wiring.Line]) -> None:
    pid = network.namespace_pid(intf.node.name)
    if pid is None:
        shell.batch("tc", lines)
    else:
        netns.inside(pid, lambda: shell.batch("tc", lines))


def kill_switch(network: Network, name: str) -> None:
    """End a switch as a power cut would: its links lose their carrier, its bridge and its rules are gone."""
    switch = next((s for s in network.switches if s.name == name), None)
    if switch is None:
        raise PlanError(f"there is no switch {name} in this network")
    for link in network.links:
        if name in (link.plan.a, link.plan.b):  # a wire filter hands no loss of carrier on: both ends
            set_link(network, link.plan.name, up=False)
    switch.stop(deleteIntfs=False)
