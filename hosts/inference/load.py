"""A load of queries at one asker: what it is told, how it runs, what came of it."""

from __future__ import annotations

import math
import random
import threading
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import msgspec

from controller.engines.inference.policies import POLICIES, policy
from controller.values.queries import Policy
from hosts.errors import BadCommand
from hosts.inference import asked
from hosts.inference.asking import Asking, Means, Sample
from hosts.inference.patterns import Pattern, arrivals, rate_of
from packets.messages import Need
from packets.queries import Variant
from packets.security.clock import unix_s
from topologies.own.files import make_own

BY_GROUP = "group"  # no policy at the asker: the select groups of the switches choose
TELL_S = 1.0
STEPS = 16  # bounds of latency to a factor of ten
Count = Annotated[int, msgspec.Meta(ge=1, le=4096)]


class LoadSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What one asker is to ask. ``asker`` of ``askers`` is at ``place`` of ``places``, with ``askers_here``.

    ``policy``: a name of ``policies.POLICIES``, ``group``, or ``file.py:Class``; ``start_unix_s``: common to all askers
    (0: now); ``samples``: how many different ones are asked, over and over; ``way``: the variant that is asked.
    """

    pattern: Pattern = Pattern()
    seconds: Annotated[float, msgspec.Meta(gt=0.0, le=86_400.0)] = 10.0
    policy: str = "qirce"
    need: Need = Need()
    way: Variant = ""
    group: str = ""
    seed: int = 0
    asker: Annotated[int, msgspec.Meta(ge=0)] = 0
    askers: Count = 1
    place: Annotated[int, msgspec.Meta(ge=0)] = 0
    places: Count = 1
    askers_here: Count = 1
    samples: Count = 512
    start_unix_s: float = 0.0


def known_policies() -> list[str]:
    """Return the names of the policies there are."""
    return sorted([*POLICIES, BY_GROUP])


def make_policy(name: str, rng: random.Random) -> Policy | None:
    """Return a policy by name, or of ``file.py:Class``; None where the network chooses; ``BadCommand``."""
    if name == BY_GROUP:
        return None
    if ":" in name:
        return make_own("policy", name, object, lambda kind: kind(rng), BadCommand)  # type: ignore[return-value,call-arg]
    try:
        return policy(name, rng)
    except ValueError:
        known = ", ".join(known_policies())
        raise BadCommand(
            f"no policy is called {name!r}; there are: {known}; or give your own as file.py:Class"
        ) from None


def buckets(rows: Sequence[asked.Row]) -> dict[str, int]:
    """Return how many were answered within each upper bound of latency (ms), sixteen bounds to a factor of ten."""
    bounds = (math.ceil(STEPS * math.log10(max(r.latency_ms, 0.01))) for r in rows if r.outcome == "answered")
    return {f"{10 ** (step / STEPS):.4g}": n for step, n in sorted(Counter(bounds).items())}


class Load:
    """One load, begun when it is made."""

    def __init__(self, spec: LoadSpec, means: Means, task: str, samples: Sequence[Sample], folder: Path) -> None:
        rng = random.Random(f"{spec.seed}/{spec.asker}/{spec.pattern.kind}")
        rate, most = rate_of(spec.pattern, spec.place, spec.places, spec.askers_here, spec.askers)
        chooser = make_policy(spec.policy, random.Random(f"{spec.seed}/{spec.asker}/policy"))
        self.spec, self.means, self.folder = spec, means, folder
        self.asking = Asking(means, task, spec.need, samples, arrivals(rate, most, rng), spec.seconds, chooser)
        ahead_s = max(0.0, spec.start_unix_s - unix_s()) if spec.start_unix_s else 0.0
        self.asking.start(means.clock() + ahead_s)
        threading.Thread(target=self._tell, args=(ahead_s,), name="load", daemon=True).start()

    def result(self, wait_s: float = 0.0) -> dict[str, Any]:
        """Return how it stands; what came of it once it is over (waits so long for that), its rows in a file."""
        over = self.asking.over.wait(wait_s) if wait_s else self.asking.over.is_set()
        rows = list(self.asking.rows)
        found = asked.summary(rows, self.spec.need.deadline_ms)
        ages = self.asking.ages_s
        found["known_age_ms"] = round(1e3 * sum(ages) / len(ages), 2) if ages else None
        result = {"over": over, "under_way": self.asking.under_way, "reasons": dict(self.asking.reasons), **found}
        if over:
            self.folder.mkdir(parents=True, exist_ok=True)
            file = self.folder / "queries.csv"
            asked.write(file, rows)
            result["file"] = str(file)
        return result

    def _tell(self, ahead_s: float) -> None:
        """Tell once a second what was asked, answered, refused and lost, and how long answers took."""
        self.asking.over.wait(ahead_s)
        told = 0
        while not self.asking.over.wait(TELL_S):
            told = self._tell_since(told)
        self._tell_since(told)
        total = asked.summary(self.asking.rows, self.spec.need.deadline_ms)
        self.means.emit("load.over", policy=self.spec.policy, **total)

    def _tell_since(self, told: int) -> int:
        rows = self.asking.rows[told:]
        found = asked.summary(rows, self.spec.need.deadline_ms)
        about = {"policy": self.spec.policy, "under_way": self.asking.under_way}
        self.means.emit("load.second", **about, latency_buckets=buckets(rows), **found)
        return told + len(rows)
