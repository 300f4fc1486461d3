"""The policies by which an asker picks the replica that answers a query: by name, all alike in use.

Ours is ``qirce``; the others are what it is measured against.
"""

from __future__ import annotations

import random

from controller.engines.inference.policies.base import Base
from controller.engines.inference.policies.least_loaded import LeastLoaded
from controller.engines.inference.policies.nearest import Nearest
from controller.engines.inference.policies.peak_ewma import PeakEwma
from controller.engines.inference.policies.prequal import Prequal
from controller.engines.inference.policies.qirce import Qirce
from controller.engines.inference.policies.random_choice import RandomChoice
from controller.engines.inference.policies.round_robin import RoundRobin
from controller.engines.inference.policies.two_choices import TwoChoices
from controller.values.queries import Policy

__all__ = ["POLICIES", "policy"]

POLICIES: dict[str, type[Base]] = {
    "nearest": Nearest,
    "random": RandomChoice,
    "round-robin": RoundRobin,
    "least-loaded": LeastLoaded,
    "two-choices": TwoChoices,
    "peak-ewma": PeakEwma,
    "prequal": Prequal,
    "qirce": Qirce,
}


def policy(name: str, rng: random.Random) -> Policy:
    """Return a new policy of that name."""
    if name not in POLICIES:
        raise ValueError(f"no policy {name!r}; known: {', '.join(POLICIES)}")
    return POLICIES[name](rng)
