"""The random networks of ``benchmarks.abstraction``: terminals with real data, and who knows what of them.

A network is a plan (``topologies.build``) of two to four K-AS, with data and targets of a real task. Its knowledge is
held by the engines themselves: an ``Intelligence`` for each K-AS, or a ``Tiered`` one, which hears what agents report.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
import numpy as np

from controller.intelligence import Intelligence
from controller.placement.tiers import Tiered
from controller.topology.drrt import Rendezvous
from controller.values.decisions import Option, Request
from controller.values.errors import EngineError, NoPath
from controller.values.paths import kas_path
from hosts.learning.methods.merging import as_measured
from hosts.learning.task import (
    NodeData,
    Samples,
    Task,
    TaskSpec,
    TrainSettings,
    concat_samples,
    load_task,
    model_to_bytes,
    partition,
)
from topologies.build import Rates, Terminal, Wan, build_plan
from topologies.plan import HostPlan, NetworkPlan

OBJECT = 1
HOME, VERIFIER = 1, 2  # the K-AS of the owner, and that of the MPVU which measures after each visit
SALT = b"a salt of sixteen bytes or more"
TARGET_SHARE = 0.9  # of what the same model reaches on everybody's data together
POOLED_EPOCHS = 3.0
LEAST_SAMPLES = 8
Groups = Mapping[int, Mapping[str, list[str]]]  # {K-AS: {abstract terminal: members}}; {}: all is known as it is


class World:
    """One random network. ``said``: what each terminal reports; ``tests``: the samples of the two MPVUs."""

    def __init__(self, seed: int, tables: Mapping[str, str]) -> None:
        rng = np.random.default_rng([seed, 53])
        self.seed, self.name = seed, str(rng.choice(["vignettes", "digits"]))
        self.plan = _network(rng)
        self.task: Task = load_task(_spec(self.name, rng, tables))
        names = [h.name for h in self.plan.hosts if h.role == "data"]
        self.parts: dict[str, NodeData] = partition(self.task, names, seed)
        self.tests: tuple[Samples, Samples] = (self._gather(0), self._gather(1))
        self.said = {h.name: self._says(h, rng) for h in self.plan.hosts}
        self.request = self._request(rng)

    def _gather(self, copy: int) -> Samples:
        return concat_samples([part.test[copy] for part in self.parts.values()])

    def _says(self, host: HostPlan, rng: np.random.Generator) -> dict[str, Any]:
        """Return what the terminal's agent would report (``hosts.roles``)."""
        speed = round(float(10 ** rng.uniform(2.3, 3.3)), 1)  # samples a second
        said: dict[str, Any] = {"queue": int(rng.choice([0, 0, 0, 1, 2])), "reachable": True}
        if host.role in ("data", "compute"):
            said["compute_samples_per_s"] = speed * (3 if host.role == "compute" else 1)
        if host.role == "data":
            train = self.parts[host.name].train
            if len(train) < LEAST_SAMPLES:
                return said
            said |= {
                "samples": len(train),
                "group_shares": self.task.describe(train, self.seed),
                "quality": round(self.task.quality_probe(train, self.seed), 3),
                "data_may_move": host.data_may_move,
            }
        return said

    def _request(self, rng: np.random.Generator) -> Request:
        """Return a job whose targets are a share of what the pooled data teach."""
        model = self.task.new_model(self.seed)
        size = len(model_to_bytes(model))
        everything = concat_samples([part.train for part in self.parts.values()])
        local = TrainSettings(epochs=POOLED_EPOCHS, batch_size=64, learning_rate=2e-3, seed=self.seed)
        self.task.train(model, everything, local)
        pooled = as_measured(self.task.evaluate(model, concat_samples(list(self.tests))))
        expert = str(rng.choice(self.task.groups))
        return Request(
            task=self.task.name,
            groups=self.task.groups,
            broad_accuracy=round(TARGET_SHARE * pooled.broad, 3),
            expert_group=expert,
            expert_accuracy=round(TARGET_SHARE * pooled.per_group[expert], 3),
            max_visits=10,
            deadline_s=300.0,
            model_bytes=size,
            seed=self.seed,
        )

    def groups(self, members: int) -> Groups:
        """Return abstract terminals of about so many data nodes (0: one a K-AS), with the facilities shared out."""
        rng, found = np.random.default_rng([self.seed, 59]), {}
        for kas in self.plan.kas_numbers:
            data, compute = (
                [h.name for h in self.plan.hosts if (h.kas, h.role) == (kas, role)] for role in ("data", "compute")
            )
            data = [data[i] for i in rng.permutation(len(data))]
            count = max(1, len(data) // members) if members else 1
            found[kas] = {f"at{kas}{n}": [*data[n::count], *compute[n::count]] for n in range(count)}
        return found


def _network(rng: np.random.Generator) -> NetworkPlan:
    """Draw a plan: two to four K-AS in a line, each with data nodes, compute facilities and an MPVU."""
    kas: dict[int, list[Terminal | str]] = {}
    for number in range(1, int(rng.integers(2, 5)) + 1):
        data = [
            Terminal(f"h{number}x{i}", "data", data_may_move=bool(rng.random() < 0.5), rate_mbps=_rate(rng))
            for i in range(int(rng.integers(4, 8)))
        ]
        compute = [Terminal(f"c{number}x{i}", "compute", rate_mbps=_rate(rng)) for i in range(int(rng.integers(1, 4)))]
        kas[number] = [*data, *compute, Terminal(f"v{number}", "mpvu")]
    kas[HOME].append(Terminal("owner", "model_owner"))
    wan = [Wan(k, k + 1, rate_mbps=_rate(rng), delay_ms=float(rng.uniform(5, 40))) for k in range(1, len(kas))]
    return build_plan("abstraction", kas=kas, wan=wan, rates=Rates(), access_switches=int(rng.integers(2, 5)))


def _rate(rng: np.random.Generator) -> float:
    return round(float(10 ** rng.uniform(1, 2)), 1)  # 10 to 100 Mbit/s


def _spec(name: str, rng: np.random.Generator, tables: Mapping[str, str]) -> TaskSpec:
    if name == "vignettes":
        alpha, samples = float(rng.choice([0.15, 0.3, 1.0])), int(rng.choice([150, 300]))
        return TaskSpec(alpha=alpha, train_per_node=samples, test_per_node=40)
    return TaskSpec(name="table", data=tables[name], alpha=float(rng.choice([0.2, 0.5, 1.0])), hidden=32)


class Knowledge:
    """What the control centres of a world know: ``groups`` of terminals as one each, or everything ({})."""

    def __init__(self, world: World, groups: Groups) -> None:
        self.world, self.minds = world, dict[int, Intelligence]()
        for kas in world.plan.kas_numbers:
            domain = world.plan.domain(kas)
            of_kas = groups.get(kas, {})
            mind = Tiered(domain, salt=SALT, groups=of_kas) if of_kas else Intelligence(domain, salt=SALT)
            for host in domain.hosts:
                if host.name in world.said:
                    mind.hear(host, world.said[host.name], 0.0)
            self.minds[kas] = mind

    def offers(self) -> list[Option]:
        """Return what all K-AS offer, with the borders to the MPVU as a home reckons them."""
        found = []
        for mind in self.minds.values():
            found += [self._placed(o) for o in mind.offers(OBJECT, self.world.request, 0.0).options]
        return found

    def _placed(self, option: Option) -> Option:
        domain = self.minds[option.kas].domain
        try:
            way = kas_path(domain.kas_links, VERIFIER, option.kas)
        except NoPath:
            return option
        return msgspec.structs.replace(option, borders=len(way) - 1)

    async def settle(self, option: Option) -> Rendezvous | None:
        """Return who is met behind an option, as its own K-AS decides (None: nobody any more)."""
        mind = self.minds[option.kas]
        try:
            await mind.settle(OBJECT, option.handle, 0.0)
        except EngineError:
            return None
        return mind.place(OBJECT, option.handle)

    def trained(self, kas: int, data_node: str) -> None:
        """Tell the K-AS in which a visit was made."""
        self.minds[kas].trained(OBJECT, data_node)

    def meetings(self) -> dict[Rendezvous, Option]:
        """Return all meetings with the offers that are made of them."""
        found = dict[Rendezvous, Option]()
        for mind in self.minds.values():
            cut = mind.offers(OBJECT, self.world.request, 0.0)
            found |= {cut.resolve(o.handle): self._placed(o) for o in cut.options}
        return found
