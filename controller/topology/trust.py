"""Trust: earned by what an MPVU saw a visit bring, lost by visits that harm and by reports that cannot be true.

A pure function of evidence.  A node's trust is the mean of a Beta distribution (beta reputation, Josang and Ismail
2002) over its good and bad evidence, with a prior and with forgetting, so that a node that is mended is believed again
only after it has shown it, and old merit does not cover new harm.

What counts is the accuracy *in the groups that the node claims to hold*: a visit to a specialist costs accuracy
elsewhere (forgetting), which is not its fault; losing it in the groups of its own data is.
"""

from __future__ import annotations

from collections.abc import MutableMapping

import msgspec

from controller.values.decisions import Measured, Mix

PRIOR = 0.6  # above the usual floor of 0.5: a newcomer is offered, and one bad visit is enough to stop that
PRIOR_WEIGHT = 2.0
KEEP = 0.9  # of older evidence, at each new one
NOISE = 0.05  # a change of accuracy that test samples of this size show by chance
FULL = 0.2  # a loss of this much in its own groups is bad evidence of full weight
HOPELESS = 0.25  # share of its claimed quality below which a visit has taught nothing of what it claims
BAD_REPORT = 0.5


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """The evidence on one node, weighted by age."""

    good: float = 0.0
    bad: float = 0.0

    @property
    def trust(self) -> float:
        """Trust in 0..1: the prior where there is no evidence."""
        return (self.good + PRIOR * PRIOR_WEIGHT) / (self.good + self.bad + PRIOR_WEIGHT)


class Evidence(msgspec.Struct, frozen=True, kw_only=True):
    """One piece: ``weight`` 0..1 for (positive) or against (negative) a node, and why, for a person."""

    weight: float
    why: str

    def shared(self, share: float) -> Evidence:
        """Return the part of it that one of several visits bears."""
        return Evidence(weight=self.weight * share, why=self.why)


def seen(mix: Mix, quality: float, before: Measured | None, after: Measured, *, latest: bool = True) -> Evidence:
    """Judge one visit by what an MPVU measured before and after it.

    ``mix``: the shares of groups that the node claims; ``quality``: the accuracy that it says its data supports;
    ``before``: None where the model had not been measured yet: it is then held against the claimed quality alone;
    ``latest``: no other node's data has come after its own, to be blamed for what is not known now.
    """
    now = _on(mix, after)
    if now < HOPELESS * quality and (before is None or latest):
        return Evidence(weight=-1.0, why=f"accuracy {now:.2f} in the groups it claims, after training on them")
    if before is None:
        return Evidence(weight=min(1.0, now), why=f"accuracy {now:.2f} in the groups it claims")
    change = now - _on(mix, before)
    if change < -NOISE:
        weight = -min(1.0, -change / FULL)
        return Evidence(weight=weight, why=f"cost {-change:.2f} accuracy in the very groups it claims ({now:.2f} left)")
    return Evidence(weight=max(0.2, min(1.0, change / FULL)), why=f"{change:+.2f} accuracy in the groups it claims")


def _on(mix: Mix, measured: Measured) -> float:
    """Return the accuracy over a node's claimed mix of groups."""
    known = {g: share for g, share in mix.items() if g in measured.per_group}
    total = sum(known.values())
    return sum(share * measured.per_group[g] for g, share in known.items()) / total if total else measured.broad


def bad_report() -> Evidence:
    """A report that cannot be true."""
    return Evidence(weight=-BAD_REPORT, why="a report that cannot be true")


def updated(standing: Standing, evidence: Evidence) -> Standing:
    """Return the standing after one more piece of evidence."""
    good, bad = standing.good * KEEP, standing.bad * KEEP
    if evidence.weight >= 0:
        return Standing(good=good + evidence.weight, bad=bad)
    return Standing(good=good, bad=bad - evidence.weight)


class Ledger:
    """The standing of the terminals of one DCC, in ``known``. Pure state: whoever holds it tells the map."""

    def __init__(self, known: MutableMapping[str, Standing] | None = None) -> None:
        self._held = known if known is not None else {}

    def trust(self, name: str) -> float:
        """Return a terminal's trust."""
        return self._held.get(name, Standing()).trust

    def has(self, name: str) -> bool:
        """Tell whether there is any evidence on a terminal."""
        return name in self._held

    def take(self, name: str, evidence: Evidence) -> float:
        """Take a piece of evidence; return the trust after it."""
        self._held[name] = updated(self._held.get(name, Standing()), evidence)
        return self.trust(name)
