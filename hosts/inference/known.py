"""The models of a class as one asker knows them: what its control centre says, what every answer and probe says."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from controller.values.queries import Replica
from packets.messages import Known, State


class KnownReplicas:
    """Keeps one ``Replica`` a model; the younger word wins. Seconds are of the asker's clock."""

    def __init__(self) -> None:
        self.by_label: dict[int, Replica] = {}
        self._sent_s: dict[int, dict[int, float]] = {}

    def told(self, known: Iterable[Known], now_s: float) -> set[int]:
        """Take the control centre's list; return the labels that are not in it any more."""
        listed = {k.label: k for k in known}
        gone = self.by_label.keys() - listed.keys()
        for label in gone:
            del self.by_label[label]
        for label, k in listed.items():
            replica = self.by_label.get(label)
            if replica is None:
                replica = self.by_label[label] = Replica(label=label, told_s=float("-inf"))
            replica.path_ms, replica.accuracy, replica.weight = k.path_ms, k.accuracy, k.weight
            replica.metrics = k.metrics
            self._state(replica, k.in_flight, k.service_ms, k.arrivals_per_s, now_s - k.age_s)
        return set(gone)

    def state(self, state: State, now_s: float, known: int = 0) -> None:
        """Take a model's own word, just come in; ``known``: the label that was asked, where it goes by another now."""
        replica = self.by_label.get(known or state.label) or self.by_label.get(state.label)
        if replica is not None:
            told_s = now_s - replica.path_ms / 1e3
            self._state(replica, state.in_flight, state.service_ms, state.arrivals_per_s, told_s)

    def _state(self, replica: Replica, in_flight: int, service_ms: float, arrivals_per_s: float, told_s: float) -> None:
        if told_s >= replica.told_s:
            replica.in_flight, replica.arrivals_per_s, replica.told_s = in_flight, arrivals_per_s, told_s
            replica.service_ms = service_ms or replica.service_ms
        self._count(replica)

    def sent(self, label: int, query: int, now_s: float) -> None:
        """A query went to a model."""
        self._sent_s.setdefault(label, {})[query] = now_s
        self._changed(label)

    def over(self, label: int, query: int) -> None:
        """A query is not with a model any more."""
        self._sent_s.get(label, {}).pop(query, None)
        self._changed(label)

    def _changed(self, label: int) -> None:
        if (replica := self.by_label.get(label)) is not None:
            self._count(replica)

    def _count(self, replica: Replica) -> None:
        """Count own queries, and those of them that had not come in when the state was taken."""
        sent = self._sent_s.get(replica.label, {})
        since_s = replica.told_s - replica.path_ms / 1e3
        replica.own, replica.sent_since = len(sent), sum(at_s > since_s for at_s in sent.values())

    def copy(self) -> list[Replica]:
        """Return what is known now, for others to read."""
        return [msgspec.structs.replace(r) for r in self.by_label.values()]
