"""TAG, the training algorithm generator: which way of training suits these data, this model and these links.

A thin first version with one real comparison, sequential against federated learning. What decides (FACTS.md: Li &
Lyu, NeurIPS 2023): sequential learning wins under strong skew between nodes, federated averaging when mixes are
alike, and then in wall time too, because nodes train at once. Only sequential learning is carried out today: where
federated would have been chosen, the reason says so, and nothing pretends otherwise.
"""

from __future__ import annotations

from collections.abc import Sequence

from controller.engines.types import Mix, Option, Request

SKEW_LIMIT = 0.25  # mean total variation distance from the pooled mix: 0 all alike, towards 1 nothing in common
ROUNDS = 10
EPOCHS_PER_VISIT = 2.0


def choose_method(request: Request, options: Sequence[Option]) -> tuple[str, str]:
    """Return (method, reason). The method is one that the testbed carries out; the reason is for a person."""
    if len(options) < 2:
        return "sequential", f"sequential: {len(options)} rendezvous on offer, nothing to train in parallel"
    skew = mix_skew(options)
    if skew >= SKEW_LIMIT:
        return (
            "sequential",
            f"sequential: the nodes' mixes differ by {skew:.2f} (limit {SKEW_LIMIT:.2f}), averaging would blur them",
        )
    visits = min(request.max_visits, len(options))
    sequential_s, federated_s = _wall_s(options, visits)
    sequential_bytes, federated_bytes = visits * request.model_bytes, 2 * ROUNDS * len(options) * request.model_bytes
    federated = f"{federated_s:.1f} s, {federated_bytes / 1e6:.1f} MB"
    cost = f"{federated} against {sequential_s:.1f} s, {sequential_bytes / 1e6:.1f} MB"
    if federated_s >= sequential_s:
        return "sequential", f"sequential: mixes are alike (differ by {skew:.2f}), but federated would take {cost}"
    return (
        "sequential",
        f"federated would be chosen (mixes differ by {skew:.2f}; {cost}), but only sequential is carried out today",
    )


def mix_skew(options: Sequence[Option]) -> float:
    """Return the sample-weighted mean total variation distance of the options' mixes from their pooled mix, 0..1."""
    total = sum(o.samples for o in options)
    if total <= 0:
        return 0.0
    groups = sorted({g for o in options for g in o.mix})
    pooled: Mix = {g: sum(o.samples * o.mix.get(g, 0.0) for o in options) / total for g in groups}
    distance = (o.samples * sum(abs(o.mix.get(g, 0.0) - pooled[g]) for g in groups) / 2 for o in options)
    return sum(distance) / total


def _wall_s(options: Sequence[Option], visits: int) -> tuple[float, float]:
    """Return the seconds of so many sequential visits, and of federated rounds with the same epochs in all."""
    visit_s = [o.reach_s + o.move_s + EPOCHS_PER_VISIT * o.epoch_s for o in options]
    sequential_s = visits * sum(visit_s) / len(visit_s)
    epochs_a_round = EPOCHS_PER_VISIT * visits / len(options) / ROUNDS
    round_s = max(2 * o.reach_s + o.move_s / ROUNDS + epochs_a_round * o.epoch_s for o in options)
    return sequential_s, ROUNDS * round_s
