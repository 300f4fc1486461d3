"""From a forked copy of the zygote to an agent: the namespace, the cgroup, its own data only, its own chance."""

from __future__ import annotations

import os
import random
import time
import zlib
from pathlib import Path
from typing import Protocol

import numpy as np
import torch

from hosts.agent import Agent, AgentSetup
from hosts.gossip.house import House
from hosts.process.config import house_file, load_house
from hosts.process.memory import use_one_arena
from hosts.process.namespaces import die_with_parent, enter_network_namespace, join_cgroup, set_process_name
from hosts.process.nursery import Nursery
from packets.events import Emitter
from packets.labels import DCC_ADDRESS
from packets.security.identity import Directory, Identity
from packets.security.keeper import Keeper
from topologies.plan import HostPlan

DIRECTORY_FILE = "directory.json"


class Order(Protocol):
    """The part of the zygote's fork order that a newborn needs."""

    @property
    def host(self) -> HostPlan: ...

    @property
    def cgroup(self) -> str | None: ...

    @property
    def keys(self) -> str | None: ...


class Birth:
    """What the zygote hands to its children."""

    def __init__(self, nursery: Nursery, runtime_dir: Path, events: str, seed: int) -> None:
        self.samples_per_s = nursery.samples_per_s
        self._nursery: Nursery | None = nursery
        self._runtime_dir, self._events, self._seed = runtime_dir, events, seed

    def settle(self, order: Order, namespace: int, parent: int) -> Agent:
        """Go where that terminal is and become it, in the child alone; returns the agent, its address bound."""
        die_with_parent(parent)
        enter_network_namespace(namespace)
        os.close(namespace)
        if order.cgroup:
            join_cgroup(order.cgroup)
        use_one_arena()
        set_process_name(f"daitn-{order.host.name}")
        self._reseed(order.host.name)
        return Agent(self._setup(order), Emitter(order.host.name, self._events))

    def _setup(self, order: Order) -> AgentSetup:
        """Take this node's own data; the other nodes' is let go."""
        plan = order.host
        nursery, self._nursery = self._nursery, None
        assert nursery is not None, "a newborn is set up once"
        setup = AgentSetup(
            plan=plan, task=nursery.task, runtime_dir=self._runtime_dir, seed=self._seed,
            samples_per_s=nursery.samples_per_s, data=nursery.data.get(plan.name),
            queries=nursery.queries() if plan.role == "query_owner" else None,
            guard=self._guard(order.keys, plan) if order.keys else None, metrics=nursery.metrics,
            members=nursery.members, policies=nursery.policies,
            house=self._house(plan.kas),
        )  # fmt: skip
        nursery.data.clear()
        return setup

    def _house(self, kas: int) -> House | None:
        """What a terminal of a distributed K-AS needs to think for itself."""
        spec = load_house(house_file(self._runtime_dir, kas))
        return House(spec.plan, spec.salt, time.monotonic) if spec else None

    def _guard(self, keys: str, plan: HostPlan) -> Keeper:
        """The keeper of this terminal's word; its DCC is whoever answers at the DCC's label."""
        directory = Directory.load(self._runtime_dir / DIRECTORY_FILE)
        aliases = {DCC_ADDRESS: f"dcc{plan.kas}"}
        return Keeper(Identity.from_json(keys, f"keys of {plan.name}"), directory, aliases=aliases)

    def _reseed(self, name: str) -> None:
        """A fork inherits its parent's random state; every terminal gets its own, from the run's seed."""
        own = zlib.crc32(f"{self._seed}/{name}".encode())
        random.seed(own)
        np.random.seed(own)
        torch.manual_seed(own)
        torch.set_num_threads(1)
