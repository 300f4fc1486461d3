"""TAG, the training algorithm generator: which way of training suits these data, this model and these links.

Objective: the highest accuracy expected when the time is up (the request's deadline); of methods that come within
``TIE`` of it, the one with the fewest bytes. Four methods, as the testbed carries them out:

- ``sequential``: one model visits node after node (MTRCE's route), an MPVU after each; little traffic, no parallelism.
- ``federated``: all nodes train at once, a facility averages; 2n models a round pass the facility's link.
- ``gossip``: all train at once, each sends its model to one other; n models a round, over links of their own.
- ``split``: nodes hold the lower layers; activations, labels and gradients travel with every step, lower layers are
  averaged after each pass. Needs a model that can be cut and owners of data who let labels go.

Time of a round: local training (of the slowest where all train at once), round trips, bytes over the rate (of all
transfers where they share a link, else of the busiest one). Accuracy after R rounds (visits, passes):

    top * (1 - DROP * skew**4) * (1 - exp(-(R / scale)**shape)) * (1 - late / (1 + R))
    scale = exp(a + b * skew + c * skew**4 - d * log(local steps / 8))

``skew``: mean total variation distance of nodes' mixes from the pooled mix. One row of ``CURVES`` for each method,
fitted to real training of a 250 k transformer (vignettes) and a small layered model (digits) on 8 and 10 nodes, from
IID to one class a node, seeds 0 and 1 (rmse 0.02-0.07); ``benchmarks/tag.py`` measures on another seed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from controller.engines import hpo
from controller.engines.types import Hyper, Mix, Option, Request

METHODS = ("sequential", "federated", "gossip", "split")
TIE = 0.003
VERIFY_TRIPS = 2  # of a sequential visit: to the node and to the MPVU
MOST_ROUNDS = 10_000
ACTIVATION_BYTES = 384


class Curve(NamedTuple):
    """The constants of one method's learning curve, see above."""

    a: float
    b: float
    c: float
    d: float
    drop: float
    top: float
    shape: float
    late: float


CURVES = {
    "sequential": Curve(-0.999, 4.273, 1.260, 0.002, -0.171, 0.972, 0.837, 0.457),
    "federated": Curve(-0.367, 0.654, 0.832, 0.835, 0.202, 1.002, 1.656, 0.460),
    "gossip": Curve(-0.391, 0.684, 1.042, 0.909, 0.320, 1.001, 1.641, 0.459),
    "split": Curve(-0.381, 0.458, 0.558, 1.044, 0.057, 0.997, 1.289, 0.333),
}


class Ways(msgspec.Struct, frozen=True, kw_only=True):
    """The links between the nodes. ``shared``: all transfers pass one of them (else each has its own)."""

    rate_mbps: float = 50.0
    round_trip_s: float = 0.04
    shared: bool = True


class Cut(msgspec.Struct, frozen=True, kw_only=True):
    """Where split learning would cut: bytes of the lower layers (0: all of the model) and of one sample's activations.

    ``allowed`` False: the model has no place to cut, or labels must not leave the nodes.
    """

    allowed: bool = True
    lower_bytes: int = 0
    activation_bytes: int = ACTIVATION_BYTES


class Prospect(NamedTuple):
    """What one method is expected to come to when the time is up."""

    method: str
    accuracy: float
    rounds: int
    round_s: float
    bytes: float


class Choice(NamedTuple):
    """TAG's word: the method, why (one line for a person), and all prospects, best first."""

    method: str
    reason: str
    prospects: list[Prospect]


def choose(
    request: Request, options: Sequence[Option], ways: Ways | None = None, *, cut: Cut | None = None,
    local: Hyper | None = None,
) -> Choice:  # fmt: skip
    """Choose a method for distinct data ``options``. ``local``: epochs and batches of a round (default: HPO's word)."""
    if len(options) < 2:
        told = f"sequential: {len(options)} rendezvous on offer, nothing to train in parallel"
        return Choice("sequential", told, [])
    found = [_prospect(m, request, options, ways or Ways(), cut or Cut(), local) for m in METHODS]
    if cut and not cut.allowed:
        found = [p for p in found if p.method != "split"]
    found.sort(key=lambda p: (-p.accuracy, p.bytes))
    near = [p for p in found if p.accuracy >= found[0].accuracy - TIE]
    best = min(near, key=lambda p: p.bytes)
    return Choice(best.method, _reason(best, found, mix_skew(options)), found)


def choose_method(request: Request, options: Sequence[Option]) -> tuple[str, str]:
    """Return (method, reason) over wide-area links; see ``choose``."""
    choice = choose(request, options)
    return choice.method, choice.reason


def _prospect(
    method: str, request: Request, options: Sequence[Option], ways: Ways, cut: Cut, local: Hyper | None
) -> Prospect:
    count = len(options)
    samples = sum(o.samples for o in options) / count
    local = local or hpo.hyper(request, 0, round(samples))
    steps = max(1.0, local.epochs * samples / local.batch_size)
    sent, alone = _bytes(method, request, count, local.epochs * samples, cut)
    trips = {"sequential": VERIFY_TRIPS, "federated": 2, "gossip": 1, "split": 2 + steps}[method]
    slowest = max(o.epoch_s for o in options)
    usual = sum(o.epoch_s for o in options) / count
    train_s = local.epochs * (usual if method == "sequential" else slowest)
    wire_s = 8 * (sent if ways.shared else alone) / (ways.rate_mbps * 1e6)
    round_s = train_s + trips * ways.round_trip_s + wire_s
    rounds = int(min(MOST_ROUNDS, request.deadline_s / max(round_s, 1e-9)))
    if method == "sequential":
        rounds = min(rounds, request.max_visits)
    accuracy = curve(method, rounds, mix_skew(options), steps)
    return Prospect(method, round(accuracy, 4), rounds, round_s, sent * rounds)


def _bytes(method: str, request: Request, count: int, samples: float, cut: Cut) -> tuple[float, float]:
    """Return the bytes of a round, all of them and those of the busiest link where each has its own."""
    model = request.model_bytes
    if method == "sequential":
        return 2.0 * model, 2.0 * model
    if method == "federated":
        return 2.0 * count * model, 2.0 * count * model
    if method == "gossip":
        return float(count * model), float(model)
    lower = cut.lower_bytes or model
    sent = count * (2.0 * lower + 2.0 * samples * (cut.activation_bytes + 1))
    return sent, sent


def curve(method: str, rounds: int, skew: float, steps: float) -> float:
    """Return the accuracy expected after so many rounds of so many local steps; 0 without any."""
    if rounds < 1:
        return 0.0
    k = CURVES[method]
    scale = math.exp(k.a + k.b * skew + k.c * skew**4 - k.d * math.log(steps / 8))
    learned = 1.0 - math.exp(-min(700.0, (rounds / scale) ** k.shape))
    return max(0.0, min(1.0, k.top * (1.0 - k.drop * skew**4) * learned * (1.0 - k.late / (1 + rounds))))


def _reason(best: Prospect, found: Sequence[Prospect], skew: float) -> str:
    """Say in one line what the choice rests on."""
    others = [p for p in found if p.method != best.method]
    told = ", ".join(f"{p.method} {p.accuracy:.2f} ({p.rounds} rounds, {p.bytes / 1e6:.1f} MB)" for p in others)
    return (
        f"{best.method}: {best.accuracy:.2f} expected after {best.rounds} rounds of {best.round_s:.2f} s "
        f"({best.bytes / 1e6:.1f} MB); mixes differ by {skew:.2f}; {told}"
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
