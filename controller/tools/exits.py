"""Where labelled packets come into a K-AS, and where they leave it."""

from __future__ import annotations

from dataclasses import dataclass

from controller.southbound import pipeline
from controller.southbound.openflow import Action, DecTtl, Output, SetField
from topologies.plan import ROUTER_MAC, HostPlan


@dataclass(frozen=True)
class Entry:
    """Where a label's packets come into a K-AS: a switch and its port."""

    switch: str
    port: int


@dataclass(frozen=True)
class Exit:
    """Where they leave it: a switch and its port; ``host`` when that is the rendezvous itself, else the next K-AS."""

    switch: str
    port: int
    host: HostPlan | None = None

    def actions(self) -> tuple[Action, ...]:
        """What the last switch does: output and, towards a terminal, its own addresses written in first."""
        if self.host is not None:
            return pipeline.to_host(self.host, rewrite_address=True)
        return (SetField("eth_dst", ROUTER_MAC), DecTtl(), Output(self.port))  # it may come from a detour
