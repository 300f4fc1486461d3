"""Rules for queries: where the label of each deployed model leads, and how a class of queries is shared among them.

A model's label leads to it from everywhere in a K-AS (one rule a switch, whoever asks).  The switch at which a query
comes in chooses: it writes the chosen model's label over that of the class, by one select group a class, whoever asks.
State so grows with models and classes, not with askers, and no two switches choose by the same hash of the same packet.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field

from controller.domain import Domain
from controller.southbound import pipeline
from controller.southbound.failover import Ways
from controller.southbound.openflow import (
    Action,
    Bucket,
    FlowMod,
    GroupMod,
    Match,
    Mod,
    SetField,
    Southbound,
    ToGroup,
)
from controller.tools.exits import Exit
from packets.labels import label_address

CLASS_PRIORITY, MODEL_PRIORITY = 40, 30


@dataclass(frozen=True)
class Lead:
    """Where a model's label leads in one K-AS: the exit, and the rule of each switch."""

    leave: Exit
    rules: dict[str, FlowMod] = field(repr=False)


@dataclass(frozen=True)
class Shared:
    """How one switch shares a class: weight by model label, and its rule; ``group``: it has a select group."""

    weights: dict[int, int]
    rule: FlowMod = field(repr=False)
    buckets: tuple[Bucket, ...] = field(repr=False)
    group: bool


class Classes:
    """Model labels and classes in the switches of one domain. What is sent is confirmed by the caller's barrier."""

    def __init__(self, domain: Domain, south: Southbound, ways: Callable[[], Ways]) -> None:
        self.domain, self.south, self.ways = domain, south, ways
        self.leads: dict[tuple[int, int], Lead] = {}
        self.shares: dict[tuple[int, str], Shared] = {}

    # --- deployed models

    def lead(self, label: int, kas: int, leave: Exit) -> list[str]:
        """Lead a model's label to an exit from every switch of a K-AS; return the switches that were told."""
        match = pipeline.label_match(label)
        actions: dict[str, tuple[Action, ...]] = {leave.switch: leave.actions()}
        way = self.ways().to(leave.switch)
        actions |= {name: way.onward(name) for name in way.towards}
        cookie = pipeline.CLASS_COOKIE | label
        rules = {n: FlowMod(pipeline.LABEL, match, MODEL_PRIORITY, a, cookie=cookie) for n, a in actions.items()}
        before = self.leads.get((label, kas))
        self.leads[label, kas] = Lead(leave, rules)
        told = [n for n, rule in rules.items() if before is None or before.rules.get(n) != rule]
        for name in told:
            self._send(name, [rules[name]])
        if before is not None:
            self._delete([n for n in before.rules if n not in rules], match, MODEL_PRIORITY)
        return told

    def unlead(self, label: int, kas: int) -> list[str]:
        """Forget where a model's label leads in a K-AS; return the switches that were told."""
        lead = self.leads.pop((label, kas), None)
        names = list(lead.rules) if lead else []
        self._delete(names, pipeline.label_match(label), MODEL_PRIORITY)
        return names

    # --- classes

    def share(self, label: int, switch: str, weights: Mapping[int, int]) -> bool:
        """Share a class that comes in at a switch among models that have a lead there; False: it is so already.

        New weights go into the group that is there: packets find it before and after, never none.
        """
        before = self.shares.get((label, switch))
        buckets = tuple(Bucket(max(1, w), self._towards(model, switch)) for model, w in sorted(weights.items()))
        group = len(buckets) > 1 or (before is not None and before.group)
        actions: tuple[Action, ...] = (ToGroup(label),) if group else buckets[0].actions
        cookie = pipeline.CLASS_COOKIE | label
        rule = FlowMod(pipeline.LABEL, pipeline.label_match(label), CLASS_PRIORITY, actions, cookie=cookie)
        shared = Shared(dict(weights), rule, buckets, group)
        if before == shared:
            return False
        mods: list[Mod] = []
        if group and (before is None or before.buckets != buckets or not before.group):
            mods.append(GroupMod(label, buckets, modify=before is not None and before.group))
        if before is None or before.rule != rule:
            mods.append(rule)
        self.shares[label, switch] = shared
        self._send(switch, mods)
        return True

    def unshare(self, label: int, switches: Collection[str]) -> list[str]:
        """Give a class that comes in at these switches back to the control centre; return those that were told."""
        names = [name for name in sorted(switches) if (label, name) in self.shares]
        self._delete(names, pipeline.label_match(label), CLASS_PRIORITY)
        for name in names:
            if self.shares.pop((label, name)).group:
                self._send(name, [GroupMod(label, delete=True)])
        return names

    def _towards(self, model: int, switch: str) -> tuple[Action, ...]:
        """What a switch does with a query that it gives to a model: the model's label (or its host), and onwards."""
        lead = self.leads[model, self.domain.switches[switch].kas]
        onward = lead.rules[switch].actions
        if lead.leave.host is not None and lead.leave.switch == switch:
            return onward
        return (SetField("ipv4_dst", label_address(model)), *onward)

    def rules_of(self, switch: str) -> list[Mod]:
        """Return all that a switch holds of models and classes, for one that has connected anew."""
        leads: list[Mod] = [lead.rules[switch] for lead in self.leads.values() if switch in lead.rules]
        shares = [(label, s) for (label, name), s in self.shares.items() if name == switch]
        groups: list[Mod] = [GroupMod(label, s.buckets) for label, s in shares if s.group]
        return [*leads, *groups, *(s.rule for _, s in shares)]

    def _delete(self, names: list[str], match: Match, priority: int) -> None:
        for name in names:
            self._send(name, [FlowMod(pipeline.LABEL, match, priority, delete=True)])

    def _send(self, name: str, mods: list[Mod]) -> None:
        self.south.send(self.domain.switches[name].dpid, mods)
