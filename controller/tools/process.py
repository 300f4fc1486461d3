"""Compute and process management: who is alive, who is reachable, and who must be taken for dead."""

from __future__ import annotations

from controller.domain import Domain
from controller.topology.krrm import Krrm

SILENT_S = 15.0


class Processes:
    """Liveness of the terminals of a domain, from their reports and from the state of their ports."""

    def __init__(self, domain: Domain, krrm: Krrm, *, silent_s: float = SILENT_S) -> None:
        self.domain, self.krrm, self.silent_s = domain, krrm, silent_s

    def dead(self, now_s: float) -> list[str]:
        """Return the terminals on the map whose port is down, or that have been silent for too long."""
        unplugged = {h.name for at, h in self.domain.host_at.items() if at in self.domain.down and h.name in self.krrm}
        return sorted(unplugged.union(self.krrm.stale(now_s, self.silent_s)))

    def reachable(self, node: str) -> bool:
        """Tell whether a declared terminal's port is up."""
        host = self.domain.hosts.get(node)
        return host is not None and (host.switch, host.port) not in self.domain.down
