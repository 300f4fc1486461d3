"""The health of deployed models: one that falls silent gets no more queries, within a quarter of a second under load.

A terminal is given up by ``steering.liveness`` only after seconds; a query cannot wait so long.  So a node that serves
and says nothing is knocked at, and is *out* until it is heard of again: still on the map, and asked by nobody, unless
all are out.
"""

from __future__ import annotations

from controller.access.calls import Calls
from controller.border.messages import ModelsChanged
from controller.errors import ControllerError
from controller.inference.queries import Queries
from controller.runtime.loop import Worker
from controller.services import Services
from controller.values.knowledge import Node
from packets.messages import AskState

KNOCK_S = 0.05  # between two looks
QUIET_S = 0.08  # of a node that is being asked (it reports every tenth of a second then)
IDLE_S = 1.0  # of one that is not
PATIENCE_S = (0.05, 0.06)  # a knock, and another: 0.05 + 0.08 + 0.11 s from the last word to being out
OUT_S = 0.2  # between knocks at one that is out


class Health:
    """Watches over the nodes of one domain that serve models."""

    def __init__(self, services: Services, worker: Worker, queries: Queries, calls: Calls) -> None:
        self.services, self.worker, self.queries, self.calls = services, worker, queries, calls
        self._asking: set[str] = set()
        self._answered_s: dict[str, float] = {}

    def look(self) -> None:
        """Knock where nothing was heard for too long; take back who is heard of again (periodic)."""
        now_s = self.services.clock()
        for node in self.services.krrm.nodes("mdfp"):
            if not node.get("models") or node.name in self._asking or node.name not in self.services.domain.hosts:
                continue
            silent_s = now_s - max(node.heard_s, self._answered_s.get(node.name, 0.0))
            out = node.name in self.queries.models.out
            if silent_s > (OUT_S if out else _patience_s(node)):
                self._asking.add(node.name)
                self.worker.spawn(self._knock(node.name), f"knock at {node.name}")
            elif out:
                self._back(node.name)

    async def _knock(self, name: str) -> None:
        krrm = self.services.krrm
        heard_s = krrm.node(name).heard_s if name in krrm else 0.0
        try:
            await self.calls.ask(self.services.domain.hosts[name], AskState(), pauses_s=PATIENCE_S)
        except ControllerError as error:
            if name in krrm and krrm.node(name).heard_s <= heard_s:
                self._out(name, str(error))
        else:
            self._answered_s[name] = self.services.clock()
        finally:
            self._asking.discard(name)

    def _out(self, name: str, why: str) -> None:
        if name not in self.queries.models.out:
            self.queries.models.out.add(name)
            self.services.emit("model.out", node=name, kas=self.services.domain.hosts[name].kas, reason=why)
            self._tell_all(name)

    def _back(self, name: str) -> None:
        self.queries.models.out.discard(name)
        self.services.emit("model.back", node=name, kas=self.services.domain.hosts[name].kas)
        self._tell_all(name)

    def gone(self, name: str) -> None:
        """A terminal leaves the map; what it served leads nowhere."""
        self.queries.models.out.discard(name)
        self._answered_s.pop(name, None)
        models = self.services.krrm.node(name).get("models") or []
        if not models or name not in self.services.domain.hosts:
            return
        self._tell_all(name)
        for label in (int(m.get("label", 0)) for m in models):
            if label:
                self.worker.spawn(self.queries.leads.gone(label), f"label of a model that was at {name}")

    def _tell_all(self, name: str) -> None:
        self.worker.spawn(self.tell_of(self.services.domain.hosts[name].kas), f"news of models at {name}")

    async def tell_of(self, at_kas: int) -> None:
        """Tell all control centres that the models of a K-AS are not what they were; returns when they have looked."""
        await self.services.ask_all(lambda kas: ModelsChanged(kas=kas, at_kas=at_kas))

    async def models_changed(self, word: ModelsChanged) -> None:
        """Another control centre (or this one) says that its models are not what they were."""
        await self.queries.reweigh()


def _patience_s(node: Node) -> float:
    asked = any(m.get("arrivals_per_s", 0.0) > 0 for m in node.get("models", []))
    return QUIET_S if asked else IDLE_S
