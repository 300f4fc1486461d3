"""Ordinary traffic beside the AI's: pairs of hosts between which iperf3 sends, from when the agents are there.

::

    background:
      - {from: h11, to: h43, rate_mbps: 20}               # UDP at a rate
      - {from: h12, to: h31, protocol: tcp}               # TCP, as fast as it gets
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

import msgspec

from experiments.errors import ScenarioError
from experiments.scenarios.events import one_of
from topologies.plan import NetworkPlan


class Pair(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename={"sender": "from", "receiver": "to"}
):
    """One flow. ``rate_mbps``: of UDP it must be given, of TCP it is a limit (0: none)."""

    sender: str
    receiver: str
    rate_mbps: Annotated[float, msgspec.Meta(ge=0, le=10_000)] = 0.0
    protocol: Literal["udp", "tcp"] = "udp"


def check(pairs: Sequence[Pair], plan: NetworkPlan, where: str) -> None:
    """Check that pairs name two hosts that are there, and what UDP sends; ``ScenarioError``."""
    hosts = [h.name for h in plan.hosts]
    for pair in pairs:
        for name in (pair.sender, pair.receiver):
            one_of(name, hosts, f"scenario {where}: background names {name or 'nothing'}, which is no host")
        what = f"scenario {where}: background from {pair.sender} to {pair.receiver}"
        if pair.sender == pair.receiver:
            raise ScenarioError(f"{what}: a host does not send to itself; name two")
        if pair.protocol == "udp" and not pair.rate_mbps:
            raise ScenarioError(f"{what}: UDP needs a rate_mbps above 0; or give protocol: tcp")
