"""The schedule of a fault campaign: what befalls whom, when and for how long; a pure function of network and seed."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Final, Literal, get_args

import msgspec

from experiments.errors import ExperimentError
from topologies.plan import NetworkPlan

Kind = Literal["crash", "pause", "slow", "partition", "loss", "corruption", "flapping", "reboot"]
Sort = Literal["host", "switch", "dcc", "gateway", "link"]
KINDS: Final[tuple[Kind, ...]] = get_args(Kind)
SORTS: Final[tuple[Sort, ...]] = get_args(Sort)

TABLE: Final[dict[Kind, dict[Sort, str]]] = {
    "crash": {
        "host": "its agent is killed (SIGKILL), another is started at the end",
        "switch": "its bridge is gone and its links are down until the end, when it comes back without a rule",
        "dcc": "killed (SIGKILL); its parent has the next life at hand",
        "gateway": "its border speaker is killed (SIGKILL); the testbed starts it again",
    },
    "pause": {
        "host": "its agent stands still (SIGSTOP) until the end",
        "dcc": "stands still (SIGSTOP) until the end",
        "gateway": "its border speaker stands still (SIGSTOP) until the end",
    },
    "slow": {
        "host": "its agent gets a share of its CPU",
        "dcc": "gets a share of a core",
        "gateway": "its border speaker gets a share of a core",
        "link": "a share of its rate",
    },
    "partition": {
        "host": "its link is down",
        "switch": "all its links are down",
        "gateway": "all links of its K-AS to others are down",
        "link": "down",
    },
    "loss": {"link": "both ways lose a share of the frames"},
    "corruption": {"link": "both ways alter a byte in a share of the AI packets, and hide it from UDP's checksum"},
    "flapping": {"link": "down and up, twice a second"},
    "reboot": {
        "host": "its agent ends (SIGTERM), another is started at once",
        "switch": "its bridge is removed and made anew at once, without a rule",
        "dcc": "ends (SIGTERM); the testbed starts it again",
        "gateway": "its border speaker ends (SIGTERM); the testbed starts it again",
    },
}
SLOT_S: Final = 9.0  # for a fault and what follows it, where nobody says how long the campaign is
BREATH: Final = 0.45  # of a slot: the longest fault that stands alone
TOGETHER: Final = 0.2  # of the faults last into the next one
SHARES: Final[dict[Kind, tuple[float, float]]] = {"slow": (0.05, 0.3), "loss": (0.02, 0.3), "corruption": (0.02, 0.3)}


class Fault(msgspec.Struct, frozen=True, kw_only=True):
    """One fault. ``share``: of CPU or rate that is left, of frames that are lost or altered."""

    number: int
    at_s: float
    kind: Kind
    sort: Sort
    target: str
    seconds: float
    share: float = 0.0

    @property
    def until_s(self) -> float:
        return self.at_s + self.seconds

    def __str__(self) -> str:
        share = f" {self.share:.0%}" if self.share else ""
        return f"{self.kind}{share} of {self.sort} {self.target}"


def targets(plan: NetworkPlan) -> dict[Sort, list[str]]:
    """Return the names of all that a fault can befall, by sort."""
    return {
        "host": sorted(h.name for h in plan.hosts if h.role != "host"),
        "switch": sorted(s.name for s in plan.switches),
        "dcc": [f"dcc{kas}" for kas in plan.kas_numbers],
        "gateway": sorted(s.name for s in plan.speakers),
        "link": sorted(link.name for link in plan.links),
    }


def check_kinds(words: Sequence[str]) -> list[Kind]:
    """Return the kinds of these names, all where none is given; ``ExperimentError`` names the one that is none."""
    if unknown := [word for word in words if word not in KINDS]:
        raise ExperimentError(f"no kind of fault is called {unknown[0]!r}; there are: {', '.join(KINDS)}")
    return [kind for kind in KINDS if kind in words or not words]


def schedule(
    plan: NetworkPlan, seed: int, *, faults: int, seconds: float = 0.0, kinds: Sequence[Kind] = KINDS
) -> list[Fault]:
    """Return the faults of a campaign, in order of time.

    Each kind and sort has its turn before any has a second one. Most faults end well before the next begins, so that
    what must hold can be looked at; some last into it. None befalls what an earlier one still holds.
    """
    names = targets(plan)
    choices = [(kind, sort) for kind in kinds for sort in TABLE[kind] if names[sort]]
    rng = random.Random(f"{plan.name}/{seed}")
    slot_s = (seconds or SLOT_S * faults) / max(faults, 1)
    made: list[Fault] = []
    turn: list[tuple[Kind, Sort]] = []
    for number in range(faults):
        if not turn:
            turn = rng.sample(choices, len(choices))
        kind, sort = turn.pop()
        at_s = round(slot_s * (number + 0.1 * rng.random()), 2)
        held = {f.target for f in made[-2:] if f.until_s >= at_s}
        free = [name for name in names[sort] if name not in held] or names[sort]
        lasts = 0.95 + 0.3 * rng.random() if rng.random() < TOGETHER else BREATH * (0.2 + 0.8 * rng.random())
        low, high = SHARES.get(kind, (0.0, 0.0))
        made.append(
            Fault(
                number=number + 1, at_s=at_s, kind=kind, sort=sort, target=rng.choice(free),
                seconds=round(slot_s * lasts, 2), share=round(rng.uniform(low, high), 3),
            )
        )  # fmt: skip
    return made
