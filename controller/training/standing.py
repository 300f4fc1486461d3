"""Who is trusted, and why: MPVU evidence and false reports become trust in the map (``topology.trust`` does the sums).

Only the DCC of a terminal's own K-AS knows which terminal stood behind a visit; the job's home sends it what the MPVU
measured before and after (``border.messages.Evidence``), and gets no name back.
"""

from __future__ import annotations

from controller.access.gathering import Gathering
from controller.border.messages import Evidence
from controller.services import Services
from controller.topology import trust
from controller.topology.trust import Ledger

NEWS = 1e-4  # a liar goes on lying; what changes nothing is not told and not written down


class Trusting:
    """Holds the standing of the terminals of one domain."""

    def __init__(self, services: Services, gathering: Gathering) -> None:
        self.services, self.gathering = services, gathering
        self.ledger = Ledger(services.store.kept("standings", str, trust.Standing))
        self._trained = services.store.kept("visits trained", tuple[int, int], str)
        gathering.on_bad = self.bad_report
        gathering.on_join = self.joined

    def joined(self, name: str) -> None:
        """A terminal that comes back has the standing with which it left."""
        if self.ledger.has(name):
            self.gathering.noted(name, {"trust": round(self.ledger.trust(name), 4)})

    def trained(self, object_id: int, visit: int, data_node: str) -> None:
        """A model trained on a node's data; the evidence comes later."""
        self._trained[object_id, visit] = data_node

    def bad_report(self, name: str, why: str) -> None:
        """A terminal reported what cannot be true."""
        self._take(name, trust.bad_report(), {"report": why[:200]})

    def judge(self, evidence: Evidence) -> None:
        """Take what an MPVU measured around one visit in this domain."""
        name = self._trained.get((evidence.object_id, evidence.visit))
        if name is None or name not in self.services.krrm:
            return
        node = self.services.krrm.node(name)
        found = trust.seen(
            node.get("group_shares", {}),
            node.get("quality", 0.5),
            evidence.before,
            evidence.after,
            latest=evidence.share == 1.0,
        ).shared(evidence.share)
        self._take(name, found, {"object_id": evidence.object_id, "visit": evidence.visit})

    def _take(self, name: str, evidence: trust.Evidence, about: dict[str, object]) -> None:
        if name not in self.services.krrm:
            return
        before, now = self.ledger.trust(name), self.ledger.take(name, evidence)
        if abs(now - before) < NEWS:
            return
        kas = self.services.krrm.node(name).kas
        self.gathering.noted(name, {"trust": round(now, 4)})
        self.services.store.trust(name, kas, now, evidence.why)
        self.services.emit(
            "trust.changed", name=name, kas=kas, trust=round(now, 4), before=round(before, 4), why=evidence.why, **about
        )
