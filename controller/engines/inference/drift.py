"""Drift: has a deployed model's accuracy fallen since it was verified, or did the sample only have bad luck?

Both are shares of right answers, the one at deployment, the other on samples gathered lately.  A fall counts when it is
as large as one cares for and larger than chance explains: a two-proportion z-test, one-sided, its level shared among
the groups that are looked at (Bonferroni), so that many groups raise no more false alarms than one.
"""

from __future__ import annotations

import math
from statistics import NormalDist

from controller.values.decisions import Measured

LEAST_FALL = 0.03  # what nobody would redeploy a model for
LEVEL = 0.01  # chance of an alarm where nothing has changed
FEWEST = 30  # samples of a group below which nothing is said of it


def fallen(known: Measured, now: Measured, group_samples: dict[str, int] | None = None) -> list[str]:
    """Return what has fallen, a line each for a person, the worst first ([]: nothing has).

    ``known``: at deployment; ``now``: on late samples; ``group_samples``: how many of ``now.samples`` are of each group
    (left out: groups are not looked at).
    """
    parts = [("broad", known.broad, now.broad, known.samples, now.samples)]
    share = known.samples / now.samples if now.samples else 0.0
    for group, count in sorted((group_samples or {}).items()):
        if group in known.per_group and group in now.per_group:
            parts.append((group, known.per_group[group], now.per_group[group], round(share * count), count))
    looked_at = [p for p in parts if min(p[3], p[4]) >= FEWEST]
    bar = NormalDist().inv_cdf(1 - LEVEL / max(1, len(looked_at)))
    found = [(was - is_now, _words(name, was, is_now, count)) for name, was, is_now, before, count in looked_at
             if was - is_now >= LEAST_FALL and _z(was, is_now, before, count) > bar]  # fmt: skip
    return [words for _, words in sorted(found, reverse=True)]


def _z(was: float, is_now: float, before: int, now: int) -> float:
    """Return by how many standard errors a share has fallen."""
    pooled = (was * before + is_now * now) / (before + now)
    error = math.sqrt(max(pooled * (1 - pooled), 1e-9) * (1 / before + 1 / now))
    return (was - is_now) / error


def _words(name: str, was: float, is_now: float, count: int) -> str:
    return f"{name} accuracy has fallen from {was:.3f} to {is_now:.3f} on {count} late samples"
